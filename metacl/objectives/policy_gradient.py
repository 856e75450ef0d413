"""MAML over a policy gradient (Finn et al. 2017, sec. 4.2 and alg. 3): the model adapts by reward, and is asked for it.

Each inner step draws G answers to every input from the current θ and descends on

    −mean Σ_t A_t log π_θ(a_t)  +  β · mean KL(π_θ ‖ π_start),

REINFORCE (Williams 1992) with a baseline from the group: A is the answer's reward less the mean reward of the other
answers to the same input, which leaves the gradient unbiased (Kool et al. 2019; GRPO, Shao et al. 2024, subtracts the
mean of all, which only shrinks it by 1 − 1/G). The KL is estimated on the same answers as in GRPO's eq. 4, always
positive. Answers are drawn at numbers fixed by address and step, so replaying a step draws the same ones; that θ also
decides which answers are drawn after adapting is left out, as in the paper's algorithm.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from metacl.adaptation import InnerLoop
from metacl.learners.base import Batch, Learner, Params, Task
from metacl.metagradients import InnerProblem
from metacl.objectives.base import OBJECTIVES
from metacl.objectives.maml import MAML
from metacl.objectives.rewards import REWARDS, Match, Reward
from metacl.objectives.sequence import address_of_step
from metacl.registry import chosen_from
from metacl.tasks.randomness import AddressedRandom

QUERY = 2**20
"""The step that the query's answers are numbered by; no inner loop has as many."""


@OBJECTIVES.register("policy_gradient")
class PolicyGradient(MAML):
    """Adapts by a reward (meta-RL): REINFORCE in the inner loop, group-relative, and again for what is asked.

    reward : a registered one. samples : G. kl : β, of the distance to the task's start. normalize : divide A by the
    standard deviation of the group's rewards, as GRPO does; biased, but free of the reward's scale.
    """

    reward: Annotated[Reward, chosen_from(REWARDS)] = Match()
    samples: Annotated[int, Field(ge=2)] = 8
    kl: NonNegativeFloat = 0.0
    normalize: bool = False

    def problem(self, learner: Learner, meta: Params, task: Task, loop: InnerLoop) -> InnerProblem:
        """Both losses made of answers; the start is what the KL is taken to."""

        def start(phi: Params) -> Params:
            return self.start(learner, phi, task)

        def loss(theta: Params, phi: Params, batch: Batch, step: int) -> Tensor:
            seed = AddressedRandom(address_of_step(task.address, step)).below(2**62)
            reference = self.bind(start(phi), phi)
            return self.policy_loss(learner, self.bind(theta, phi), reference, batch, seed)

        return replace(
            super().problem(learner, meta, task, loop),
            support_loss=lambda theta, phi, k: loss(theta, phi, task.support, k),
            query_loss=lambda theta, phi: loss(theta, phi, task.query, QUERY),
        )

    def policy_loss(self, learner: Learner, params: Params, reference: Params, batch: Batch, seed: int) -> Tensor:
        """See the module; the mean over inputs and answers."""
        with torch.no_grad():
            answers = learner.sample(params, batch, self.samples, seed)
            advantage = self.advantages(self.reward.of(batch, answers))
        log_probability = learner.log_probabilities(params, batch, answers)  # (B, G, L)
        gain = advantage.to(log_probability) * log_probability
        if self.kl:
            behind = learner.log_probabilities(reference, batch, answers) - log_probability
            gain = gain - self.kl * (behind.exp() - behind - 1)
        return -(gain * answers.mask).sum(-1).mean()

    def mean_reward(self, learner: Learner, params: Params, task: Task) -> float:
        """Of the answers to the query that `query_loss` is made of; of rewards of single actions, their sum."""
        seed = AddressedRandom(address_of_step(task.address, QUERY)).below(2**62)
        rewards = self.reward.of(task.query, learner.sample(params, task.query, self.samples, seed))
        return float((rewards if rewards.dim() == 2 else rewards.sum(-1)).mean())

    def advantages(self, rewards: Tensor) -> Tensor:
        """(B, G) or (B, G, L) rewards as advantages (B, G, 1) or (B, G, L): what is still to come, less the others'."""
        worth = rewards.unsqueeze(-1) if rewards.dim() == 2 else rewards.flip(-1).cumsum(-1).flip(-1)
        others = (worth.sum(1, keepdim=True) - worth) / (worth.shape[1] - 1)
        return (worth - others) / (worth.std(1, keepdim=True) + 1e-6) if self.normalize else worth - others
