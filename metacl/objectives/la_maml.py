"""La-MAML (Gupta et al. 2020, "Look-ahead Meta Learning for Continual Learning", eq. 5 and alg. 1), C-MAML's loss.

Along a sequence, θ_{k+1} is asked at once about what arrived at k and what came before it: the sum over the steps is
what the paper's outer loop descends (eq. 5, where the memory R is all that came before). With
``inner.step_size.learn: parameter`` the step sizes are learned number by number. The head and the adapter go on from
where they are; nothing is initialized again. The paper also clips learned rates at zero (eq. 7); here they may pass it.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from metacl.learners.base import Learner, Params, Task
from metacl.objectives.base import OBJECTIVES
from metacl.objectives.sequence import SequenceMAML


@OBJECTIVES.register("la_maml")
class LaMAML(SequenceMAML):
    """Look-ahead: after every step of a sequence, the loss on all that has come so far; the query at the end."""

    asks_along: ClassVar[bool] = True

    def loss_along(self, learner: Learner, params: Params, task: Task, step: int) -> Tensor | None:
        """Of θ_k, before step k: everything that steps 0 … k−1 have seen."""
        seen = self.seen(task.support, step)
        return self.loss(learner, params, task.support.select(seen)) if seen else None
