"""iMAML against closed forms on quadratics, the exact walk on what has none, and numpy for the solver."""

import numpy as np
import pytest
import torch

from metacl.adaptation import SGD, InnerLoop
from metacl.config import config_from_dict
from metacl.errors import ConfigError
from metacl.metagradients import Implicit, InnerLoopDiverged, InnerProblem, Reverse, Unrolled
from metacl.metagradients.implicit import conjugate_gradients
from tests.metagradients.problems import RULES, loop_of, problem_of, relative_error

STRENGTH = 2.0


def converged(steps=400, learn="tensor", rate=0.1):
    return InnerLoop(steps=steps, proximal=STRENGTH, step_size={"value": rate, "learn": learn})


def quadratic(dtype=torch.float64, loop=None):
    """L_S = ½ θᵀAθ − bᵀθ − θᵀCψ, L_Q = ½ ‖θ − t‖² + ψᵀw, θ_0 = Mφ, in two tensors of θ. ψ is learned only."""
    loop = loop or converged()
    generator = np.random.default_rng(5)
    half = generator.standard_normal((5, 5))
    a, b, c = half @ half.T, generator.standard_normal(5), generator.standard_normal((5, 3))
    m, target, w = generator.standard_normal((5, 4)), generator.standard_normal(5), generator.standard_normal(3)
    phi, psi = generator.standard_normal(4), generator.standard_normal(3)

    # With S = A + λI: θ* = S⁻¹(b + Cψ + λMφ), so dL_Q/dφ = λMᵀS⁻¹(θ* − t) and dL_Q/dψ = CᵀS⁻¹(θ* − t) + w.
    s = a + STRENGTH * np.eye(5)
    end = np.linalg.solve(s, b + c @ psi + STRENGTH * m @ phi)
    x = np.linalg.solve(s, end - target)
    expected = {"adapter.phi": STRENGTH * m.T @ x, "psi": c.T @ x + w}
    loss = 0.5 * ((end - target) ** 2).sum() + psi @ w

    A, B, C, M, T, W = (torch.tensor(array, dtype=dtype) for array in (a, b, c, m, target, w))

    def whole(theta):
        return torch.cat([theta["adapter.one"], theta["adapter.two"]])

    def start(meta):
        theta = M @ meta["adapter.phi"]
        return {"adapter.one": theta[:2], "adapter.two": theta[2:]}

    def support_loss(theta, meta, step):
        theta = whole(theta)
        return 0.5 * theta @ A @ theta - B @ theta - theta @ C @ meta["psi"]

    def query_loss(theta, meta):
        return 0.5 * ((whole(theta) - T) ** 2).sum() + meta["psi"] @ W

    meta = {"adapter.phi": torch.tensor(phi, dtype=dtype), "psi": torch.tensor(psi, dtype=dtype)}
    if loop.step_size.learn == "scalar":
        meta["step_size.factor"] = torch.tensor(1.0, dtype=dtype)
        expected["step_size.factor"] = np.array(0.0)
    elif loop.step_size.learn == "tensor":
        for name in ("adapter.one", "adapter.two"):
            meta[f"step_size.{name}"] = torch.tensor(loop.step_size.value, dtype=dtype)
            expected[f"step_size.{name}"] = np.array(0.0)
    problem = InnerProblem({n: t.requires_grad_() for n, t in meta.items()}, start, support_loss, query_loss, loop)
    return problem, {name: torch.tensor(value, dtype=dtype) for name, value in expected.items()}, loss


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
@pytest.mark.parametrize("learn", ["none", "scalar", "tensor"])
def test_quadratic_meets_the_closed_form(learn, dtype, bound):
    problem, expected, loss = quadratic(dtype, converged(learn=learn))
    found = Implicit(iterations=10, tolerance=1e-10).estimate(problem)
    assert relative_error(found.gradient, expected) < bound
    assert found.query_loss == pytest.approx(loss, rel=1e-5)
    assert len(found.support_losses) == problem.loop.steps


@pytest.mark.parametrize("rule", ["momentum", "nesterov"])
def test_path_to_the_minimum_does_not_matter(rule):
    loop = converged().model_copy(update={"optimizer": SGD(momentum=0.5, nesterov=rule == "nesterov")})
    problem, expected, _ = quadratic(loop=loop.model_copy(update={"step_size": converged(rate=0.05).step_size}))
    assert relative_error(Implicit(tolerance=1e-12).estimate(problem).gradient, expected) < 1e-9


def test_iterations_run_out():
    problem, expected, _ = quadratic()
    errors = [relative_error(Implicit(iterations=i).estimate(problem).gradient, expected) for i in (1, 3, 5)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-9  # five unknowns: exact after five


def test_converged_walk_has_the_same_gradient():
    # No closed form: a tanh network whose start, support and query losses all depend on φ.
    loop = loop_of("sgd", 300, "none").model_copy(update={"proximal": 4.0})
    problem = problem_of(loop)
    problem.support_loss = lambda theta, phi, step, of=problem.support_loss: of(theta, phi, 0)
    exact = Reverse().estimate(problem)
    found = Implicit(iterations=40, tolerance=1e-10).estimate(problem)
    assert found.query_loss == pytest.approx(exact.query_loss, rel=1e-12)
    assert relative_error(found.gradient, exact.gradient) < 1e-6


@pytest.mark.parametrize("rule", RULES)
def test_proximal_term_is_descended_by_every_estimator(rule):
    problem = problem_of(loop_of(rule, 4, "tensor_and_step").model_copy(update={"proximal": 0.5}))
    found, expected = Reverse().estimate(problem), Unrolled().estimate(problem)
    assert found.support_losses == pytest.approx(expected.support_losses, rel=1e-12)
    assert relative_error(found.gradient, expected.gradient) < 1e-10
    free = Reverse().estimate(problem_of(loop_of(rule, 4, "tensor_and_step")))
    assert abs(found.query_loss - free.query_loss) > 1e-6


def test_solver_equals_numpys():
    generator = np.random.default_rng(0)
    half = generator.standard_normal((6, 6))
    matrix, target = half @ half.T + np.eye(6), generator.standard_normal(6)
    system = torch.tensor(matrix)

    def apply(vector):
        image = system @ torch.cat(vector)
        return [image[:4], image[4:]]

    parts = [torch.tensor(target[:4]), torch.tensor(target[4:])]
    found = conjugate_gradients(apply, parts, iterations=6, tolerance=0.0)
    np.testing.assert_allclose(torch.cat(found).numpy(), np.linalg.solve(matrix, target), rtol=1e-8)


def test_solver_stops_at_the_tolerance_and_at_negative_curvature():
    asked = []

    def scaled(by):
        def apply(vector):
            asked.append(1)
            return [by * part for part in vector]

        return apply

    one = [torch.ones(3, dtype=torch.float64)]
    assert torch.equal(conjugate_gradients(scaled(1.0), one, 10, 1e-6)[0], one[0])
    assert len(asked) == 1  # the first guess was right
    assert torch.equal(conjugate_gradients(scaled(-1.0), one, 10, 1e-6)[0], one[0])
    assert torch.equal(conjugate_gradients(scaled(1.0), [0 * one[0]], 10, 1e-6)[0], 0 * one[0])


def test_divergence_carries_the_losses():
    problem, _, _ = quadratic(loop=converged(rate=100.0, learn="none"))
    with pytest.raises(InnerLoopDiverged, match="the support loss is"):
        Implicit().estimate(problem)


def test_loop_without_a_proximal_term_is_refused_in_python_too():
    problem, _, _ = quadratic(loop=converged().model_copy(update={"proximal": 0.0}))
    with pytest.raises(ConfigError, match=r"inner\.proximal"):
        Implicit().estimate(problem)


TREE = {
    "name": "small",
    "learner": {"name": "text_classifier"},
    "data": {"name": "labelled_text", "dataset": "oos"},
    "estimator": "implicit",
}


def test_config_without_a_proximal_term_is_refused():
    assert config_from_dict({**TREE, "inner": {"proximal": 1.0}}).inner.proximal == 1.0
    with pytest.raises(ConfigError, match=r"inner\.proximal=1"):
        config_from_dict(TREE)
    with pytest.raises(ConfigError, match=r"inner\.steps: 0"):
        config_from_dict({**TREE, "inner": {"proximal": 1.0, "steps": 0}})
