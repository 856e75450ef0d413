"""The course of one seed as the driver sees it: what to compute next, and what has come back.

Learning experience k + 1 needs what learning k left, and no test; so with several worker groups the tests after k are
asked while k + 1 is learned. Experiences are finished in order, and each is stored when all of its tests are in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metacl.continual.config import ContinualConfig
from metacl.continual.experience import Stream
from metacl.continual.loop import Asked, Learned, Standing, Trained
from metacl.continual.probe import Probed
from metacl.continual.record import Record, described
from metacl.continual.strategies import State, Strategy
from metacl.continual.worker import Among, Ask, AskProbe, Begin, Begun, Learn
from metacl.coordination.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint
from metacl.coordination.executor import Notify
from metacl.coordination.flat import Flat
from metacl.coordination.worker import Work
from metacl.errors import ConfigError
from metacl.learners.base import Params
from metacl.tasks import TaskAddress

KEPT = 2
"""Checkpoints of a seed: the newest, and the one before it in case it is damaged."""


class Course:
    """See the module. Made, it has looked at the newest checkpoint.

    Attributes
    ----------
    standing : Standing
        After the experiences that are finished.

    Raises
    ------
    ConfigError
        What the run has learned from is not the beginning of the stream.
    """

    def __init__(self, config: ContinualConfig, seed: int, stream: Stream, folder: Path, notify: Notify) -> None:
        self.seed, self.stream, self.folder = seed, stream, folder
        self._config, self._notify = config, notify
        # All groups but one, which learns on meanwhile.
        self._parts = min(len(stream), max(1, config.workers.groups - 1))
        self._read(notify)
        self._begun: Begun | None = None
        self._learned: dict[int, Learned] = {}
        self._asked: dict[int, dict[int, Asked]] = {}
        self._probed: dict[int, Probed] = {}
        self._further = [TaskAddress("valid", seed, 0, 0)]

    @property
    def standing(self) -> Standing:
        """It has begun."""
        assert self._begun is not None
        return self._begun.standing

    @property
    def finished(self) -> bool:
        """Whether every experience is learned, and its tests are in."""
        return self._begun is not None and len(self.standing.record.rows) == len(self.stream)

    @property
    def params(self) -> Params:
        """All adaptable parameters as they stand, those that are not trained among them."""
        assert self._begun is not None
        return {**self._begun.frozen, **self.standing.params}

    def further(self) -> list[TaskAddress]:
        """What can be computed now, each address once."""
        found, self._further = self._further, []
        return found

    def work(self, address: TaskAddress) -> Work[Any]:
        """What is to be computed for an address, whenever it is handed out."""
        if address.split == "valid":
            return Begin(self._read(lambda _: None))  # not before: seeds wait for their turn with nothing in memory
        if address.split == "train":
            before = self._learned.get(address.step - 1, None if self._begun is None else self.standing)
            assert before is not None, "experiences are learned in order"
            return Learn(Trained(before.params, before.states))
        learned = self._learned[address.step]
        if address.index == self._parts:
            return AskProbe(Trained(learned.params, ()))
        asked = range(address.index, len(self.stream), self._parts)
        return Ask(Trained(learned.params, _looked_at(self._config.strategies, learned)), tuple(asked))

    def take(self, address: TaskAddress, result: Any) -> None:
        """The result for an address. Stores every experience that is finished with it."""
        if address.split == "valid":
            self._begun = result
            known = len(self.standing.record.rows)
            if known:
                self._notify(f"seed {self.seed}: {known} of {len(self.stream)} experiences are there")
            self._learn(known)
        elif address.split == "train":
            self._learned[address.step] = result
            parts = self._parts + (self._config.probe is not None)
            self._further += [TaskAddress("test", self.seed, address.step, part) for part in range(parts)]
            self._learn(address.step + 1)
        else:
            if address.index == self._parts:
                self._probed[address.step] = result
            else:
                self._asked.setdefault(address.step, {}).update(result)
            while self._finish():
                pass

    def _read(self, notify: Notify) -> Standing | None:
        return _stored_standing(self._config, self.stream, self.folder / "checkpoints", notify)

    def _learn(self, k: int) -> None:
        if k < len(self.stream):
            self._further.append(TaskAddress("train", self.seed, k, 0))

    def _finish(self) -> bool:
        """Whether the experience after those that are finished could be finished, too."""
        k = len(self.standing.record.rows)
        asked = self._asked.get(k, {})
        if len(asked) < len(self.stream) or (self._config.probe is not None and k not in self._probed):
            return False
        assert self._begun is not None
        probed = self._probed.pop(k, None)
        standing = self.standing.after(self._learned.pop(k), [asked[i] for i in range(len(self.stream))], probed)
        del self._asked[k]
        save_checkpoint(self.folder / "checkpoints", _as_checkpoint(standing), KEPT)
        self._begun = Begun(standing, self._begun.frozen)
        self._notify(f"seed {self.seed}: {_line(standing.record)}")
        return True


class Courses(Work[Any]):
    """All seeds' work, as executors take it: what is sent to a worker is what its address needs by then.

    courses : of the seeds that are not finished, by seed.
    """

    def __init__(self, courses: Mapping[int, Course]) -> None:
        self._courses = courses

    def handed_out(self, address: TaskAddress) -> Work[Any]:
        """What is sent."""
        return Among(frozenset(self._courses), self._courses[address.seed].work(address))

    def __call__(self, worker: Any, address: TaskAddress, meta: Flat) -> Any:
        """Never: this is the driver's side."""
        raise AssertionError("handed_out() is what is sent")


def _looked_at(strategies: Sequence[Strategy], learned: Learned) -> tuple[State, ...]:
    """The states of those strategies that answer tests; nothing for the others, which may hold a lot."""
    pairs = zip(strategies, learned.states, strict=True)
    return tuple(state if type(strategy).predict is not Strategy.predict else {} for strategy, state in pairs)


def _as_checkpoint(standing: Standing) -> Checkpoint:
    """Parameters as its own, what strategies remember as its state, and what was measured on held-out tests."""
    states = {
        f"{place}:{name}": tensor.contiguous()
        for place, state in enumerate(standing.states)
        for name, tensor in state.items()
    }
    return Checkpoint(len(standing.record.rows), standing.params, states, standing.record.to_dict())


def _stored_standing(config: ContinualConfig, stream: Stream, checkpoints: Path, notify: Notify) -> Standing | None:
    """Where a run stopped. Raises `ConfigError` if what it learned from is not the beginning of the stream."""
    found = newest_checkpoint(checkpoints, notify)
    if found is None:
        return None
    record = Record.from_dict(found.held_out)
    now = described(stream)
    for before, here in zip(record.experiences, now, strict=False):
        if before["fingerprint"] != here["fingerprint"]:
            raise ConfigError(
                f"stream: experience {here['name']!r} is not the one this run has learned ({before['name']!r}, "
                f"{before['train']} + {before['test']} examples). Restore it, or give another folder (output=…)."
            )
    if len(record.experiences) > len(now):
        raise ConfigError(
            f"stream: it has {len(now)} experiences, and this run has learned {len(record.experiences)}. A stream can "
            f"become longer only. Restore it, or give another folder (output=…)."
        )
    states: list[State] = [{} for _ in config.strategies]
    for key, tensor in found.outer_state.items():
        place, name = key.split(":", 1)
        states[int(place)][name] = tensor
    return Standing(found.meta, tuple(states), record)


def _line(record: Record) -> str:
    k = len(record.rows) - 1
    row = record.rows[-1]
    met = [value for value in row[: k + 1] if value is not None]
    own, mean = row[k], sum(met) / len(met)
    assert own is not None
    seconds = record.learn_seconds[-1] + record.test_seconds[-1]
    if record.measure == "accuracy":
        told = f"{100 * own:.1f} % on it, {100 * mean:.1f} % on all so far"
    else:
        told = f"{own:.3f} nats a token on it, {mean:.3f} on all so far"
    return f"{k + 1}/{len(record.experiences)} {record.experiences[k]['name']}: {told} ({seconds:.1f} s)"
