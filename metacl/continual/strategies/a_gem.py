"""Averaged gradient episodic memory: no step may raise the memory's loss (Chaudhry et al. 2019, "A-GEM", eq. 11)."""

from __future__ import annotations

import torch
from pydantic import PositiveInt

from metacl.continual.experience import Address
from metacl.continual.moment import Moment
from metacl.continual.strategies.base import MEMORY, STRATEGIES, State, Strategy, as_memory, stored
from metacl.continual.strategies.replay import drawn
from metacl.learners.base import Params, as_leaves


@STRATEGIES.register("a_gem")
class AveragedGradientEpisodicMemory(Strategy):
    """Where the gradient g and that of the memory, r, disagree (g·r < 0), g − (g·r / r·r) r is taken instead.

    per_experience : examples stored of each experience, drawn at random. batch : drawn for r at a step.
    """

    per_experience: PositiveInt = 50
    batch: PositiveInt = 64

    def gradient(self, moment: Moment, params: Params, gradient: Params, state: State) -> Params:
        """The projected gradient."""
        memory = drawn(state, self.batch, moment.random())
        if not memory:
            return gradient
        leaves = as_leaves(params)
        old = moment.minibatch(memory)
        loss = moment.model.loss(moment.model.outputs(leaves, old.batch), old.batch.targets, old.allowed)
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return projected(gradient, dict(zip(leaves, found, strict=True)))

    def end(self, moment: Moment, params: Params, addresses: list[Address], state: State) -> tuple[Params, State]:
        """Some of the experience's examples are stored."""
        new = [address for address in addresses if address[0] == moment.experience]
        chosen = moment.random(1).sample(new, min(self.per_experience, len(new)))
        return params, {MEMORY: as_memory([*stored(state), *chosen])}


def projected(gradient: Params, reference: Params) -> Params:
    """The nearest gradient whose product with `reference` is not negative; products over all parameters together."""
    product = sum((gradient[name] * reference[name]).sum() for name in gradient)
    length = sum((reference[name] * reference[name]).sum() for name in gradient)
    if float(product) >= 0 or float(length) == 0:
        return gradient
    return {name: gradient[name] - product / length * reference[name] for name in gradient}
