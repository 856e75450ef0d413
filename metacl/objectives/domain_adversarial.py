"""Domain-adversarial adaptation (Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks", eq. 9-12).

The support and the query inputs are two domains, and no query label is used: while adapting, a small classifier learns
to tell their features apart and the features learn to make it fail. The inner loop walks to the saddle point of
L_S − λ L_domain, which the features descend and the classifier climbs. The paper's gradient reversal layer does the
same walk; but such a layer claims a wrong derivative of its value, and exact meta-gradients through it would be wrong.
It is transductive: it needs the inputs that will be asked about. The query loss is `of`'s own.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor

from metacl.adaptation import InnerLoop
from metacl.errors import ConfigError
from metacl.learners.base import Learner, Params, Task
from metacl.metagradients import InnerProblem
from metacl.objectives.base import OBJECTIVES
from metacl.objectives.wrapper import Wrapper

DOMAIN = "domain.weight", "domain.bias"


@OBJECTIVES.register("domain_adversarial")
class DomainAdversarial(Wrapper):
    """Adapts to features that do not tell support from query; the domain classifier is learned and adapts, too.

    weight : λ, of the domain loss.
    """

    weight: NonNegativeFloat = 0.1

    def learned(self, learner: Learner, ways: int) -> Params:
        """`of`'s and the domain classifier. Raises `ConfigError` for a learner without features."""
        if learner.width is None:
            raise ConfigError(f"objective: domain_adversarial needs features; a {type(learner).__name__} has none.")
        random = torch.Generator().manual_seed(0)
        weight = torch.randn(1, learner.width, generator=random) / learner.width**0.5
        return {**self.of.learned(learner, ways), **dict(zip(DOMAIN, (weight, torch.zeros(1)), strict=True))}

    def adaptable(self, name: str) -> bool:
        """What `of` adapts and the domain classifier."""
        return name in DOMAIN or self.of.adaptable(name)

    def start(self, learner: Learner, meta: Params, task: Task) -> Params:
        """`of`'s and the learned domain classifier."""
        others = {name: tensor for name, tensor in meta.items() if name not in DOMAIN}
        return {**self.of.start(learner, others, task), **{name: meta[name] for name in DOMAIN}}

    def inner_names(self, learned: Params) -> list[str]:
        """`of`'s and the domain classifier."""
        return [*self.of.inner_names({n: t for n, t in learned.items() if n not in DOMAIN}), *DOMAIN]

    def problem(self, learner: Learner, meta: Params, task: Task, loop: InnerLoop) -> InnerProblem:
        """`of`'s, with the domain loss in the support loss."""
        plain = self.of.problem(learner, meta, task, loop)

        def support_loss(theta: Params, phi: Params, k: int) -> Tensor:
            params = self.bind(theta, phi)
            parts = [learner.features(params, batch) for batch in (task.support, task.query)]
            logits = F.linear(torch.cat(parts), *(params[name] for name in DOMAIN)).squeeze(-1)
            domains = torch.cat([torch.full((len(part),), float(d)).to(logits) for d, part in enumerate(parts)])
            return plain.support_loss(theta, phi, k) - self.weight * F.binary_cross_entropy_with_logits(logits, domains)

        return replace(
            plain,
            start=lambda phi: self.start(learner, phi, task),
            support_loss=support_loss,
            ascending=plain.ascending | set(DOMAIN),
        )
