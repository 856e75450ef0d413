"""The frozen base in bfloat16: half the memory, and on CPUs with AMX and on GPUs a multiple of the speed.

On x86 processors without AVX-512 products are computed in float32 and take its time (`RoundedProduct`).

Only the large matrices are rounded. Activations between the layers, norms, softmax, the adapter, the inner state and
the walk back stay in float32, so what is lost is the rounding of products with the frozen matrices (8 bits of
mantissa, accumulated in float32).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BFloat16Linear(nn.Linear):
    """A frozen linear layer that multiplies in bfloat16 and returns the type of its input."""

    def forward(self, input: Tensor) -> Tensor:
        """(…, D_in) -> (…, D_out)."""
        rounded = input.to(torch.bfloat16)
        if not multiplies_slowly(input.device):
            return F.linear(rounded, self.weight, self.bias).to(input.dtype)
        product = RoundedProduct.apply(rounded, self.weight)
        return (product if self.bias is None else product + self.bias.float()).to(torch.bfloat16).to(input.dtype)


class RoundedProduct(torch.autograd.Function):
    """Product of bfloat16 numbers with a frozen matrix, computed in float32 and left there.

    A product of two bfloat16 numbers is exact in float32, so this is what a processor with instructions for bfloat16
    finds, but for the order of its sums. The matrix is saved as it is, not its float32 copy.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(input: Tensor, weight: Tensor) -> Tensor:
        """(…, D_in), (D_out, D_in) -> (…, D_out)."""
        return F.linear(input.float(), weight.float())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """The matrix is all that backward needs."""
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Another product of the kind, so it can be differentiated again."""
        (weight,) = ctx.saved_tensors
        product: Tensor = RoundedProduct.apply(gradient.to(torch.bfloat16), weight.T)
        return product.to(torch.bfloat16), None


def linears_to_bfloat16(model: nn.Module) -> None:
    """Turn the linear layers of a frozen model into `BFloat16Linear`, in place: names and PEFT's checks stay."""
    for module in rounded_linears(model):
        module.to(torch.bfloat16)
        module.__class__ = BFloat16Linear


def multiplies_slowly(device: torch.device) -> bool:
    """Whether it has no instructions for bfloat16: x86 without AVX-512. There torch's products take 12 × the time."""
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"


def rounded_linears(model: nn.Module) -> list[nn.Linear]:
    """Every `nn.Linear` whose weight is not an embedding's, too: what is looked up stays in float32."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return [module for module in model.modules() if type(module) is nn.Linear and id(module.weight) not in tables]
