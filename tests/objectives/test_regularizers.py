"""Regularizers as objectives: each against its definition written out, by other means."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from metacl.adaptation import InnerLoop
from metacl.errors import ConfigError
from metacl.learners import LEARNERS
from metacl.learners.base import Task, as_leaves
from metacl.metagradients import Implicit, Reverse, Unrolled, adapt, plain_gradient
from metacl.objectives import MAML, Adversarial, Distilled, DomainAdversarial, MultiStep, ProtoMAML, Unlabelled
from metacl.objectives.distilled import divergence
from metacl.testing import check_objective
from metacl.testing.tiny import LOOP, TinyLearner, spread
from tests.metagradients.problems import relative_error

random = np.random.default_rng(0)


def setting(objective, loop=LOOP):
    learner = TinyLearner()
    meta = spread(objective.meta_parameters(learner, loop, 3))
    task = learner.task(3)
    return learner, meta, task, objective.problem(learner, meta, task, loop)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergence_is_scipys_from_teacher_to_student(temperature):
    teacher, student = random.standard_normal((2, 5, 4))
    targets, found = softmax(teacher / temperature, -1), softmax(student / temperature, -1)
    expected = temperature**2 * entropy(targets, found, axis=-1).mean()
    value = divergence(torch.tensor(teacher), torch.tensor(student), temperature)
    assert float(value) == pytest.approx(expected, rel=1e-12)
    assert float(value) != pytest.approx(temperature**2 * entropy(found, targets, axis=-1).mean(), rel=1e-3)


def test_t_squared_keeps_the_gradients_size():
    teacher, student = torch.tensor(0.01 * random.standard_normal((2, 5, 4)))
    sizes = []
    for temperature in (1.0, 10.0):
        leaf = student.clone().requires_grad_()
        (grad,) = torch.autograd.grad(divergence(teacher, leaf, temperature), leaf)
        sizes.append(float(grad.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)  # exact for small scores (Hinton et al. 2015, eq. 4)


@pytest.mark.parametrize("teacher", ["start", "pretrained"])
@pytest.mark.parametrize("on", ["support", "query", "both"])
def test_distilled_adds_the_divergence_from_its_teacher(teacher, on):
    objective = Distilled(of=MAML(), teacher=teacher, on=on, weight=0.7)
    learner, meta, task, problem = setting(objective)
    plain = MAML().problem(learner, meta, task, LOOP)
    theta = {name: tensor.detach() + 0.1 for name, tensor in problem.start(meta).items()}
    reference = {**meta, **learner.initial} if teacher == "pretrained" else meta
    for batch, part, added in (
        (task.support, "support", problem.support_loss(theta, meta, 0) - plain.support_loss(theta, meta, 0)),
        (task.query, "query", problem.query_loss(theta, meta) - plain.query_loss(theta, meta)),
    ):
        scores = learner.outputs(reference, batch), learner.outputs({**meta, **theta}, batch)
        expected = 0.7 * divergence(*scores, 2.0) if on in (part, "both") else torch.tensor(0.0).double()
        torch.testing.assert_close(added, expected)


def test_distilled_keeps_near_the_start():
    loop = InnerLoop(steps=20, step_size={"value": 0.1, "head": 0.1, "learn": "none"})
    distances = []
    for weight in (0.0, 10.0):
        learner, meta, task, problem = setting(Distilled(of=MAML(), weight=weight, on="support"), loop)
        end = adapt(problem, plain_gradient(problem), problem.start(meta)).theta
        scores = learner.outputs(meta, task.support), learner.outputs({**meta, **end}, task.support)
        distances.append(float(divergence(*scores, 1.0).detach()))
    assert distances[1] < 0.2 * distances[0]


def test_fgm_of_linear_scores_by_hand():
    """On features the loss is softmax regression, whose gradient is (p − y) W."""
    learner, meta, task, _ = setting(MAML())
    features = learner.features(meta, task.support).detach().numpy()
    weight, bias = (meta[name].detach().numpy() for name in ("head.weight", "head.bias"))
    onehot = np.eye(3)[task.support.targets.numpy()]
    uphill = (softmax(features @ weight.T + bias, -1) - onehot) @ weight
    moved = features + 0.3 * uphill / np.linalg.norm(uphill, axis=-1, keepdims=True)
    expected = -(onehot * log_softmax(moved @ weight.T + bias, -1)).sum(-1).mean()
    found = Adversarial(of=MAML(), radius=0.3).disturbed_loss(learner, meta, task.support)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-9)
    with torch.no_grad():
        constant = {name: tensor.detach() for name, tensor in meta.items()}
        assert float(Adversarial(radius=0.3).disturbed_loss(learner, constant, task.support)) == pytest.approx(expected)


def test_more_steps_hurt_no_less_and_stay_in_the_ball():
    learner, meta, task, _ = setting(MAML())
    plain = float(learner.loss(meta, task.support).detach())
    losses = [
        float(Adversarial(radius=0.5, steps=n).disturbed_loss(learner, meta, task.support).detach()) for n in (1, 8)
    ]
    assert plain < losses[0]
    assert losses[1] > plain
    # Scores are linear in the features, so no point of the ball is worse than what its radius allows.
    largest = 0.5 * float(torch.cdist(meta["head.weight"], meta["head.weight"]).max())
    assert losses[1] - plain < largest


@pytest.mark.parametrize(
    "objective",
    [
        Adversarial(of=MAML(), steps=3, on="both"),
        Distilled(of=ProtoMAML(), teacher="pretrained"),
        Distilled(of=MultiStep(of=MAML()), teacher="start"),
        MultiStep(of=DomainAdversarial(of=MAML(), weight=1.0)),
        Unlabelled(by="self_supervised"),
    ],
    ids=str,
)
def test_combinations_are_differentiated_exactly(objective):
    assert check_objective(objective).failures == ()


def test_domain_adversarial_walks_as_a_gradient_reversal_layer_does():
    class Reversal(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.view_as(value)

        @staticmethod
        def backward(ctx, gradient):
            return -0.5 * gradient

    objective = DomainAdversarial(of=MAML(), weight=0.5)
    loop = InnerLoop(steps=1, step_size={"value": 0.1, "head": 0.1, "learn": "none"})
    learner, meta, task, problem = setting(objective, loop)
    end = adapt(problem, plain_gradient(problem), problem.start(meta)).theta
    leaves = as_leaves(meta)
    features = torch.cat([learner.features(leaves, batch) for batch in (task.support, task.query)])
    logits = F.linear(Reversal.apply(features), leaves["domain.weight"], leaves["domain.bias"]).squeeze(-1)
    domains = torch.tensor([0.0] * 6 + [1.0] * 6).double()
    loss = learner.loss(leaves, task.support) + F.binary_cross_entropy_with_logits(logits, domains)
    grads = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    for name, tensor in end.items():
        scale = 0.5 if name.startswith("domain.") else 1.0  # the paper's classifier has λ times the rate of ours
        torch.testing.assert_close(tensor, meta[name] - 0.1 * scale * grads[name])


def test_saddle_points_in_every_exact_estimator():
    objective = DomainAdversarial(of=MAML(), weight=1.0)
    problem = setting(objective)[-1]
    assert relative_error(Unrolled().estimate(problem).gradient, Reverse().estimate(problem).gradient) < 1e-12
    with pytest.raises(ConfigError, match="has a saddle"):
        Implicit().estimate(problem)


def test_entropy_is_scipys_and_reads_no_labels():
    objective = Unlabelled()
    learner, meta, task, problem = setting(objective)
    scores = learner.outputs(meta, task.support).detach().numpy()
    expected = entropy(softmax(scores, -1), axis=-1).mean()
    assert float(problem.support_loss({}, meta, 0).detach()) == pytest.approx(expected, rel=1e-12)
    blind = Task(3, replace(task.support, targets=None), task.query)
    without = objective.problem(learner, meta, blind, LOOP)
    assert torch.equal(without.support_loss({}, meta, 0), problem.support_loss({}, meta, 0))


def test_learner_without_a_task_of_its_own_says_so():
    learner = LEARNERS.build({"name": "mlp"}).build(0)
    with pytest.raises(ConfigError, match="has no self-supervised loss of its own"):
        learner.self_supervised_loss(learner.initial, None)
