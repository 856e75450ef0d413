"""Algorithms on problems small enough to be written out: linear regression, one layer, one step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metacl.adaptation import Adam, InnerLoop, MetaCurvature
from metacl.learners import ModuleLearner
from metacl.learners.base import as_leaves
from metacl.metagradients import SAMA, AnnealedOrder, FirstOrder, InnerProblem, Reverse, SharpnessAware, Unrolled
from metacl.objectives import CAVIA, MAML, MultiStep, ProtoMAML
from metacl.testing import check_objective
from metacl.testing.tiny import LOOP, TinyLearner, spread, tiny_problem
from tests.metagradients.problems import relative_error

RATE = 0.05
random = np.random.default_rng(0)
X, Y = random.standard_normal((6, 3)), random.standard_normal((6, 1))
XQ, YQ = random.standard_normal((4, 3)), random.standard_normal((4, 1))


def linear_regression(loop):
    """y = W x without bias; the problem, W (1, 3), and by hand: W after one step, and the gradients on the way."""
    torch.manual_seed(0)
    learner = ModuleLearner(nn.Linear(3, 1, bias=False).double(), F.mse_loss)
    meta = as_leaves({n: t.double() for n, t in MAML().meta_parameters(learner, loop, 0).items()})
    problem = MAML().problem(learner, meta, learner.task((X, Y), (XQ, YQ)), loop)
    start = meta["module.weight"].detach().numpy()
    support = 2 / len(X) * (start @ X.T - Y.T) @ X
    end = start - RATE * support
    query = 2 / len(XQ) * (end @ XQ.T - YQ.T) @ XQ
    return problem, support, query


def test_maml_of_linear_regression():
    problem, _, query = linear_regression(InnerLoop(steps=1, step_size={"value": RATE, "learn": "none"}))
    hessian = 2 / len(X) * X.T @ X
    found = Reverse().estimate(problem).gradient["module.weight"].numpy()
    np.testing.assert_allclose(found, query @ (np.eye(3) - RATE * hessian), rtol=1e-12)
    np.testing.assert_allclose(FirstOrder().estimate(problem).gradient["module.weight"].numpy(), query, rtol=1e-12)


def test_meta_sgd_of_linear_regression():
    problem, support, query = linear_regression(InnerLoop(steps=1, step_size={"value": RATE, "learn": "parameter"}))
    found = Reverse().estimate(problem).gradient["step_size.module.weight"].numpy()
    np.testing.assert_allclose(found, -query * support, rtol=1e-6)  # the step size was made in float32


def test_meta_curvature_is_two_matrices():
    grad = torch.tensor(random.standard_normal((4, 3)))
    kernel = torch.tensor(random.standard_normal((2, 3, 5, 5)))
    rule = MetaCurvature()
    meta = spread(rule.initial({"w": grad.shape, "k": kernel.shape, "b": torch.Size((4,))}))
    out, into = meta["step_size.curvature.output.w"], meta["step_size.curvature.input.w"]
    found = rule.apply(meta, {"w": grad, "k": kernel, "b": grad[:, 0]})
    torch.testing.assert_close(found["w"], out @ grad @ into.T)
    torch.testing.assert_close(found["b"], meta["step_size.curvature.output.b"] @ grad[:, 0])
    sides = [meta[f"step_size.curvature.{side}.k"] for side in ("output", "input", "kernel")]
    expected = torch.einsum("oa,ib,kc,abc->oik", *sides, kernel.flatten(2)).view_as(kernel)
    torch.testing.assert_close(found["k"], expected)


def test_meta_curvature_starts_as_the_identity_and_is_exact_in_every_estimator():
    loop = LOOP.model_copy(update={"precondition": MetaCurvature()})
    plain = MAML().problem(TinyLearner(), *_tiny(MAML(), LOOP), LOOP)
    meta, task = _tiny(MAML(), loop)
    identity = {n: torch.eye(len(t)).double().requires_grad_() if ".curvature." in n else t for n, t in meta.items()}
    same = MAML().problem(TinyLearner(), identity, task, loop)
    assert Reverse().estimate(same).query_loss == pytest.approx(Reverse().estimate(plain).query_loss, rel=1e-12)
    check_objective(MAML(), loop=loop)
    problem = MAML().problem(TinyLearner(), meta, task, loop)
    assert relative_error(Unrolled().estimate(problem).gradient, Reverse().estimate(problem).gradient) < 1e-12


def _tiny(objective, loop, ways=3):
    learner = TinyLearner()
    return spread(objective.meta_parameters(learner, loop, ways)), learner.task(ways)


def test_cavia_is_a_context_beside_the_input():
    """The paper's form: one linear layer on [x, c], written out, against a context that is added to the bias."""
    torch.manual_seed(0)
    learner = ModuleLearner(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double(), F.mse_loss)
    objective = CAVIA(size=2, into=("module.0.bias",))
    loop = InnerLoop(steps=2, step_size={"value": 0.5, "learn": "none"})
    meta = as_leaves({n: t.double() for n, t in objective.meta_parameters(learner, loop, 0).items()})
    found = Reverse().estimate(objective.problem(learner, meta, learner.task((X, Y), (XQ, YQ)), loop))

    def loss(context, inputs, targets):
        wide = torch.cat([torch.tensor(inputs), context.expand(len(inputs), 2)], 1)
        weight = torch.cat([meta["module.0.weight"], meta["context_weight.module.0.bias"]], 1)
        hidden = torch.tanh(F.linear(wide, weight, meta["module.0.bias"]))
        return F.mse_loss(F.linear(hidden, meta["module.2.weight"], meta["module.2.bias"]), torch.tensor(targets))

    context = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    for _ in range(2):
        (grad,) = torch.autograd.grad(loss(context, X, Y), context, create_graph=True)
        context = context - 0.5 * grad
    expected = torch.autograd.grad(loss(context, XQ, YQ), list(meta.values()))
    assert relative_error(found.gradient, dict(zip(meta, expected, strict=True))) < 1e-12


def test_prototypical_network_is_proto_maml_without_steps():
    learner, loop = TinyLearner(), InnerLoop(steps=0, step_size={"learn": "none"})
    meta, task = _tiny(ProtoMAML(), loop)
    features = {part: learner.features(meta, getattr(task, part)) for part in ("support", "query")}
    means = torch.stack([features["support"][task.support.targets == way].mean(0) for way in range(3)])
    expected = F.cross_entropy(-torch.cdist(features["query"], means) ** 2, task.query.targets)
    problem = ProtoMAML().problem(learner, meta, task, loop)
    assert Reverse().estimate(problem).query_loss == pytest.approx(float(expected.detach()), rel=1e-12)


@pytest.mark.parametrize(
    ("outer_step", "expected"),
    [(0, [0.25] * 4), (50, [0.125, 0.125, 0.125, 0.625]), (5000, [0.0075, 0.0075, 0.0075, 0.9775])],
)
def test_multi_step_weights_are_those_of_the_authors_code(outer_step, expected):
    assert MultiStep(anneal_steps=100).weights(4, outer_step) == pytest.approx(expected)


def test_multi_step_is_the_weighted_sum_over_shorter_walks():
    meta, task = _tiny(MAML(), LOOP)
    found = Reverse().estimate(MultiStep(of=MAML()).problem(TinyLearner(), meta, task, LOOP))
    total = dict.fromkeys(meta, 0.0)
    for steps in (1, 2, 3):
        loop = LOOP.model_copy(update={"steps": steps})
        short = Reverse().estimate(MAML().problem(TinyLearner(), meta, task, loop)).gradient
        total = {name: total[name] + short[name] / 3 for name in meta}
    assert relative_error(found.gradient, total) < 1e-12
    unrolled = Unrolled().estimate(MultiStep(of=MAML()).problem(TinyLearner(), meta, task, LOOP))
    assert relative_error(found.gradient, unrolled.gradient) < 1e-12
    assert found.query_loss == pytest.approx(unrolled.query_loss, rel=1e-12)


def test_sama_is_exact_where_its_assumptions_hold():
    """One Adam step on a loss that is linear in θ: the base Jacobian is the identity, the rest has no remainder."""
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    meta = {
        "theta": torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_(),
        "weights": torch.randn(2, generator=generator, dtype=torch.float64).requires_grad_(),
    }
    loop = InnerLoop(steps=1, optimizer=Adam(eps=0.5), step_size={"value": 0.3, "learn": "none"})
    problem = InnerProblem(
        meta,
        start=lambda phi: {"theta": phi["theta"]},
        support_loss=lambda theta, phi, k: theta["theta"] @ (matrix @ phi["weights"].sin()),
        query_loss=lambda theta, phi: (theta["theta"] ** 4).sum(),
        loop=loop,
    )
    exact = Reverse().estimate(problem).gradient
    assert relative_error(SAMA().estimate(problem).gradient, exact) < 1e-10
    assert FirstOrder().estimate(problem).gradient["weights"].abs().max() == 0
    assert exact["weights"].abs().max() > 0.01


def test_sharpness_aware_of_a_quadratic():
    curvature = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))
    meta = {"w": torch.tensor([1.0, -2.0], dtype=torch.float64).requires_grad_()}
    problem = InnerProblem(
        meta,
        start=dict,
        support_loss=lambda theta, phi, k: theta["w"].sum(),
        query_loss=lambda theta, phi: 0.5 * theta["w"] @ curvature @ theta["w"],
        loop=InnerLoop(steps=0),
    )
    gradient = curvature @ meta["w"].detach()
    expected = curvature @ (meta["w"].detach() + 0.1 * gradient / gradient.norm())
    torch.testing.assert_close(SharpnessAware(radius=0.1).estimate(problem).gradient["w"], expected)


def test_annealed_order_changes_when_it_says():


    problem, rule = tiny_problem(LOOP), AnnealedOrder(first_order_steps=10)
    for outer_step, like in ((0, FirstOrder()), (9, FirstOrder()), (10, Reverse())):
        found = rule.estimate(replace(problem, outer_step=outer_step)).gradient
        assert all(torch.equal(found[n], t) for n, t in like.estimate(problem).gradient.items())
