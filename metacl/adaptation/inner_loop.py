"""How a task adapts: the number of inner steps, the optimizer, and step sizes that can be learned.

Learned step sizes are ordinary meta-parameters under ``step_size.``: one for all (scalar), one a tensor
(Li et al. 2017, "Meta-SGD", coarsened), or one a tensor and step (Antoniou et al. 2019, "MAML++", sec. 4).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from metacl.adaptation.optimizers import INNER_OPTIMIZERS, InnerOptimizer
from metacl.learners.base import Params
from metacl.registry import Component, chosen_from

FAMILY = "step_size."


class StepSizes(Component):
    """Step sizes of the inner loop, per step.

    value : the (initial) step size of every tensor but the head's. head : that of the head.
    learn : "none", or what shares one learned step size: everything ("scalar", a factor on both values), each
    tensor ("tensor"), or each tensor at each step ("tensor_and_step"; steps beyond the trained ones use the last).
    """

    value: PositiveFloat = 0.05
    head: PositiveFloat = 0.5
    learn: Literal["none", "scalar", "tensor", "tensor_and_step"] = "tensor"

    def initial(self, names: list[str], steps: int) -> Params:
        """The meta-parameters that hold the learned step sizes of the named tensors."""
        if self.learn == "scalar":
            return {f"{FAMILY}factor": torch.tensor(1.0)}
        if self.learn == "tensor":
            return {FAMILY + name: torch.tensor(self._value(name)) for name in names}
        if self.learn == "tensor_and_step":
            return {FAMILY + name: torch.full((max(steps, 1),), self._value(name)) for name in names}
        return {}

    def at(self, meta: Params, name: str, step: int) -> Tensor:
        """Step size of tensor `name` at inner step `step`, differentiable in `meta`."""
        if self.learn == "scalar":
            return meta[f"{FAMILY}factor"] * self._value(name)
        if self.learn == "tensor":
            return meta[FAMILY + name]
        if self.learn == "tensor_and_step":
            sizes = meta[FAMILY + name]
            return sizes[min(step, len(sizes) - 1)]
        return torch.tensor(self._value(name), dtype=torch.float64)  # a scalar takes on its parameter's type

    def _value(self, name: str) -> float:
        return self.head if name.startswith("head.") else self.value


class InnerLoop(Component):
    """K steps of an inner optimizer on the support loss.

    proximal : λ of a term λ/2 ‖θ − θ_0‖² that is descended with the support loss and keeps θ near its start
    (Rajeswaran et al. 2019, eq. 3; the reported losses are without it); 0 for none.
    """

    steps: NonNegativeInt = 5
    proximal: NonNegativeFloat = 0.0
    optimizer: Annotated[InnerOptimizer, chosen_from(INNER_OPTIMIZERS)] = INNER_OPTIMIZERS.build({"name": "sgd"})
    step_size: StepSizes = StepSizes()

    def rates(self, meta: Params, names: list[str], step: int) -> Params:
        """Step size per tensor name at step `step`."""
        return {name: self.step_size.at(meta, name, step) for name in names}
