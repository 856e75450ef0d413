"""Reptile against torch's own steps and the derivative of the start."""

import pytest
import torch

from metacl.adaptation import InnerLoop, StepSizes
from metacl.metagradients import FirstOrder, InnerProblem, Reptile
from tests.metagradients.problems import RULES, loop_of, problem_of, relative_error, scalar_problem


def test_displacement_by_hand():
    # L_S = (x − 1)², η = 0.1: x − x_3 = 2 − (1 + 0.8³).
    loop = InnerLoop(steps=3, step_size={"value": 0.1, "learn": "tensor"})
    problem = scalar_problem(loop, lambda x: (x - 1) ** 2, lambda x: 1.5 * (x + 1) ** 2, start=2.0)
    problem.meta["step_size.x"].data.fill_(0.1)
    result = Reptile().estimate(problem)
    assert result.gradient["x"].item() == pytest.approx(2 - (1 + 0.8**3), rel=1e-12)
    assert result.gradient["step_size.x"].item() == 0.0
    assert result.support_losses == pytest.approx([1.0, 0.64, 0.4096], rel=1e-12)
    assert result.query_loss == pytest.approx(1.5 * 2.512**2, rel=1e-12)


@pytest.mark.parametrize("learn", ["none", "scalar", "tensor_and_step"])
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "adamw"])  # its decay is not of first order alone
def test_sum_of_the_steps_taken_goes_through_the_start(rule, learn):
    # First order with the query loss <θ_K, w>, w = θ_0 − θ_K held fixed, sends w through the same start.
    problem = problem_of(loop_of(rule, 4, learn))
    found = Reptile().estimate(problem)
    ends = []
    ask = problem.query_loss
    problem.query_loss = lambda theta, phi: ends.append({n: t.detach() for n, t in theta.items()}) or ask(theta, phi)
    whole = FirstOrder().estimate(problem)
    start = {name: tensor.detach() for name, tensor in problem.start(problem.meta).items()}
    displacement = {name: start[name] - ends[0][name] for name in start}
    problem.query_loss = lambda theta, phi: sum((theta[name] * displacement[name]).sum() for name in theta)
    expected = FirstOrder().estimate(problem).gradient
    for name in expected:
        if name.startswith("step_size."):
            expected[name] = torch.zeros_like(expected[name])
    assert relative_error(found.gradient, expected) < 1e-12
    assert found.query_loss == pytest.approx(whole.query_loss, rel=1e-12)
    assert found.support_losses == pytest.approx(whole.support_losses, rel=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_small_steps_of_large_numbers_in_float32(rule):
    """θ_0 − θ_K, a difference of rounded numbers, would be off by a part in a hundred here."""

    def displacement(dtype):
        loop = loop_of(rule, 5, "none")
        small = {name: size / 1000 for name, size in (("value", loop.step_size.value), ("head", loop.step_size.head))}
        loop = loop.model_copy(update={"step_size": StepSizes(learn="none", **small)})
        meta = {"x": torch.linspace(100.0, 200.0, 50, dtype=dtype).requires_grad_()}
        slope = torch.linspace(1.0, 2.0, 50, dtype=dtype)
        problem = InnerProblem(
            meta, lambda phi: dict(phi), lambda theta, _, k: (theta["x"] * slope).sum() / (k + 1),
            lambda theta, _: theta["x"].sum(), loop,
        )  # fmt: skip
        return Reptile().estimate(problem).gradient

    assert relative_error(displacement(torch.float32), displacement(torch.float64)) < 1e-6


def test_start_that_is_no_function_of_what_is_learned():
    problem = scalar_problem(InnerLoop(steps=2), lambda x: x**2, lambda x: x**2, start=1.0)
    problem.start = lambda phi: {"x": torch.tensor(2.0, dtype=torch.float64)}
    assert Reptile().estimate(problem).gradient["x"].item() == 0.0
