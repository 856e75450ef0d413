"""Tasks whose support is a sequence: the examples come one after the other, as in continual learning.

Inner step k descends on the examples that arrive at k and on some that arrived before, from a memory. An episode lists
its support class by class, so a sequence of it is class-incremental. What is replayed is drawn from the address alone.
"""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from metacl.learners.base import Batch, Learner, Params, Task
from metacl.objectives.base import OBJECTIVES
from metacl.objectives.maml import MAML
from metacl.tasks.episode import TaskAddress
from metacl.tasks.randomness import AddressedRandom


@OBJECTIVES.register("sequence")
class SequenceMAML(MAML):
    """Everything adapts along a sequence, example by example, with experience replay; with ``reptile`` it is MER.

    arrive : examples that arrive at a step. replay : earlier examples descended with them, without repetition
    (Riemer et al. 2019, "MER", alg. 1, draws them from a reservoir; a task here fits whole). After the last example the
    sequence starts again, so ``inner.steps`` = examples / `arrive` is one pass.
    """

    arrive: PositiveInt = 1
    replay: NonNegativeInt = 0

    def arrived(self, support: Batch, step: int) -> list[int]:
        """Places of the examples that arrive at `step`."""
        return [(step * self.arrive + place) % len(support) for place in range(min(self.arrive, len(support)))]

    def seen(self, support: Batch, step: int) -> list[int]:
        """Places of all examples that arrived before `step`."""
        return list(range(min(step * self.arrive, len(support))))

    def support_loss(self, learner: Learner, params: Params, task: Task, step: int) -> Tensor:
        """On what arrives and what is replayed, all with the same weight."""
        now = self.arrived(task.support, step)
        before = [place for place in self.seen(task.support, step) if place not in now]
        random = AddressedRandom(address_of_step(task.address, step))
        replayed = random.sample(before, min(self.replay, len(before)))
        return self.loss(learner, params, task.support.select([*now, *replayed]))


def address_of_step(address: TaskAddress | None, step: int) -> TaskAddress:
    """An address of its own for every inner step of a task; steps and indices of tasks stay far below 2³²."""
    if address is None:
        return TaskAddress("train", 0, 0, step)
    return TaskAddress(address.split, address.seed, address.step, ((step + 1) << 32) + address.index)
