"""Layers whose weight adapts and lies in parts, one a rank: it is whole only while it is multiplied with.

The counterpart of `metacl.learners.gathered` for weights that change. Three maps, linear in the weight, close under
differentiation, so derivatives of any order are right and nothing whole is ever kept for a backward:

- a product x Wᵀ gathers W; its backward is the product with Wᵀ, for x, and an outer product, for W;
- an outer product aᵀb keeps each rank's part of its sum over ranks; its backward is two products;
- rows of a table, and the sum into rows that is its backward, likewise.

The parts are tensors of our own in the layout of DeepSpeed's (`ds_tensor`), which made them while loading and whose
memory the start φ_0 shares. DeepSpeed gathers only what its parameter itself holds, without a derivative; an inner loop
has K + 1 values of each weight, and asks for the derivative in all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from metacl.learners.adapted import Adapted
from metacl.learners.base import MODEL, Params
from metacl.learners.gathered import GatheredConv1D, GatheredEmbedding, GatheredLinear, Gathering
from metacl.learners.partition import part_size
from metacl.learners.ranks import RankGroup


@dataclass(frozen=True)
class Matrix:
    """Where the parts of one matrix are, and how they become whole.

    shape : (A, B), as the layer holds it. gathering : counts what is whole.
    """

    shape: torch.Size
    ranks: RankGroup
    gathering: Gathering

    @contextmanager
    def whole(self, part: Tensor) -> Iterator[Tensor]:
        """The matrix that `part` is this rank's part of, for as long as the context lasts. Every rank asks alike."""
        with self.gathering.counted(self.shape.numel()):
            yield self.ranks.gather(part)[: self.shape.numel()].view(self.shape)

    def summed(self, matrix: Tensor) -> Tensor:
        """This rank's part of the sum of all ranks' matrices."""
        padding = part_size(matrix.numel(), self.ranks.size) * self.ranks.size - matrix.numel()
        flat = matrix.reshape(-1)
        return self.ranks.reduce_scatter(F.pad(flat, (0, padding)) if padding else flat)


class _Product(torch.autograd.Function):
    """(x, part of W) -> x Wᵀ, or x W if `straight`; W is (A, B)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: Tensor, matrix: Matrix, straight: bool) -> Tensor:
        ctx.save_for_backward(x, part)
        ctx.matrix, ctx.straight = matrix, straight
        with matrix.whole(part) as whole:
            return F.linear(x, whole.T if straight else whole)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, part = ctx.saved_tensors
        for_x, for_part = None, None
        if ctx.needs_input_grad[0]:
            for_x = _Product.apply(gradient, part, ctx.matrix, not ctx.straight)
        if ctx.needs_input_grad[1]:
            sides = (x, gradient) if ctx.straight else (gradient, x)
            for_part = _OuterProduct.apply(*sides, ctx.matrix)
        return for_x, for_part, None, None


class _OuterProduct(torch.autograd.Function):
    """(a (…, A), b (…, B)) -> this rank's part of the sum over ranks of aᵀb, (A, B)."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, matrix: Matrix) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.matrix = matrix
        with matrix.gathering.counted(matrix.shape.numel()):
            return matrix.summed(a.flatten(0, -2).T @ b.flatten(0, -2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        a, b = ctx.saved_tensors
        for_a, for_b = None, None
        if ctx.needs_input_grad[0]:
            for_a = _Product.apply(b, gradient, ctx.matrix, False)
        if ctx.needs_input_grad[1]:
            for_b = _Product.apply(a, gradient, ctx.matrix, True)
        return for_a, for_b, None


class _Rows(torch.autograd.Function):
    """(part of a table (A, B), places (…)) -> its rows there, (…, B)."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, places: Tensor, matrix: Matrix) -> Tensor:
        ctx.save_for_backward(places)
        ctx.matrix = matrix
        with matrix.whole(part) as table:
            return F.embedding(places, table)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _SumOfRows.apply(gradient, *ctx.saved_tensors, ctx.matrix), None, None


class _SumOfRows(torch.autograd.Function):
    """(rows (…, B), places (…)) -> this rank's part of the table (A, B) that has the sum of all ranks' rows there."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, matrix: Matrix) -> Tensor:
        ctx.save_for_backward(places)
        ctx.matrix = matrix
        with matrix.gathering.counted(matrix.shape.numel()):
            table = torch.ops.aten.embedding_dense_backward(rows.contiguous(), places, matrix.shape[0], -1, False)
            return matrix.summed(table)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Rows.apply(gradient, *ctx.saved_tensors, ctx.matrix), None, None


class AdaptingLinear(nn.Linear):
    """A linear layer that is called with its `weight` in parts, the bias whole."""

    matrix: Matrix

    def forward(self, input: Tensor) -> Tensor:
        """(…, D_in) -> (…, D_out)."""
        product = _Product.apply(input, self.weight, self.matrix, False)
        return product if self.bias is None else product + self.bias


class AdaptingConv1D(Conv1D):
    """A linear layer that holds W as (D_in, D_out)."""

    matrix: Matrix

    def forward(self, x: Tensor) -> Tensor:
        """(…, D_in) -> (…, D_out)."""
        return _Product.apply(x, self.weight, self.matrix, True) + self.bias


class AdaptingEmbedding(nn.Embedding):
    """A table; what is looked up has the derivative in the rows, none in the one for padding."""

    matrix: Matrix

    def forward(self, input: Tensor) -> Tensor:
        """(…) -> (…, D)."""
        rows = _Rows.apply(self.weight, input, self.matrix)
        if self.padding_idx is None:
            return rows
        return torch.where((input == self.padding_idx).unsqueeze(-1), rows.detach(), rows)


FORMS = {
    GatheredLinear: AdaptingLinear,
    GatheredConv1D: AdaptingConv1D,
    GatheredEmbedding: AdaptingEmbedding,
}
"""What a frozen sharded layer becomes."""


class ShardedModel(Adapted):
    """A model all of whose parameters adapt, every one in parts.

    Parameters
    ----------
    model : nn.Module
        Its sharded layers are gathered ones, and are changed in place.
    parts : name of a parameter in the model -> (n,)
        This rank's part of everything that adapts.
    shapes : name -> shape of the whole.
    gathering : Gathering
        Counts what is whole.
    """

    def __init__(
        self,
        model: nn.Module,
        parts: Mapping[str, Tensor],
        shapes: Mapping[str, torch.Size],
        ranks: RankGroup,
        gathering: Gathering,
    ) -> None:
        super().__init__(model, {MODEL + name: name for name in sorted(parts)})
        self.shapes = {MODEL + name: shapes[name] for name in parts}
        self._parts, self._ranks, self._gathering = parts, ranks, gathering
        named = {id(parameter): name for name, parameter in model.named_parameters()}
        self._by_layers = set()
        for module in model.modules():
            form = FORMS.get(type(module))
            if form is not None and named[id(module.weight)] in parts:
                name = named[id(module.weight)]
                self._by_layers.add(MODEL + name)
                module.__class__ = form
                module.matrix = Matrix(shapes[name], ranks, gathering)  # type: ignore[assignment]  # of no nn.Module's

    def initial(self) -> Params:
        """This rank's parts of the pretrained weights."""
        return {name: self._parts[self.module_names[name]].detach() for name in self.module_names}

    def bind(self, params: Params) -> Params:
        """Parts for the layers that gather themselves; all others whole, gathered in one message."""
        small = [name for name in self.module_names if name not in self._by_layers]
        bound = {self.module_names[name]: params[name] for name in self._by_layers}
        if small:
            sizes = [params[name].numel() for name in small]
            joined = self._ranks.joined(torch.cat([params[name] for name in small]))
            self._gathering.elements += joined.numel()
            columns = joined.view(self._ranks.size, -1).split(sizes, dim=1)
            for name, column in zip(small, columns, strict=True):
                shape = self.shapes[name]
                bound[self.module_names[name]] = column.reshape(-1)[: shape.numel()].view(shape)
        return bound
