"""The frozen base in bfloat16: half the memory, and on CPUs with AMX and on GPUs a multiple of the speed.

On x86 processors without AVX-512 it is emulated, and many times slower than float32.

Only the large matrices are rounded. Activations between the layers, norms, softmax, the adapter, the inner state and
the walk back stay in float32, so what is lost is the rounding of products with the frozen matrices (8 bits of
mantissa, accumulated in float32).
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from torch import Tensor, nn

log = logging.getLogger(__name__)


class BFloat16Linear(nn.Linear):
    """A frozen linear layer that multiplies in bfloat16 and returns the type of its input."""

    def forward(self, input: Tensor) -> Tensor:
        """(…, D_in) -> (…, D_out)."""
        return F.linear(input.to(torch.bfloat16), self.weight, self.bias).to(input.dtype)


def linears_to_bfloat16(model: nn.Module) -> None:
    """Turn the linear layers of a frozen model into `BFloat16Linear`, in place: names and PEFT's checks stay."""
    for module in rounded_linears(model):
        module.to(torch.bfloat16)
        module.__class__ = BFloat16Linear


def multiplies_slowly(device: torch.device) -> bool:
    """Whether bfloat16 is emulated there: x86 processors without AVX-512. A meta-gradient took 12 x the time."""
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"


def rounded_linears(model: nn.Module) -> list[nn.Linear]:
    """Every `nn.Linear` whose weight is not an embedding's, too: what is looked up stays in float32."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return [module for module in model.modules() if type(module) is nn.Linear and id(module.weight) not in tables]
