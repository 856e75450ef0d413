"""The inner walk that all estimators share: what it yields, and what it does when the loss leaves the numbers."""

import math

import pytest
import torch

from metacl.adaptation import InnerLoop, InnerOptimizer
from metacl.metagradients import (
    FiniteDifference,
    FirstOrder,
    InnerLoopDiverged,
    Reptile,
    Reverse,
    Unrolled,
    adapt,
    plain_gradient,
    trajectory,
)
from tests.metagradients.problems import adapted_query_loss, loop_of, problem_of, scalar_problem

ALL = [Reverse(), Unrolled(), FiniteDifference(), FirstOrder(), Reptile()]


@pytest.fixture(autouse=True)
def step_sizes_in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def by_name(estimator):
    return estimator.registered_name


def halving_problem(steps):
    # L_S = x², η = 1/4: every step halves x.
    loop = InnerLoop(steps=steps, step_size={"value": 0.25, "learn": "none"})
    return scalar_problem(loop, lambda x: x**2, lambda x: x, start=8.0)


def test_yields_every_state():
    problem = halving_problem(3)
    states = trajectory(problem, plain_gradient(problem), problem.start(problem.meta))
    assert [state.theta["x"].item() for state in states] == [8.0, 4.0, 2.0, 1.0]


def test_losses_of_a_state_are_those_of_the_steps_before_it():
    problem = halving_problem(3)
    states = list(trajectory(problem, plain_gradient(problem), problem.start(problem.meta)))
    assert [state.losses for state in states] == [[], [64.0], [64.0, 16.0], [64.0, 16.0, 4.0]]


def test_end_of_the_walk():
    problem = halving_problem(3)
    end = adapt(problem, plain_gradient(problem), problem.start(problem.meta))
    assert (end.theta["x"].item(), end.losses) == (1.0, [64.0, 16.0, 4.0])


@pytest.mark.parametrize("rule", ["sgd", "nesterov", "adamw"])
def test_plain_walk_ends_where_torchs_optimizer_does(rule):
    problem = problem_of(loop_of(rule, 4, "tensor_and_step"))
    with torch.no_grad():
        start = problem.start(problem.meta)
    end = adapt(problem, plain_gradient(problem), start)
    loss = problem.query_loss(end.theta, problem.meta).item()
    assert loss == pytest.approx(adapted_query_loss(problem, rule, problem.meta), rel=1e-12)


def test_plain_walk_works_where_gradients_are_switched_off():
    problem = halving_problem(2)
    with torch.no_grad():
        end = adapt(problem, plain_gradient(problem), problem.start(problem.meta))
    assert end.theta["x"].item() == 2.0
    assert not end.theta["x"].requires_grad


@pytest.mark.parametrize("estimator", ALL, ids=by_name)
def test_divergence_carries_the_losses(estimator):
    # x → x − 1e200 · 2x: the second loss overflows.
    loop = InnerLoop(steps=5, step_size={"value": 1.0, "learn": "tensor"})
    problem = scalar_problem(loop, lambda x: x**2, lambda x: x, start=1.0)
    problem.meta["step_size.x"].data.fill_(1e200)
    with pytest.raises(InnerLoopDiverged, match="the support loss is inf at inner step 1") as caught:
        estimator.estimate(problem)
    assert caught.value.losses == [1.0, math.inf]


@pytest.mark.parametrize("estimator", ALL, ids=by_name)
def test_loss_that_is_no_number(estimator):
    loop = InnerLoop(steps=3, step_size={"value": 3.0, "learn": "none"})
    problem = scalar_problem(loop, lambda x: x.log(), lambda x: x, start=1.0)  # x = 1, then −2
    with pytest.raises(InnerLoopDiverged) as caught:
        estimator.estimate(problem)
    assert caught.value.losses[0] == 0.0
    assert math.isnan(caught.value.losses[1])
    assert len(caught.value.losses) == 2


def test_unrolled_says_which_optimizer_higher_lacks():
    class Own(InnerOptimizer):
        def displacement(self, params, grads, state, rates, step):
            return params, state

    problem = scalar_problem(InnerLoop(steps=1, optimizer=Own()), lambda x: x**2, lambda x: x, start=1.0)
    with pytest.raises(TypeError, match="no counterpart of the inner optimizer Own; use estimator 'reverse'"):
        Unrolled().estimate(problem)
