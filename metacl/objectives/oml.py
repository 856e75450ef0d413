"""OML (Javed & White 2019, "Meta-Learning Representations for Continual Learning", alg. 1).

The features (the paper's RLN) are learned and stay, the head (its PLN) learns along a sequence, one example a step;
asked afterwards is everything, the sequence itself and examples it did not have, so forgetting on the way costs.
"""

from __future__ import annotations

from torch import Tensor

from metacl.learners.base import HEAD, Learner, Params, Task
from metacl.objectives.base import OBJECTIVES
from metacl.objectives.sequence import SequenceMAML


@OBJECTIVES.register("oml")
class OML(SequenceMAML):
    """Online-aware: features from which a head learns a sequence without forgetting its beginning."""

    def adaptable(self, name: str) -> bool:
        """Only the head."""
        return name.startswith(HEAD)

    def query_loss(self, learner: Learner, params: Params, task: Task) -> Tensor:
        """The mean over the sequence and the query together."""
        sequence, query = len(task.support), len(task.query)
        losses = self.loss(learner, params, task.support), self.loss(learner, params, task.query)
        return (sequence * losses[0] + query * losses[1]) / (sequence + query)
