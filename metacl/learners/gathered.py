"""Layers whose weight lies in shards and is whole only while it is multiplied with, differentiable to any order.

Autograd over gathered weights fails under ZeRO-3: a weight is let go that a second backward still needs. A *frozen*
matrix needs nothing kept but a handle to it: x ↦ x Wᵀ is an autograd Function whose backward is the same Function with
W transposed, which gathers W again. Biases and norms are small and stay whole on every rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from metacl.errors import ConfigError
from metacl.learners.ranks import collective

SHARDED = (nn.Linear, Conv1D, nn.Embedding)
"""Layers whose matrix is sharded. `Conv1D`, GPT-2's linear layer, holds it transposed."""


@dataclass
class Gathering:
    """What the layers of one model have gathered since it was made.

    Attributes
    ----------
    elements : int
        Numbers gathered so far, all gathers together. peak : the most that were whole at one time.
    """

    elements: int = 0
    peak: int = 0
    _now: int = 0

    @contextmanager
    def whole(self, weight: Any) -> Iterator[Tensor]:
        """The matrix of a sharded parameter, whole for as long as the context lasts. Every rank must ask alike."""
        with collective():
            weight.all_gather_coalesced([weight]).wait()  # `all_gather` would hold a second copy for a moment
        try:
            with self.counted(weight.ds_numel):
                yield weight.data
        finally:
            weight.partition()

    @contextmanager
    def counted(self, elements: int) -> Iterator[None]:
        """So many numbers are whole for as long as the context lasts."""
        self._now += elements
        self.elements += elements
        self.peak = max(self.peak, self._now)
        try:
            yield
        finally:
            self._now -= elements


class _GatheredProduct(torch.autograd.Function):
    """(x, W, b) -> x Wᵀ + b, or x W if `transposed`, in W's type and returned in x's; W and b are frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: _Gathered, bias: Tensor | None, transposed: bool) -> Tensor:
        ctx.layer, ctx.transposed = layer, transposed
        with layer.gathering.whole(layer.weight) as weight:
            matrix = weight.T if transposed != layer.stored_transposed else weight
            return F.linear(x.to(matrix.dtype), matrix, bias).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _GatheredProduct.apply(gradient, ctx.layer, None, not ctx.transposed), None, None, None


class _Gathered(nn.Module):
    """A layer with a sharded `weight`; `gathering` is shared by all layers of a model."""

    weight: Any
    gathering: Gathering
    stored_transposed = False


class GatheredLinear(_Gathered, nn.Linear):
    """A frozen linear layer, W (D_out, D_in)."""

    def forward(self, input: Tensor) -> Tensor:
        """(…, D_in) -> (…, D_out)."""
        return _GatheredProduct.apply(input, self, self.bias, False)


class GatheredConv1D(_Gathered, Conv1D):
    """A frozen linear layer that holds W as (D_in, D_out)."""

    stored_transposed = True

    def forward(self, x: Tensor) -> Tensor:
        """(…, D_in) -> (…, D_out)."""
        return _GatheredProduct.apply(x, self, self.bias, False)


class GatheredEmbedding(_Gathered, nn.Embedding):
    """A frozen table; what is looked up has no derivative."""

    def forward(self, input: Tensor) -> Tensor:
        """(…) -> (…, D)."""
        with self.gathering.whole(self.weight) as weight:
            return F.embedding(input, weight, self.padding_idx)


def gather_in_layers(model: nn.Module, sharded: set[int]) -> Gathering:
    """Turn every layer whose weight is in `sharded` (ids of parameters) into its gathered form, in place.

    Names and PEFT's checks stay. Raises `ConfigError` if another kind of layer holds such a weight.
    """
    gathering = Gathering()
    forms = {nn.Linear: GatheredLinear, Conv1D: GatheredConv1D, nn.Embedding: GatheredEmbedding}
    for path, module in model.named_modules():
        own = [name for name, parameter in module.named_parameters(recurse=False) if id(parameter) in sharded]
        if not own:
            continue
        form = forms.get(type(module))
        if form is None or own != ["weight"] or getattr(module, "max_norm", None) is not None:
            raise ConfigError(
                f"workers.zero_stage: 3 shards linear layers and embeddings, and {path} is a {type(module).__name__} "
                f"with {', '.join(own)}. Set workers.zero_stage=2."
            )
        module.__class__ = form
        module.gathering = gathering
    return gathering
