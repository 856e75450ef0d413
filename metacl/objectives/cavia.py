"""CAVIA (Zintgraf et al. 2019, "Fast Context Adaptation via Meta-Learning", sec. 3): context parameters adapt.

The paper feeds a context vector c to a layer beside its input, h = g(W x + W_c c + b). That is a layer whose bias is
b + W_c c, so any tensor of any learner can be the layer: its value is φ + reshape(W_c c) with a learned W_c.
"""

from __future__ import annotations

from fnmatch import fnmatch

import torch
from pydantic import PositiveInt

from metacl.errors import ConfigError
from metacl.learners.base import HEAD, Learner, Params, Task
from metacl.objectives.base import OBJECTIVES
from metacl.objectives.boil import BOIL

CONTEXT = "context"
WEIGHT = "context_weight."


@OBJECTIVES.register("cavia")
class CAVIA(BOIL):
    """Only a context vector adapts, from zeros in every task; everything else is learned and shared.

    size : of the context vector. into : patterns of the tensors that the context is added to, as ``*.bias``.
    """

    size: PositiveInt = 5
    into: tuple[str, ...] = ("*bias", "*lora_B*")

    def learned(self, learner: Learner, ways: int) -> Params:
        """BOIL's, and for each tensor that the context goes into a weight (numbers of the tensor, size).

        Weights are small and fixed pseudo-random values: with zeros neither they nor the context would ever move.
        """
        learned = super().learned(learner, ways)
        hit = [name for name in learned if not name.startswith(HEAD) and any(fnmatch(name, p) for p in self.into)]
        if not hit:
            raise ConfigError(
                f"objective.into: {', '.join(self.into)} fits none of the learned tensors: {', '.join(learned)}."
            )
        random = torch.Generator().manual_seed(0)
        weights = {WEIGHT + n: torch.randn(learned[n].numel(), self.size, generator=random) / self.size for n in hit}
        return {**learned, **weights}

    def start(self, learner: Learner, meta: Params, task: Task) -> Params:
        """A context of zeros."""
        like = next(iter(meta.values()))
        return {CONTEXT: torch.zeros(self.size, dtype=like.dtype, device=like.device)}

    def inner_names(self, learned: Params) -> list[str]:
        """The context alone."""
        return [CONTEXT]

    def bind(self, theta: Params, phi: Params) -> Params:
        """φ with the context added where it goes."""
        known = {name: phi[name] for name in self.learned_names(phi)}
        weights = {name.removeprefix(WEIGHT): known.pop(name) for name in list(known) if name.startswith(WEIGHT)}
        moved = {name: known[name] + (weight @ theta[CONTEXT]).view_as(known[name]) for name, weight in weights.items()}
        return {**known, **moved}
