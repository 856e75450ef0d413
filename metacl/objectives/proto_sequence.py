"""A stream in small as a task: experiences of new classes, one after another, and all of them asked at the end.

OML's question (Javed & White 2019, eq. 2: the loss after learning in sequence, on everything) put to a whole model that
learns as a class-incremental stream does: ProtoMAML's head, whose rows start from class means, adapts together with the
adapter; a class is told apart from those met so far. What is learned is a start from which learning the later classes
does not undo the earlier ones.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor

from metacl.adaptation import InnerLoop
from metacl.errors import ConfigError
from metacl.learners.base import Learner, Params, Task
from metacl.objectives.base import OBJECTIVES
from metacl.objectives.proto_maml import ProtoMAML
from metacl.tasks import EpisodeShape

MEND = "Raise episodes.ways or episodes.shots, or lower objective.experiences or objective.steps_each."


@OBJECTIVES.register("proto_sequence")
class ProtoSequence(ProtoMAML):
    """Experiences in sequence from class means, against forgetting.

    experiences : E; an episode's N classes are dealt to them in order, so evenly as N / E allows.
    steps_each : inner steps of an experience, which deal its support among them; after the last experience it starts
    again. ``inner.steps`` = E · steps_each is one pass.

    The rows of later classes are the means at θ_0, where a stream would take them when the classes come.
    """

    experiences: PositiveInt = 3
    steps_each: PositiveInt = 1

    def check_fits(self, episodes: EpisodeShape, loop: InnerLoop) -> None:
        """Every experience has classes, each of its steps examples, and all are learned before they are asked."""
        ways = episodes.min_ways or episodes.ways
        if ways < self.experiences:
            raise ConfigError(
                f"episodes.ways: {ways} classes are not enough for {self.experiences} experiences. {MEND}"
            )
        fewest = ways // self.experiences * (episodes.min_shots or episodes.shots)
        if fewest < self.steps_each:
            raise ConfigError(
                f"objective.steps_each: an experience has {fewest} examples for its {self.steps_each} steps. {MEND}"
            )
        if loop.steps < self.experiences * self.steps_each:
            raise ConfigError(
                f"inner.steps: {loop.steps} end before the last of {self.experiences} experiences is learned. Set "
                f"inner.steps={self.experiences * self.steps_each}, or lower objective.experiences or "
                f"objective.steps_each."
            )

    def met(self, ways: int, experience: int) -> int:
        """Classes met when `experience` (from 0) is over: those are 0 … met − 1."""
        return round((experience + 1) * ways / self.experiences)

    def support_loss(self, learner: Learner, params: Params, task: Task, step: int) -> Tensor:
        """Mean cross-entropy of what this step is dealt, among the classes met so far."""
        experience, turn = divmod(step % (self.experiences * self.steps_each), self.steps_each)
        first, met = self.met(task.ways, experience - 1), self.met(task.ways, experience)
        assert task.support.targets is not None
        own = [place for place, label in enumerate(task.support.targets.tolist()) if first <= label < met]
        dealt = own[turn :: self.steps_each]
        batch = task.support.select(dealt)
        assert batch.targets is not None
        return F.cross_entropy(self.outputs(learner, params, batch)[:, :met], batch.targets)
