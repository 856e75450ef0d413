"""LoRA's factors as the matrices they make: ΔW = B A, without the constant that PEFT multiplies it by.

Two factors that change a lot may make the same ΔW, and the other way round; what a model forgets depends on ΔW.
"""

from __future__ import annotations

import torch

from metacl.continual.model import Model
from metacl.errors import ConfigError
from metacl.learners.base import ADAPTER, Params

A, B = "lora_A.weight", "lora_B.weight"


def pairs(params: Params) -> dict[str, tuple[str, str]]:
    """Name of each adapted module -> names of A (r, D_in) and B (D_out, r). Empty where there is no LoRA."""
    found = [name.removesuffix(A) for name in params if name.startswith(ADAPTER) and name.endswith(A)]
    return {stem: (stem + A, stem + B) for stem in found}


def check_factors(strategy: str, model: Model) -> None:
    """Raise `ConfigError` unless there is LoRA and all of its factors are trained."""
    found = pairs(model.learner.initial)
    if not found:
        raise ConfigError(f"strategies: {strategy} needs LoRA. Set learner.adapter, with kind=lora.")
    frozen = [name for both in found.values() for name in both if name in model.frozen]
    if frozen:
        raise ConfigError(
            f"training.only: {strategy} works on both of LoRA's factors, and {frozen[0]} is not trained. Add adapter.*."
        )


def products(params: Params) -> Params:
    """Every ΔW (D_out, D_in) under its module's name with ``delta``, and the parameters that are no factors."""
    of_modules = pairs(params)
    factors = {name for both in of_modules.values() for name in both}
    made = {f"{stem}delta": params[b] @ params[a] for stem, (a, b) in of_modules.items()}
    return {**{name: tensor for name, tensor in params.items() if name not in factors}, **made}


def from_offsets(params: Params, offsets: Params) -> Params:
    """What a model is given for ΔW + E instead of ΔW, differentiable in E.

    E needs no layer of its own: A stacked on the identity and B beside E are factors of a larger rank.

    Parameters
    ----------
    params : with the factors.
    offsets : like `products`; E under ``delta``, and for what is no factor the value itself.
    """
    bound = {name: offsets.get(name, tensor) for name, tensor in params.items()}
    for stem, (a, b) in pairs(params).items():
        identity = torch.eye(params[a].shape[1], dtype=params[a].dtype, device=params[a].device)
        bound[a] = torch.cat([params[a], identity])
        bound[b] = torch.cat([params[b], offsets[f"{stem}delta"]], 1)
    return bound
