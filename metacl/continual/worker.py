"""What one rank needs to compute any part of a continual run, and the parts: begin, learn an experience, ask tests.

Several ranks of a group compute the same part: they share every batch, and all else is the same on each. What is sent
and what comes back lies in the machine's memory, wherever the model does.

A part depends on what it is sent and its address alone, so any worker may compute it, and another one again if the
first is lost. Addresses: (valid, seed, 0, 0) begins; (train, seed, k, 0) learns experience k; (test, seed, k, part)
asks a share of the tests after it, the last part the probe set if there is one.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from metacl.continual.config import ContinualConfig, continual_config_from_dict
from metacl.continual.experience import Stream
from metacl.continual.loop import Asked, ContinualLoop, Learned, Standing, Trained
from metacl.continual.probe import Probed
from metacl.continual.starts import read_start
from metacl.coordination.flat import Flat
from metacl.coordination.worker import Work, rank_device
from metacl.errors import ConfigError
from metacl.learners.base import CPU, Learner, Params, use_threads
from metacl.learners.engine import Engine
from metacl.tasks import TaskAddress


def make_loop(config: ContinualConfig, seed: int, stream: Stream, learner: Learner) -> ContinualLoop:
    """The loop of one seed. Raises `ConfigError` if the start or a strategy does not fit."""
    return ContinualLoop(
        learner,
        stream,
        config.training,
        config.strategies,
        seed=seed,
        start=None if config.start is None else read_start(config.start, config.learner, seed),
        scenario=config.scenario,
        curve=config.measuring.curve,
        test_rows=config.measuring.rows,
        optimizer_in_parts=config.workers.zero_stage > 0,
        probe=None if config.probe is None else config.probe.open(),
    )


class ContinualWorker:
    """A model, and the loops of the seeds that are being learned. learner : of the first seed; None to load it."""

    read = staticmethod(continual_config_from_dict)

    def __init__(self, config: ContinualConfig, engine: Engine | None = None) -> None:
        use_threads(config.workers.threads)
        self._config, self._engine = config, engine
        self.device = rank_device(config.workers)
        self._learner = self._build(config.seeds[0])
        self._loops: dict[int, ContinualLoop] = {}

    def loop(self, seed: int) -> ContinualLoop:
        """That of a seed; all share the frozen model."""
        if seed not in self._loops:
            learner = copy.copy(self._learner)
            if seed != self._config.seeds[0]:
                learner.initial = self._build(seed).initial
            self._loops[seed] = make_loop(self._config, seed, self._config.stream.open(seed), learner)
        return self._loops[seed]

    def keep(self, seeds: Collection[int]) -> None:
        """Let go of the other seeds' encoded examples."""
        self._loops = {seed: loop for seed, loop in self._loops.items() if seed in seeds}

    def _build(self, seed: int) -> Learner:
        return self._config.learner.build(seed, self.device, self._engine)


@dataclass(frozen=True)
class Begun:
    """Where a seed stands when a session begins, and what of its adaptable parameters is not trained."""

    standing: Standing
    frozen: Params


@dataclass(frozen=True)
class Begin(Work[Begun]):
    """Ask everything before the first experience; or, given a stored standing, what its stream has more by now."""

    stored: Standing | None

    def __call__(self, worker: ContinualWorker, address: TaskAddress, meta: Flat) -> Begun:
        """Raises `ConfigError` if the run began from something else."""
        loop = worker.loop(address.seed)
        frozen = {name: tensor.to(CPU) for name, tensor in loop.model.frozen.items()}
        if self.stored is None:
            return Begun(loop.begin().on(CPU), frozen)
        if self.stored.record.start != loop.start_fingerprint():
            raise ConfigError(
                "start: it is not what this run began from. Restore it, or give another folder (output=…) for a new "
                "run."
            )
        # Files are sorted by name; sums go in the model's order.
        params = {name: self.stored.params[name] for name in loop.start}
        stored = Standing(params, self.stored.states, self.stored.record).on(worker.device)
        return Begun(loop.extended(stored).on(CPU), frozen)


@dataclass(frozen=True)
class Learn(Work[Learned]):
    """One experience, from what the one before it left."""

    before: Trained

    def __call__(self, worker: ContinualWorker, address: TaskAddress, meta: Flat) -> Learned:
        """Raises `TrainingError` if a loss is not finite."""
        return worker.loop(address.seed).fit(address.step, self.before.on(worker.device)).on(CPU)


@dataclass(frozen=True)
class Ask(Work[dict[int, Asked]]):
    """The tests of some experiences."""

    after: Trained
    experiences: tuple[int, ...]

    def __call__(self, worker: ContinualWorker, address: TaskAddress, meta: Flat) -> dict[int, Asked]:
        """By experience."""
        loop, after = worker.loop(address.seed), self.after.on(worker.device)
        return {experience: loop.ask(address.step, after, experience) for experience in self.experiences}


@dataclass(frozen=True)
class AskProbe(Work[Probed | None]):
    """The probe set."""

    after: Trained

    def __call__(self, worker: ContinualWorker, address: TaskAddress, meta: Flat) -> Probed | None:
        """None without one."""
        return worker.loop(address.seed).probed(self.after.on(worker.device))


@dataclass(frozen=True)
class Among(Work[Any]):
    """A piece of work, and the seeds that are not finished: a worker keeps nothing of the others."""

    unfinished: frozenset[int]
    work: Work[Any]

    def __call__(self, worker: ContinualWorker, address: TaskAddress, meta: Flat) -> Any:
        """As the piece."""
        worker.keep(self.unfinished)
        return self.work(worker, address, meta)
