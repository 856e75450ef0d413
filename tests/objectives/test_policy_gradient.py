"""Adapting by reward: REINFORCE on a bandit against the closed form, by enumerating every group of answers."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metacl.adaptation import InnerLoop
from metacl.learners import ModuleLearner, Task
from metacl.learners.base import as_leaves
from metacl.learners.samples import Samples, choose
from metacl.metagradients import adapt, plain_gradient
from metacl.objectives import REWARDS, PolicyGradient, Reward
from metacl.testing import check_objective

WORTH = torch.tensor([0.2, -1.0, 0.7], dtype=torch.float64)


class Arms(Reward):
    """A fixed reward for each arm."""

    def of(self, batch, samples):
        return WORTH[samples.actions[..., 0]]


class Bandit(ModuleLearner):
    """One state, three arms, a score each; `answers` are what it is made to draw."""

    def __init__(self, answers=None):
        super().__init__(nn.Linear(1, 3, bias=False).double(), F.cross_entropy)
        self.initial = {"module.weight": torch.tensor([[0.3], [-0.2], [0.1]], dtype=torch.float64)}
        self.answers = answers

    def sample(self, params, batch, count, seed):
        if self.answers is None:
            return super().sample(params, batch, count, seed)
        actions = torch.tensor([self.answers]).unsqueeze(-1)
        return Samples(actions, torch.ones_like(actions))


def gradient(objective, learner, reference=None, seed=0):
    params = as_leaves(learner.initial)
    batch = learner.encode([[1.0]], [0])
    loss = objective.policy_loss(learner, params, reference or learner.initial, batch, seed)
    return torch.autograd.grad(loss, params["module.weight"])[0].flatten()


@pytest.mark.parametrize("group", [2, 3])
def test_expected_gradient_is_that_of_the_expected_reward(group):
    objective = PolicyGradient(reward=Arms(), samples=group)
    probabilities = Bandit().initial["module.weight"].flatten().softmax(0)
    expected = torch.zeros(3, dtype=torch.float64)
    for answers in product(range(3), repeat=group):
        expected += probabilities[list(answers)].prod() * gradient(objective, Bandit(list(answers)))
    # d/ds_a Σ π r = π_a (r_a − r̄)
    closed = probabilities * (WORTH - (probabilities * WORTH).sum())
    torch.testing.assert_close(-expected, closed)


def test_expected_kl_is_the_kl():
    """The mean of the estimate over all answers, by their probability."""
    objective = PolicyGradient(reward=Arms(), samples=2, kl=1.0)
    without = PolicyGradient(reward=Arms(), samples=2)
    start = {"module.weight": torch.tensor([[1.0], [0.0], [-1.0]], dtype=torch.float64)}
    learner = Bandit()
    here, there = (p["module.weight"].flatten().log_softmax(0) for p in (learner.initial, start))
    batch = learner.encode([[1.0]], [0])
    total = 0.0
    for answers in product(range(3), repeat=2):
        made = Bandit(list(answers))
        losses = [o.policy_loss(made, made.initial, start, batch, 0) for o in (objective, without)]
        total += float(here.exp()[list(answers)].prod() * (losses[0] - losses[1]))
    assert total == pytest.approx(float((here.exp() * (here - there)).sum()), rel=1e-12)


def test_choices_follow_the_distribution_and_the_seed_alone():
    scores = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.0, 0.0]])
    drawn = choose(scores, 40_000, seed=3)
    found = torch.stack([(drawn == arm).double().mean(1) for arm in range(3)], 1)
    np.testing.assert_allclose(found.numpy(), scores.softmax(-1).numpy(), atol=0.01)
    assert torch.equal(choose(scores, 40_000, 3), drawn)
    assert not torch.equal(choose(scores, 40_000, 4), drawn)


def test_rewards_of_actions_count_from_the_action_on():
    rewards = torch.tensor([[[1.0, 2.0, 4.0], [0.0, 0.0, 1.0]]])
    found = PolicyGradient().advantages(rewards)
    assert found.tolist() == [[[6.0, 5.0, 3.0], [-6.0, -5.0, -3.0]]]
    assert PolicyGradient().advantages(torch.tensor([[3.0, 1.0, 1.0]])).squeeze(-1).tolist() == [[2.0, -1.0, -1.0]]


def test_masked_actions_do_not_count():
    class Two(Bandit):
        def sample(self, params, batch, count, seed):
            actions = torch.tensor([[[0, 1], [2, 2]]])
            return Samples(actions, torch.tensor([[[1, 0], [1, 0]]]))

        def log_probabilities(self, params, batch, samples):
            return params["module.weight"].flatten().log_softmax(0)[samples.actions]

    objective = PolicyGradient(reward=Arms(), samples=2)
    torch.testing.assert_close(gradient(objective, Two()), gradient(objective, Bandit([0, 2])))


def test_normalized_advantages_have_no_scale():
    rewards = torch.tensor([[3.0, 1.0, 1.5]], dtype=torch.float64)
    objective = PolicyGradient(normalize=True)
    torch.testing.assert_close(objective.advantages(rewards), objective.advantages(100 * rewards), rtol=1e-4, atol=1e-4)


def test_meta_gradient_is_right_with_kl():
    check_objective(PolicyGradient(kl=0.3, samples=4))


def test_inner_steps_find_the_good_arm():
    learner, loop = Bandit(), InnerLoop(steps=60, step_size={"value": 1.0, "learn": "none"})
    objective = PolicyGradient(reward=Arms(), samples=16)
    batch = learner.encode([[1.0]], [0])
    problem = objective.problem(learner, learner.initial, Task(3, batch, batch), loop)
    end = adapt(problem, plain_gradient(problem), problem.start(learner.initial)).theta
    assert float(learner.outputs(end, batch).softmax(-1)[0, 2]) > 0.9


def test_match_rewards_the_target():
    learner = Bandit([2, 0, 1])
    batch = learner.encode([[1.0]], [1])
    assert REWARDS.build({"name": "match"}).of(batch, learner.sample(None, batch, 3, 0)).tolist() == [[0.0, 0.0, 1.0]]
