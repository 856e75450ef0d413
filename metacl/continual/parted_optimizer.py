"""An optimizer whose state lies in parts, one a rank (Rajbhandari et al. 2020, "ZeRO", sec. 5.1: P_os).

Every rank moves its part of each parameter and tells the others; what an optimizer here does it does number by number,
so the result has the bits of a whole one. Gradients stay whole on every rank, for strategies look at all of them.
"""

from __future__ import annotations

import torch

from metacl.adaptation.optimizers import InnerOptimizer, State
from metacl.learners.base import Params
from metacl.learners.partition import part_of
from metacl.learners.ranks import RankGroup


def displacement_in_parts(
    optimizer: InnerOptimizer,
    ranks: RankGroup,
    params: Params,
    gradient: Params,
    state: State,
    rates: Params,
    step: int,
) -> tuple[Params, State]:
    """As `InnerOptimizer.displacement`, of whole tensors; `state` holds this rank's parts, (n,) for each parameter.

    rates : for each parameter a number, or what broadcasts against it.
    """
    rates = {
        name: rate if rate.dim() == 0 else part_of(rate.expand_as(params[name]), ranks) for name, rate in rates.items()
    }
    own, its_gradient = [{name: part_of(t, ranks) for name, t in whole.items()} for whole in (params, gradient)]
    moved, state = optimizer.displacement(own, its_gradient, state, rates, step)
    sizes = [moved[name].numel() for name in params]
    columns = ranks.gather(torch.cat([moved[name] for name in params])).view(ranks.size, -1).split(sizes, dim=1)
    whole = zip(params.items(), columns, strict=True)
    return {name: column.reshape(-1)[: like.numel()].view(like.shape) for (name, like), column in whole}, state
