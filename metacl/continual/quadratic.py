"""Quadratic penalties s · Σ_k Σ F_k (θ − θ_k)² on several anchors, and their two steps.

Explicit: the penalty is descended with the loss. That is gradient descent on a quadratic, and diverges once
2 · η · s · F exceeds 2 anywhere. Proximal: the loss takes its step, then penalty + ‖θ − θ_step‖² / 2η is minimized
exactly; whatever s is, the result lies between the step and the anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from metacl.learners.base import Params

Step = Literal["explicit", "proximal"]
Anchor = tuple[Params, Params]
"""Importances F_k and parameters θ_k, under the same names."""


def penalty(params: Params, anchors: Sequence[Anchor], strength: float) -> Tensor | None:
    """The sum, a scalar; None if there is no anchor."""
    terms = [
        (importance[name] * (params[name] - anchor[name]).square()).sum()
        for importance, anchor in anchors
        for name in importance
    ]
    return strength * torch.stack(terms).sum() if terms else None


def proximal(params: Params, anchors: Sequence[Anchor], strength: float, rates: Params) -> Params:
    """(θ + c Σ_k F_k θ_k) / (1 + c Σ_k F_k) with c = 2 · rate · strength."""
    if not anchors:
        return params
    moved = {}
    for name, tensor in params.items():
        scale = 2 * strength * rates[name].to(tensor)
        whole = torch.stack([importance[name] for importance, _ in anchors]).sum(0)
        pull = torch.stack([importance[name] * (anchor[name] - tensor) for importance, anchor in anchors]).sum(0)
        moved[name] = tensor + scale * pull / (1 + scale * whole)  # the same, without a difference of large numbers
    return moved
