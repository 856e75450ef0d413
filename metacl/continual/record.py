"""What is measured in a run of one seed, as plain values: the R matrix and what else each experience left."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from metacl.continual.experience import Stream


@dataclass(frozen=True)
class Record:
    """After k of T experiences.

    experiences : name, sizes, classes and fingerprint of each. measure : "accuracy", a share, or "nats_per_token".
    start : a hash of what the run began from, its head excepted.
    rows : R, (k, T): R[k][i] is the measure on experience i's test after learning experience k. None where i was
    appended to the stream only after k.
    baseline : (T,), the same before any training, from the run's start.
    random : (T,), the same at random initialization; None where no class of i may be answered before it is learned.
    curves : for each experience, steps (as text) -> measure on its own test after so many steps of it.
    probe_baseline, probe : the measure on the probe set before the stream and after each experience; None, empty
    without one. probe_kl : nats, mean KL(start ‖ now) there, a text or a token.
    kl_to_start : nats, mean KL(start ‖ now) over the test examples met so far; None for language models.
    replay_bytes : of inputs of earlier experiences that are stored, or learned from once more.
    state_bytes : of everything strategies keep beside them.
    parameter_norm : L2, of all that is trained. trainable_parameters : numbers that are trained.
    """

    experiences: tuple[dict[str, Any], ...]
    measure: str
    trainable_parameters: int
    start: str
    baseline: tuple[float, ...] = ()
    random: tuple[float | None, ...] = ()
    rows: tuple[tuple[float | None, ...], ...] = ()
    curves: tuple[dict[str, float], ...] = ()
    probe_baseline: float | None = None
    probe: tuple[float, ...] = ()
    probe_kl: tuple[float, ...] = ()
    kl_to_start: tuple[float | None, ...] = ()
    replay_bytes: tuple[int, ...] = ()
    state_bytes: tuple[int, ...] = ()
    parameter_norm: tuple[float, ...] = ()
    learn_seconds: tuple[float, ...] = ()
    test_seconds: tuple[float, ...] = ()

    @classmethod
    def new(cls, stream: Stream, measure: str, trainable_parameters: int, start: str) -> Record:
        """Before anything is measured."""
        return cls(described(stream), measure, trainable_parameters, start)

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Record:
        """What `to_dict` gave, from JSON."""
        plain: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()}
        plain["rows"] = tuple(tuple(row) for row in tree["rows"])
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def with_baseline(self, row: list[float], random: list[float | None]) -> Record:
        """Measured before any training, and at random initialization."""
        return replace(self, baseline=tuple(row), random=tuple(random))

    def with_experience(self, *, row: list[float], **measured: Any) -> Record:
        """One experience more; `measured` are the entries that the other fields get."""
        longer: Any = {name: (*getattr(self, name), value) for name, value in measured.items()}
        return replace(self, rows=(*self.rows, tuple(row)), **longer)

    def extended(self, stream: Stream, baseline: list[float], last: list[float]) -> Record:
        """For a longer stream: its new experiences before any training, and as the run stands."""
        new = len(baseline)
        rows = tuple((*row, *[None] * new) for row in self.rows)
        if rows:
            rows = (*rows[:-1], (*self.rows[-1], *last))
        return replace(self, experiences=described(stream), baseline=(*self.baseline, *baseline), rows=rows)


def described(stream: Stream) -> tuple[dict[str, Any], ...]:
    """What a record says of each experience."""
    return tuple(
        {
            "name": experience.name,
            "train": len(experience.train),
            "test": len(experience.test),
            "classes": len(experience.classes()) if stream.class_names else 0,
            "fingerprint": experience.fingerprint(),
        }
        for experience in stream.experiences
    )
