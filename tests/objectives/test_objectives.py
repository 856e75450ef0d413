"""What each objective learns, adapts and starts from; class means and their head against numpy and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestCentroid

from metacl.adaptation import InnerLoop
from metacl.learners.base import Task, as_leaves
from metacl.metagradients import Reverse, adapt, plain_gradient
from metacl.objectives import ANIL, MAML, ProtoMAML, class_means
from tests.helpers import TinyLearner

ALL = [MAML(), ANIL(), ProtoMAML()]
ADAPTER, HEAD = ["adapter.bias", "adapter.weight"], ["head.weight", "head.bias"]


def by_name(objective):
    return objective.registered_name


@pytest.fixture
def learner():
    return TinyLearner(seed=1, dtype=torch.float64)


@pytest.fixture
def task(learner):
    """Three ways; the classes have 2, 1 and 3 support examples."""
    labels = [2, 0, 1, 2, 0, 2]
    return Task(
        ways=3,
        support=learner.encode([f"support {i}" for i in range(6)], labels),
        query=learner.encode([f"query {i}" for i in range(5)], [0, 1, 2, 1, 0]),
    )


def meta_of(objective, learner, loop=None):
    meta = objective.meta_parameters(learner, loop or InnerLoop(steps=2), ways=3)
    return as_leaves({name: tensor.double() for name, tensor in meta.items()})


def test_class_means_equal_numpys():
    features = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([2, 0, 2, 1, 0, 2, 2])
    expected = np.stack([features.numpy()[targets.numpy() == label].mean(0) for label in range(3)])
    np.testing.assert_allclose(class_means(features, targets, 3).numpy(), expected, rtol=1e-14)


def test_class_means_are_differentiable():
    features = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(class_means(features, torch.tensor([0, 1, 1, 1]), 2).sum(), features)
    torch.testing.assert_close(gradient[:, 0], torch.tensor([1, 1 / 3, 1 / 3, 1 / 3], dtype=torch.float64))


def test_proto_maml_starts_with_negative_squared_distances(learner, task):
    meta = meta_of(ProtoMAML(), learner)
    theta = ProtoMAML().start(learner, meta, task)
    logits = learner.outputs(theta, task.query).detach().numpy()
    support, query = (learner.features(meta, batch).detach().numpy() for batch in (task.support, task.query))
    means = np.stack([support[task.support.targets.numpy() == label].mean(0) for label in range(3)])
    distances = ((query[:, None] - means[None]) ** 2).sum(-1)
    differences = logits + distances
    np.testing.assert_allclose(differences, differences[:, :1].repeat(3, axis=1), atol=1e-12)
    assert np.ptp(differences) > 0.1  # the constant is another one for every row
    nearest = NearestCentroid().fit(support, task.support.targets.numpy())
    np.testing.assert_array_equal(logits.argmax(-1), nearest.predict(query))


def test_proto_maml_start_is_differentiable_in_the_adapter(learner, task):
    meta = meta_of(ProtoMAML(), learner)

    def head_of(weight):
        start = ProtoMAML().start(learner, {**meta, "adapter.weight": weight}, task)
        return start["head.weight"], start["head.bias"]

    assert torch.autograd.gradcheck(head_of, (meta["adapter.weight"],))


def test_proto_maml_takes_any_number_of_ways(learner):
    support = learner.encode(["a", "b", "c", "d", "e"], [0, 1, 2, 3, 4])
    theta = ProtoMAML().start(learner, meta_of(ProtoMAML(), learner), Task(5, support, support))
    assert theta["head.weight"].shape == (5, learner.width)
    assert theta["head.bias"].shape == (5,)


@pytest.mark.parametrize("objective", [MAML(), ANIL()], ids=by_name)
def test_learned_head_starts_from_zeros(objective, learner):
    learned = objective.learned(learner, ways=4)
    assert list(learned) == ADAPTER + HEAD
    assert torch.equal(learned["head.weight"], torch.zeros(4, learner.width))
    assert torch.equal(learned["head.bias"], torch.zeros(4))
    assert all(torch.equal(learned[name], learner.initial[name]) for name in ADAPTER)


def test_proto_maml_learns_no_head(learner):
    assert list(ProtoMAML().learned(learner, ways=4)) == ADAPTER


@pytest.mark.parametrize(
    ("objective", "inner"),
    [(MAML(), ADAPTER + HEAD), (ANIL(), HEAD), (ProtoMAML(), ADAPTER + HEAD)],
    ids=["maml", "anil", "proto_maml"],
)
def test_what_adapts_is_known_before_any_task(objective, inner, learner, task):
    meta = meta_of(objective, learner)
    assert list(objective.start(learner, meta, task)) == inner
    assert objective.inner_names(objective.learned(learner, 3)) == inner
    assert [name for name in meta if name.startswith("step_size.")] == [f"step_size.{name}" for name in inner]


@pytest.mark.parametrize("objective", ALL, ids=by_name)
def test_only_what_adapts_moves(objective, learner, task):
    meta = meta_of(objective, learner)
    problem = objective.problem(learner, meta, task, InnerLoop(steps=3))
    start = {name: tensor.detach() for name, tensor in problem.start(meta).items()}
    end = adapt(problem, plain_gradient(problem), start).theta
    assert list(end) == list(start)
    # A head of zeros sends no gradient to the features in the first step, but does in the next.
    assert all((end[name] - start[name]).abs().max() > 1e-6 for name in end)
    assert end.keys() >= set(HEAD)
    assert (set(end) & set(ADAPTER) == set()) == isinstance(objective, ANIL)


@pytest.mark.parametrize("objective", ALL, ids=by_name)
def test_everything_learned_gets_a_meta_gradient(objective, learner, task):
    meta = meta_of(objective, learner)
    problem = objective.problem(learner, meta, task, InnerLoop(steps=2))
    gradient = Reverse().estimate(problem).gradient
    assert list(gradient) == list(meta)
    assert [name for name, tensor in gradient.items() if not tensor.abs().max() > 0] == []


def test_losses_see_the_adapted_parameters_over_the_learned(learner, task):
    meta = meta_of(ANIL(), learner)
    problem = ANIL().problem(learner, meta, task, InnerLoop(steps=1))
    head = {"head.weight": torch.ones(3, learner.width, dtype=torch.float64), "head.bias": torch.arange(3.0).double()}
    everything = {**{name: meta[name] for name in ADAPTER}, **head}
    assert torch.equal(problem.support_loss(head, meta, 0), learner.loss(everything, task.support))
    assert torch.equal(problem.query_loss(head, meta), learner.loss(everything, task.query))
    # The loss of a head of zeros over three ways is that of a guess.
    assert problem.query_loss({}, meta).item() == pytest.approx(np.log(3), rel=1e-12)

