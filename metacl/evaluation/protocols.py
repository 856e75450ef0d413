"""Protocols of few-shot evaluation by name: what an accuracy has to be measured by to stand beside published ones.

What a paper does not fix, inner steps and the seed of the episodes above all, stays open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metacl.config import RunConfig
from metacl.errors import ConfigError
from metacl.registry import nearest
from metacl.tasks import TaskSource
from metacl.tasks.bundled import BUNDLED
from metacl.tasks.labelled_text import LabelledText


@dataclass(frozen=True)
class Setting:
    """One shape of its episodes. ways, queries : None where the protocol leaves them open."""

    ways: int | None
    shots: int
    queries: int | None

    def __str__(self) -> str:
        """In words."""
        return f"{self.shots}-shot" if self.ways is None else f"{self.ways}-way {self.shots}-shot"


@dataclass(frozen=True)
class Protocol:
    """A way to measure.

    name : for ``--protocol``. source : who says so, and where; or that nobody published it. episodes : of every setting
    and class split. class_splits : disjoint splits of the classes that a result is the mean of; () for the one that the
    data has. data : the task source it is for; None for any with classes.
    """

    name: str
    source: str
    settings: tuple[Setting, ...]
    episodes: int
    class_splits: tuple[str, ...] = ()
    data: str | None = None

    def chosen(self, ways: int | None, shots: Sequence[int] | None) -> list[Setting]:
        """Its settings with as many ways and shots; all where None. Raises `ConfigError` if there are none."""
        found = [
            Setting(setting.ways or ways, setting.shots, setting.queries)
            for setting in self.settings
            if (ways is None or setting.ways in (None, ways)) and (shots is None or setting.shots in shots)
        ]
        if not found or (shots is not None and set(shots) - {setting.shots for setting in found}):
            raise ConfigError(
                f"--protocol {self.name}: it has {', '.join(map(str, self.settings))}. Choose of these with --ways "
                f"and --shots."
            )
        return found

    def check_data(self, data: TaskSource) -> None:
        """Raise `ConfigError` if it is not for this data."""
        if self.data is not None and data.registered_name != self.data:
            raise ConfigError(
                f"--protocol {self.name}: it is for data {self.data}, and this is {data.registered_name!r}."
            )

    def stated(self) -> dict[str, Any]:
        """For results.json's protocol."""
        return {"name": self.name, "source": self.source}


def named_protocol(name: str) -> Protocol:
    """The one of this name. Raises `ConfigError` for an unknown one."""
    if name not in PROTOCOLS:
        raise ConfigError(f"--protocol {name}: no such protocol. {nearest(name, list(PROTOCOLS))}")
    return PROTOCOLS[name]


def on_class_splits(
    protocol: Protocol, runs: Sequence[RunConfig], data: TaskSource | None
) -> list[tuple[int, LabelledText]]:
    """For each class split, which run is measured on it and its data: the run's own, or `data`.

    A run for each split, told apart by the split it was trained on; or one for all, on data that it was not trained
    on, since what one split tests with another trains with.

    Raises `ConfigError` where they cannot be placed so.
    """
    trained = [run.data if isinstance(run.data, LabelledText) else None for run in runs]
    measured: list[LabelledText] = []
    for run in runs:
        own = data or run.data
        if not isinstance(own, LabelledText) or own.dataset is None:
            raise ConfigError(
                f"--protocol {protocol.name}: it is for data with published class splits. Give --data with one of "
                f"{', '.join(BUNDLED)}."
            )
        measured.append(own)
    splits = protocol.class_splits
    if len(runs) == 1:
        if measured[0].origin in {part.origin for part in runs[0].data.parts}:
            raise ConfigError(
                f"--protocol {protocol.name}: this run was trained on classes that other splits of "
                f"{measured[0].dataset} test with. Name {len(splits)} runs, one for each split, or other --data."
            )
        return [(0, measured[0].model_copy(update={"class_split": split})) for split in splits]
    known = [None if one is None or one.dataset is None else one.class_split for one in trained]
    one_origin = len({one.dataset for one in trained if one}) == len({one.dataset for one in measured}) == 1
    if sorted(map(str, known)) != sorted(splits) or not one_origin:
        raise ConfigError(
            f"--protocol {protocol.name}: it needs a run for each class split, {', '.join(splits)}, all of one data "
            f"set; these are of {', '.join(map(str, known))}."
        )
    return [(known.index(split), measured[0].model_copy(update={"class_split": split})) for split in splits]


def _settings(*shapes: tuple[int | None, int, int | None]) -> tuple[Setting, ...]:
    return tuple(Setting(*shape) for shape in shapes)


PROTOCOLS = {
    one.name: one
    for one in (
        Protocol(
            "intents",
            "Dopierre, Gravier & Logerais 2021, ProtAugment: 600 episodes on each of 5 class splits, 5 queries a class",
            _settings((5, 1, 5), (5, 5, 5)),
            episodes=600,
            class_splits=("01", "02", "03", "04", "05"),
            data="labelled_text",
        ),
        Protocol(
            "fewrel",
            "Han et al. 2018, FewRel: 5 and 10 ways, 1 and 5 shots; as its code validates: 1000 episodes, 5 queries a "
            "class (the relations it tests with are not public)",
            _settings((5, 1, 5), (5, 5, 5), (10, 1, 5), (10, 5, 5)),
            episodes=1000,
            data="labelled_text",
        ),
        Protocol(
            "omniglot",
            "Finn et al. 2017, MAML, sec. 5.2 and its code: 600 tasks of unseen characters, as many queries as shots",
            _settings((5, 1, 1), (5, 5, 5), (20, 1, 1), (20, 5, 5)),
            episodes=600,
            data="omniglot",
        ),
        Protocol(
            "two_and_ten_shots",
            "of no publication: 500 tasks of 2 and of 10 shots; ways and queries as asked for",
            _settings((None, 2, None), (None, 10, None)),
            episodes=500,
        ),
    )
}
"""By name."""
