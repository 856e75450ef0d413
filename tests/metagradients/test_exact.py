"""The exact estimators against each other, against finite differences, and against algebra."""

import weakref

import pytest
import torch
from pydantic import ValidationError

from metacl.adaptation import AdamW, InnerLoop
from metacl.metagradients import Reverse, Unrolled
from tests.metagradients.problems import (
    EXAMPLES,
    INNER,
    LEARN,
    RULES,
    adapted_query_loss,
    loop_of,
    problem_of,
    relative_error,
    scalar_problem,
)

EXACT = [Reverse(), Reverse(allowance=2), Reverse(allowance="all"), Unrolled()]


def by_name(estimator):
    allowance = getattr(estimator, "allowance", "one")
    return estimator.registered_name if allowance == "one" else f"{estimator.registered_name}, {allowance}"


@pytest.mark.parametrize("learn", LEARN)
@pytest.mark.parametrize("steps", [0, 1, 5, 20])
@pytest.mark.parametrize("rule", RULES)
def test_reverse_equals_higher(rule, steps, learn):
    problem = problem_of(loop_of(rule, steps, learn))
    found, expected = Reverse().estimate(problem), Unrolled().estimate(problem)
    assert found.query_loss == pytest.approx(expected.query_loss, rel=1e-12)
    assert found.support_losses == pytest.approx(expected.support_losses, rel=1e-12)
    assert len(found.support_losses) == steps
    assert relative_error(found.gradient, expected.gradient) < 1e-10


@pytest.mark.parametrize("learn", LEARN)
@pytest.mark.parametrize("rule", RULES)
def test_reverse_equals_higher_in_single_precision(rule, learn):
    problem = problem_of(loop_of(rule, 20, learn), torch.float32)
    found, expected = Reverse().estimate(problem), Unrolled().estimate(problem)
    assert all(tensor.dtype == torch.float32 for tensor in found.gradient.values())
    assert relative_error(found.gradient, expected.gradient) < 1e-5


@pytest.mark.parametrize("learn", LEARN)
@pytest.mark.parametrize("rule", RULES)
def test_reverse_equals_finite_differences(rule, learn):
    problem = problem_of(loop_of(rule, 3, learn))
    found = Reverse().estimate(problem)
    assert found.query_loss == pytest.approx(adapted_query_loss(problem, rule, problem.meta), rel=1e-12)
    expected = {name: torch.zeros_like(tensor) for name, tensor in problem.meta.items()}
    distance = 1e-5
    for name, tensor in problem.meta.items():
        for position in range(tensor.numel()):
            losses = []
            for sign in (1, -1):
                moved = tensor.detach().clone()
                moved.view(-1)[position] += sign * distance
                losses.append(adapted_query_loss(problem, rule, {**problem.meta, name: moved}))
            expected[name].view(-1)[position] = (losses[0] - losses[1]) / (2 * distance)
    assert relative_error(found.gradient, expected) < 1e-6


@pytest.mark.parametrize("estimator", EXACT, ids=by_name)
def test_quadratic_by_hand(estimator):
    # L_S = (x − 1)², L_Q = 3/2 (x + 1)², x = 2, η = 0.1: x_K = 1 + 0.8^K.
    loop = InnerLoop(steps=3, step_size={"value": 0.1, "learn": "tensor"})
    problem = scalar_problem(loop, lambda x: (x - 1) ** 2, lambda x: 1.5 * (x + 1) ** 2, start=2.0)
    problem.meta["step_size.x"].data.fill_(0.1)
    result = estimator.estimate(problem)
    assert result.support_losses == pytest.approx([1.0, 0.64, 0.4096], rel=1e-12)
    assert result.query_loss == pytest.approx(1.5 * 2.512**2, rel=1e-12)
    # d/dx = 3 (x_3 + 1) · 0.8³;  d/dη = 3 (x_3 + 1) · 3 · 0.8² · (−2) · (2 − 1)
    assert result.gradient["x"].item() == pytest.approx(3.858432, rel=1e-12)
    assert result.gradient["step_size.x"].item() == pytest.approx(-28.93824, rel=1e-12)


@pytest.mark.parametrize("estimator", EXACT, ids=by_name)
def test_what_the_losses_do_not_depend_on_gets_zeros(estimator):
    problem = problem_of(loop_of("sgd", 2, "tensor"))
    inner_start = problem.start
    problem.meta["adapter.unused"] = torch.ones(2, dtype=torch.float64, requires_grad=True)
    problem.meta["step_size.adapter.unused"] = torch.ones((), dtype=torch.float64, requires_grad=True)
    problem.meta["never.touched"] = torch.ones(3, dtype=torch.float64, requires_grad=True)
    problem.start = lambda phi: {**inner_start(phi), "adapter.unused": phi["adapter.unused"]}
    gradient = estimator.estimate(problem).gradient
    for name in ("adapter.unused", "step_size.adapter.unused", "never.touched"):
        assert torch.equal(gradient[name], torch.zeros_like(problem.meta[name]))
    for name in INNER:
        assert gradient[f"step_size.{name}"].abs() > 0


def test_parameter_that_only_weight_decay_moves():
    # Without a gradient AdamW still shrinks it: x → x (1 − ηλ), twice. torch.optim and `higher` would leave it alone.
    loop = InnerLoop(steps=2, optimizer=AdamW(weight_decay=0.5), step_size={"value": 0.25, "learn": "none"})
    problem = scalar_problem(loop, lambda x: 0.0 * x, lambda x: x, start=1.0)
    assert Reverse().estimate(problem).gradient["x"].item() == pytest.approx((1 - 0.125) ** 2, rel=1e-12)


@pytest.mark.parametrize("estimator", EXACT, ids=by_name)
def test_linear_support_loss_has_no_curvature(estimator):
    loop = InnerLoop(steps=2, step_size={"value": 0.5, "learn": "scalar"})
    problem = scalar_problem(loop, lambda x: 3.0 * x, lambda x: x**2, start=2.0)
    result = estimator.estimate(problem)  # x_2 = 2 − 2 · 0.5 · 3 = −1
    assert result.gradient["x"].item() == pytest.approx(-2.0)
    assert result.gradient["step_size.factor"].item() == pytest.approx(-2.0 * -3.0)


@pytest.mark.parametrize("rule", RULES)
def test_estimating_twice_gives_the_same_bits_and_leaves_the_problem_alone(rule):
    problem = problem_of(loop_of(rule, 3, "tensor_and_step"))
    before = {name: tensor.detach().clone() for name, tensor in problem.meta.items()}
    first, second = Reverse().estimate(problem), Reverse().estimate(problem)
    for name, tensor in problem.meta.items():
        assert torch.equal(first.gradient[name], second.gradient[name])
        assert torch.equal(tensor, before[name])
        assert tensor.grad is None


def activations_kept(estimator, steps: int) -> int:
    """Saved tensors with one row an example that are alive when the query is asked, after all inner steps."""

    class Saved:
        def __init__(self, tensor):
            self.tensor = tensor

    alive = weakref.WeakSet()

    def pack(tensor):
        saved = Saved(tensor)
        if tensor.dim() and tensor.shape[0] == EXAMPLES:
            alive.add(saved)
        return saved

    problem = problem_of(loop_of("sgd", steps, "tensor"))
    ask, counts = problem.query_loss, []

    def query_loss(theta, phi):
        counts.append(len(alive))
        return ask(theta, phi)

    problem.query_loss = query_loss
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        estimator.estimate(problem)
    return counts[0]


def test_reverse_keeps_no_activations_of_inner_steps():
    of_the_start = activations_kept(Reverse(), 0)
    assert of_the_start > 0
    assert activations_kept(Reverse(), 1) == activations_kept(Reverse(), 20) == of_the_start


@pytest.mark.parametrize("estimator", [Unrolled(), Reverse(allowance="all")], ids=by_name)
def test_all_graphs_are_those_of_every_step(estimator):
    two, four, six = (activations_kept(estimator, steps) for steps in (2, 4, 6))
    assert six - four == four - two > 0


def test_reverse_keeps_as_many_graphs_as_allowed():
    none, one, three = (activations_kept(Reverse(allowance=allowance), 6) for allowance in ("one", 1, 3))
    assert three - none == 3 * (one - none) > 0
    assert activations_kept(Reverse(allowance=3), 20) == three


@pytest.mark.parametrize(("allowance", "replayed"), [("one", 5), (1, 4), (3, 2), (5, 0), (8, 0), ("all", 0)])
@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_kept_graphs_are_not_replayed_and_give_the_same(rule, allowance, replayed):
    problem = problem_of(loop_of(rule, 5, "tensor_and_step"))
    expected = Reverse().estimate(problem)
    descend, calls = problem.support_loss, []
    problem.support_loss = lambda theta, phi, step: calls.append(step) or descend(theta, phi, step)
    found = Reverse(allowance=allowance).estimate(problem)
    assert calls == [0, 1, 2, 3, 4, *reversed(range(replayed))]
    assert relative_error(found.gradient, expected.gradient) < 1e-13


def test_kept_graphs_are_freed_on_the_way_back():
    alive = []

    class Traced:
        def __init__(self, tensor):
            self.tensor = tensor

    graphs = weakref.WeakSet()
    problem = problem_of(loop_of("sgd", 4, "tensor"))
    descend = problem.support_loss

    def pack(tensor):
        graphs.add(traced := Traced(tensor))
        return traced

    def support_loss(theta, phi, step):
        alive.append(len(graphs))
        return descend(theta, phi, step)

    problem.support_loss = support_loss
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda traced: traced.tensor):
        result = Reverse(allowance=2).estimate(problem)
    assert alive[4] <= alive[2]  # when step 1 is replayed, the graphs of 2 and 3 are gone
    assert result.query_loss
    assert len(graphs) == 0


@pytest.mark.parametrize("allowance", [0, -1, "two"])
def test_allowance_that_cannot_be(allowance):
    with pytest.raises(ValidationError):
        Reverse(allowance=allowance)
