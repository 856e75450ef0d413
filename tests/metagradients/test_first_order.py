"""FOMAML against one written out with torch, and against algebra."""

import pytest
import torch

from metacl.adaptation import InnerLoop
from metacl.metagradients import FirstOrder, Reverse
from tests.metagradients.problems import LEARN, RULES, loop_of, problem_of, rate_by_hand, relative_error, scalar_problem


@pytest.mark.parametrize("learn", LEARN)
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_equals_fomaml_written_out(steps, learn):
    problem = problem_of(loop_of("sgd", steps, learn))
    meta, sizes = problem.meta, problem.loop.step_size

    # Adapt with constants only, keeping the gradients.
    fixed = {name: tensor.detach() for name, tensor in meta.items()}
    theta = {name: tensor.detach() for name, tensor in problem.start(meta).items()}
    taken = []
    for step in range(steps):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in theta.items()}
        grads = torch.autograd.grad(problem.support_loss(leaves, fixed, step), list(leaves.values()))
        taken.append(dict(zip(leaves, grads, strict=True)))
        theta = {n: theta[n] - rate_by_hand(problem.loop, meta, n, step) * taken[-1][n] for n in theta}

    # d L_Q / d θ_K goes to θ_0 unchanged, and from there through the start to φ.
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in theta.items()}
    loss = problem.query_loss(leaves, meta)
    at_end = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)
    direct = torch.autograd.grad(loss, list(meta.values()), allow_unused=True, materialize_grads=True)
    through_start = torch.autograd.grad(
        list(problem.start(meta).values()), list(meta.values()), at_end, allow_unused=True, materialize_grads=True
    )
    expected = {name: a + b for name, a, b in zip(meta, direct, through_start, strict=True)}

    # d θ_K / d η_k = −g_k.
    ends = dict(zip(leaves, at_end, strict=True))
    for name in theta:
        products = [-(ends[name] * grads[name]) for grads in taken]
        per_step = torch.stack([product.sum() for product in products]) if steps else torch.zeros(1)
        layer = "head" if name.startswith("head.") else "adapter.0"
        if learn == "scalar":
            value = sizes.head if name.startswith("head.") else sizes.value
            expected["step_size.factor"] += value * per_step.sum()
        elif learn == "layer":
            expected[f"step_size.{layer}"] += per_step.sum()
        elif learn == "layer_and_step":
            expected[f"step_size.{layer}"] += per_step
        elif learn == "parameter":
            expected[f"step_size.{name}"] += sum(products, torch.zeros(()))
        elif learn == "tensor":
            expected[f"step_size.{name}"] += per_step.sum()
        elif learn == "tensor_and_step":
            expected[f"step_size.{name}"] += per_step

    found = FirstOrder().estimate(problem)
    assert found.query_loss == pytest.approx(float(loss.detach()), rel=1e-12)
    assert relative_error(found.gradient, expected) < 1e-12


def test_quadratic_by_hand():
    # As for the exact estimators, but d x_K / d x is taken as 1, and d x_K / d η as −Σ 2 (x_k − 1).
    loop = InnerLoop(steps=3, step_size={"value": 0.1, "learn": "tensor"})
    problem = scalar_problem(loop, lambda x: (x - 1) ** 2, lambda x: 1.5 * (x + 1) ** 2, start=2.0)
    problem.meta["step_size.x"].data.fill_(0.1)
    result = FirstOrder().estimate(problem)
    assert result.gradient["x"].item() == pytest.approx(7.536, rel=1e-12)
    assert result.gradient["step_size.x"].item() == pytest.approx(-7.536 * 2 * (1 + 0.8 + 0.64), rel=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_losses_are_the_exact_estimators(rule):
    problem = problem_of(loop_of(rule, 3, "tensor"))
    first_order, exact = FirstOrder().estimate(problem), Reverse().estimate(problem)
    assert first_order.query_loss == pytest.approx(exact.query_loss, rel=1e-12)
    assert first_order.support_losses == pytest.approx(exact.support_losses, rel=1e-12)
    assert relative_error(first_order.gradient, exact.gradient) > 1e-3  # it is biased


def test_works_without_a_second_derivative():
    class OnceOnly(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            return 2 * ctx.saved_tensors[0] * grad

    loop = InnerLoop(steps=2, step_size={"value": 0.25, "learn": "none"})
    problem = scalar_problem(loop, OnceOnly.apply, lambda x: x**2, start=4.0)
    assert FirstOrder().estimate(problem).gradient["x"].item() == 2.0  # of x_2 = 4 / 2 / 2


def test_what_they_declare():
    assert (FirstOrder.order, FirstOrder.exact, FirstOrder.needs_double_backward) == (1, False, False)
    assert (Reverse.order, Reverse.exact, Reverse.needs_double_backward) == (2, True, True)
