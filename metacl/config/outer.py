"""The section ``outer``: how the meta-parameters move."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from metacl.aggregation import AGGREGATORS, Aggregator
from metacl.registry import Component, chosen_from


class HeldOut(Component):
    """Early stopping: the query loss on `tasks` tasks of the valid classes, `every` so many outer steps and at the end.

    The initialization is made from the parameters with the least loss. patience : training ends after so many
    measurements without a gain; null for never.
    """

    every: PositiveInt = 10
    tasks: PositiveInt = 16
    patience: PositiveInt | None = None


class Asynchronous(Component):
    """Outer steps that do not wait for every task: what is trained then depends on timing.

    staleness : the most outer steps that may be taken while a task is computed; if there were more, its gradient is
    refused and it is computed again.
    """

    staleness: PositiveInt = 1


class OuterLoop(Component):
    """How the meta-parameters move: T tasks a step, one optimizer step on their combined meta-gradient.

    learning_rate : of everything learned but step sizes; step_size_learning_rate : of those.
    optimizer : "adamw" and "adam" differ in the weight decay, which Adam adds to the gradient.
    schedule : "constant", or "cosine" or "linear" down to zero at the last step; all after `warmup_steps` of linear
    warm-up.
    clip_norm : the combined meta-gradient is scaled down to at most this norm; null for never.
    accumulate : a step has tasks_per_step × accumulate tasks, in so many portions; the coordinator holds the gradients
    of one portion at a time, combines each by itself, and averages them.
    minimum_completion : the part of a step's tasks that must have a usable meta-gradient for the step to be taken.
    asynchronous : null (the default): a step is of its own tasks, and the same whoever computes them.
    """

    steps: PositiveInt = 100
    tasks_per_step: PositiveInt = 4
    accumulate: PositiveInt = 1
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    step_size_learning_rate: PositiveFloat = 1e-2
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: NonNegativeInt = 0
    clip_norm: PositiveFloat | None = None
    minimum_completion: Annotated[float, Field(gt=0, le=1)] = 0.5
    aggregator: Annotated[Aggregator, chosen_from(AGGREGATORS)] = AGGREGATORS.build({"name": "mean"})
    held_out: HeldOut | None = None
    asynchronous: Asynchronous | None = None
