"""The diagonal of the Fisher information, four ways that are often taken for each other (Kunstner et al. 2019).

For examples x_b with p(c | x) the model's answer and ∇ the gradient in the parameters:

- exact      1/B Σ_b Σ_c p(c | x_b) (∇ log p(c | x_b))²
- sampled    1/B Σ_b (∇ log p(c_b | x_b))² with c_b drawn from p(· | x_b): the same on average
- empirical  1/B Σ_b (∇ log p(y_b | x_b))² with the true label: another quantity, not the Fisher information; of a
  language model with the mean over a text's tokens in the place of log p
- batched    mean over minibatches of the squared gradient of the *mean* loss, what Avalanche computes: smaller than
  empirical by about the size of a minibatch where gradients do not agree

The ranks of a worker group take an example each, and their sums are added; of a minibatch each takes a part, as in a
step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from metacl.continual.experience import Address
from metacl.continual.model import among
from metacl.continual.moment import Moment
from metacl.errors import ConfigError
from metacl.learners.base import Params, as_leaves
from metacl.learners.samples import choose

Kind = Literal["exact", "sampled", "empirical", "batched"]


Bind = Callable[[Params], Params]


def fisher(
    moment: Moment, params: Params, addresses: Sequence[Address], kind: Kind, batch_size: int, bind: Bind
) -> Params:
    """The diagonal in `params`, on the examples at `addresses`.

    Parameters
    ----------
    batch_size : int
        Of a minibatch, for "batched"; the others go example by example.
    bind : Params -> Params
        What the model is given, differentiable in `params`.

    Raises
    ------
    ConfigError
        "exact" or "sampled" is asked of a language model, whose answers are texts.
    """
    if kind == "batched":
        return _batched(moment, params, addresses, batch_size, bind)
    if kind in ("exact", "sampled") and not moment.model.classes:
        raise ConfigError(f"strategies: a {kind} Fisher needs classes. Set fisher=empirical, or batched.")
    ranks, alone = moment.model.learner.ranks, moment.alone(addresses)
    random = moment.random(2)
    draws = [random.below(2**31) for _ in addresses]
    classes = _classes(moment, addresses)
    leaves = as_leaves(params)
    total = {name: torch.zeros_like(tensor) for name, tensor in params.items()}
    for together, own, counts in ranks.portion(range(len(addresses))):
        minibatch = alone.minibatch([addresses[own]])
        outputs = alone.model.outputs(bind(leaves), minibatch.batch)
        targets = minibatch.batch.targets
        assert targets is not None
        if kind == "empirical":
            logs, weights = [alone.model.log_likelihoods(outputs, targets, minibatch.allowed)[0]], [1.0]
        else:
            scores = among(outputs, minibatch.allowed)
            every = scores.log_softmax(-1)[0]
            if kind == "exact":
                asked = _repeated(classes[own], max(len(classes[place]) for place in together))
                logs = [every[c] for c, _ in asked]
                weights = [float(every[c].detach().exp()) if first else 0.0 for c, first in asked]
            else:
                logs, weights = [every[int(choose(scores, 1, draws[own])[0, 0])]], [1.0]
        for place, (log, weight) in enumerate(zip(logs, weights, strict=True)):
            again = place + 1 < len(logs)
            for name, gradient in _gradient(log, leaves, again).items():
                total[name] += weight * counts * gradient.square()
    return {name: ranks.total(tensor) / len(addresses) for name, tensor in total.items()}


def _classes(moment: Moment, addresses: Sequence[Address]) -> list[list[int]]:
    """Those that each example is told apart from."""
    allowed = moment.pool.allowed(addresses, moment.experience)
    if allowed is None:
        return [list(range(moment.model.classes))] * len(addresses)
    return [[c for c, possible in enumerate(row) if possible] for row in allowed.tolist()]


def _repeated(classes: Sequence[int], count: int) -> list[tuple[int, bool]]:
    """`count` of them, and whether for the first time. Where the base lies in shards ranks differentiate in step."""
    return [(classes[place % len(classes)], place < len(classes)) for place in range(count)]


def _batched(moment: Moment, params: Params, addresses: Sequence[Address], batch_size: int, bind: Bind) -> Params:
    leaves = as_leaves(params)
    total = {name: torch.zeros_like(tensor) for name, tensor in params.items()}
    count = 0
    for minibatch in moment.minibatches(addresses, batch_size):
        outputs = moment.model.outputs(bind(leaves), minibatch.batch)
        loss = moment.model.loss(outputs, minibatch.batch.targets, minibatch.allowed)
        for name, gradient in _gradient(loss, leaves).items():
            total[name] += gradient.square()
        count += 1
    return {name: tensor / count for name, tensor in total.items()}


def _gradient(value: torch.Tensor, leaves: Params, again: bool = False) -> Params:
    found = torch.autograd.grad(
        value, list(leaves.values()), retain_graph=again, allow_unused=True, materialize_grads=True
    )
    return dict(zip(leaves, found, strict=True))
