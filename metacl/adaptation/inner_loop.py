"""How a task adapts: the number of inner steps, the optimizer, and step sizes that can be learned.

Learned step sizes are ordinary meta-parameters under ``step_size.``, shared as coarsely as wanted: from one for
everything, over one a layer and step (Antoniou et al. 2019, "MAML++", sec. 4, "LSLR"), to one for every single
number (Li et al. 2017, "Meta-SGD", eq. 3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from metacl.adaptation.optimizers import INNER_OPTIMIZERS, InnerOptimizer
from metacl.adaptation.preconditioners import CURVATURE, PRECONDITIONERS, Preconditioner
from metacl.errors import ConfigError
from metacl.learners.base import HEAD, STEP_SIZE, Params
from metacl.learners.partition import Partition
from metacl.registry import Component, chosen_from


class StepSizes(Component):
    """Step sizes of the inner loop, per step.

    value : the (initial) step size of every tensor but the head's. head : that of the head.
    learn : "none", or what shares one learned step size: everything ("scalar", a factor on both values), each layer
    ("layer": tensors under the same first number in their names; the head has its own and the rest share one), each
    tensor ("tensor"), or nothing ("parameter": one for every number). With "_and_step" a layer or tensor has one at
    each step; steps beyond the trained ones use the last.
    """

    value: PositiveFloat = 0.05
    head: PositiveFloat = 0.5
    learn: Literal["none", "scalar", "layer", "layer_and_step", "tensor", "tensor_and_step", "parameter"] = "tensor"

    def initial(self, shapes: Mapping[str, torch.Size | None], steps: int) -> Params:
        """The meta-parameters that hold the learned step sizes.

        Parameters
        ----------
        shapes : name -> shape
            Of every tensor that adapts; None where it differs from task to task.
        steps : int
            Inner steps of training.

        Raises
        ------
        ConfigError
            One step size a number is asked for a tensor whose shape is not known.
        """
        if self.learn == "none":
            return {}
        if self.learn == "scalar":
            return {f"{STEP_SIZE}factor": torch.tensor(1.0)}
        return {
            self._key(name): torch.full(self._shape(name, shape, steps), self._value(name))
            for name, shape in shapes.items()
        }

    def at(self, meta: Params, name: str, step: int) -> Tensor:
        """Step size of tensor `name` at inner step `step`, differentiable in `meta`; broadcasts against the tensor."""
        if self.learn == "none":
            # A scalar of higher precision does not change its parameter's type.
            return torch.tensor(self._value(name), dtype=torch.float64)
        if self.learn == "scalar":
            return meta[f"{STEP_SIZE}factor"] * self._value(name)
        sizes = meta[self._key(name)]
        return sizes[min(step, len(sizes) - 1)] if self.learn.endswith("_and_step") else sizes

    def _key(self, name: str) -> str:
        if not self.learn.startswith("layer"):
            return STEP_SIZE + name
        if name.startswith(HEAD):
            return f"{STEP_SIZE}head"
        numbered = re.match(r"(.*?\.\d+)\.", name)
        return STEP_SIZE + (numbered.group(1) if numbered else "rest")

    def _shape(self, name: str, shape: torch.Size | None, steps: int) -> tuple[int, ...]:
        if self.learn.endswith("_and_step"):
            return (max(steps, 1),)
        if self.learn != "parameter":
            return ()
        if shape is None:
            raise ConfigError(
                f"inner.step_size.learn: parameter wants one step size for every number of {name}, whose shape differs "
                f"from task to task. Set inner.step_size.learn=tensor, or objective=maml, whose head has a fixed size."
            )
        return tuple(shape)

    def _value(self, name: str) -> float:
        return self.head if name.startswith(HEAD) else self.value


class InnerLoop(Component):
    """K steps of an inner optimizer on the support loss.

    proximal : λ of a term λ/2 ‖θ − θ_0‖² that is descended with the support loss and keeps θ near its start
    (Rajeswaran et al. 2019, eq. 3; the reported losses are without it); 0 for none.
    precondition : a learned transformation of the gradient ("meta_curvature"); null for none.
    """

    steps: NonNegativeInt = 5
    proximal: NonNegativeFloat = 0.0
    optimizer: Annotated[InnerOptimizer, chosen_from(INNER_OPTIMIZERS)] = INNER_OPTIMIZERS.build({"name": "sgd"})
    step_size: StepSizes = StepSizes()
    precondition: Annotated[Preconditioner | None, chosen_from(PRECONDITIONERS)] = None

    def initial(self, shapes: Mapping[str, torch.Size | None]) -> Params:
        """The meta-parameters of adapting itself, for adapted tensors of these shapes; see `StepSizes.initial`."""
        learned = {} if self.precondition is None else self.precondition.initial(shapes)
        return {**self.step_size.initial(shapes, self.steps), **learned}

    def scaled(self, meta: Params, factor: float) -> tuple[InnerLoop, Params]:
        """The loop and meta-parameters whose step sizes are `factor` times these, whoever holds them."""
        if self.step_size.learn == "none":
            values = {"value": factor * self.step_size.value, "head": factor * self.step_size.head}
            return self.model_copy(update={"step_size": self.step_size.model_copy(update=values)}), meta
        return self, {
            name: factor * tensor if name.startswith(STEP_SIZE) and not name.startswith(CURVATURE) else tensor
            for name, tensor in meta.items()
        }

    def partitioned(self, partition: Partition) -> Partition:
        """That of all meta-parameters, given that of what is learned: step sizes of each number lie as the numbers."""
        if self.step_size.learn != "parameter":
            return partition
        sizes = {STEP_SIZE + name: shape for name, shape in partition.shapes.items()}
        return Partition(partition.ranks, {**partition.shapes, **sizes})

    def preconditioned(self, meta: Params, grads: Params) -> Params:
        """The gradients as the optimizer gets them."""
        return grads if self.precondition is None else self.precondition.apply(meta, grads)

    def rates(self, meta: Params, names: list[str], step: int) -> Params:
        """Step size per tensor name at step `step`."""
        return {name: self.step_size.at(meta, name, step) for name in names}
