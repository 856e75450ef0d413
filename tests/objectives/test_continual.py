"""Objectives on sequences: what arrives when, what is replayed, what is asked; each against the loss written out."""

import pytest
import torch
import torch.nn.functional as F

from metacl.adaptation import InnerLoop
from metacl.errors import ConfigError
from metacl.learners import ModuleLearner
from metacl.learners.base import Batch, Group, Task, as_leaves
from metacl.metagradients import Reptile, Reverse, adapt, plain_gradient
from metacl.objectives import ANML, OML, LaMAML, ProtoSequence, SequenceMAML
from metacl.tasks import EpisodeShape, TaskAddress
from metacl.testing.tiny import TinyLearner, spread
from tests.metagradients.problems import relative_error

LOOP = InnerLoop(steps=6, step_size={"value": 0.1, "head": 0.1, "learn": "none"})


@pytest.fixture
def learner():
    return TinyLearner()


@pytest.fixture
def task(learner):
    """Three ways, six support examples."""
    made = learner.task(3)
    return Task(made.ways, made.support, made.query, TaskAddress("train", 0, 5, 2))


def meta_of(objective, learner):
    return spread(objective.meta_parameters(learner, LOOP, 3))


def test_select_takes_examples_out_of_their_groups():
    inputs = torch.arange(10.0).unsqueeze(-1)
    # By length: examples 3, 0, 4 in one group, 1 and 2 in the other.
    groups = [Group({"x": inputs[[3, 0, 4]]}, None), Group({"x": inputs[[1, 2]]}, inputs[[1, 2]])]
    batch = Batch(groups, torch.tensor([3, 0, 4, 1, 2]).argsort(), torch.tensor([5, 6, 7, 8, 9]))
    found = batch.select([4, 2, 0, 2])
    concatenated = torch.cat([group.inputs["x"] for group in found.groups])
    assert concatenated[found.order].flatten().tolist() == [4, 2, 0, 2]
    assert found.targets.tolist() == [9, 7, 5, 7]
    assert found.groups[1].prefix.flatten().tolist() == [2, 2]
    assert len(batch.select([1]).groups) == 1


def test_one_pass_is_online_gradient_descent(learner, task):
    objective = SequenceMAML()
    meta = meta_of(objective, learner)
    theta = {name: tensor.detach().clone() for name, tensor in meta.items()}
    for place in range(6):
        leaves = as_leaves(theta)
        logits = learner.outputs(leaves, task.support)[place : place + 1]
        loss = F.cross_entropy(logits, task.support.targets[place : place + 1])
        grads = torch.autograd.grad(loss, list(leaves.values()))
        theta = {name: tensor - 0.1 * g for (name, tensor), g in zip(theta.items(), grads, strict=True)}
    problem = objective.problem(learner, meta, task, LOOP)
    end = adapt(problem, plain_gradient(problem), problem.start(meta)).theta
    assert relative_error({name: tensor.detach() for name, tensor in end.items()}, theta) < 1e-12


def test_replay_draws_earlier_examples_from_the_address(learner, task):
    asked = []

    class Watching(SequenceMAML):
        def loss(self, learner, params, batch):
            asked.append([int(row) for row in (batch.input[:, None] == task.support.input).all(-1).float().argmax(-1)])
            return super().loss(learner, params, batch)

    objective = Watching(replay=2)
    params = meta_of(objective, learner)
    for step in range(6):
        objective.support_loss(learner, params, task, step)
    assert [places[0] for places in asked] == [0, 1, 2, 3, 4, 5]
    assert [len(places) for places in asked] == [1, 2, 3, 3, 3, 3]
    assert all(max(places[1:], default=-1) < step for step, places in enumerate(asked))
    assert all(len(set(places)) == len(places) for places in asked)
    again = list(asked)
    asked.clear()
    for step in range(6):
        objective.support_loss(learner, params, task, step)
    assert asked == again
    asked.clear()
    for step in range(6):
        other = Task(task.ways, task.support, task.query, TaskAddress("train", 0, 5, 3))
        objective.support_loss(learner, params, other, step)
    assert asked != again


def test_mer_moves_towards_the_end_of_the_replayed_sequence(learner, task):
    objective = SequenceMAML(replay=3)
    meta = meta_of(objective, learner)
    problem = objective.problem(learner, meta, task, LOOP)
    end = adapt(problem, plain_gradient(problem), problem.start(meta)).theta
    found = Reptile().estimate(problem).gradient
    assert relative_error(found, {name: (meta[name] - end[name]).detach() for name in meta}) < 1e-12


def test_oml_asks_about_the_sequence_and_the_rest(learner, task):
    meta = meta_of(OML(), learner)
    problem = OML().problem(learner, meta, task, LOOP)
    assert sorted(problem.start(meta)) == ["head.bias", "head.weight"]
    both = [learner.outputs(meta, batch) for batch in (task.support, task.query)]
    targets = torch.cat([task.support.targets, task.query.targets])
    expected = F.cross_entropy(torch.cat(both), targets)
    torch.testing.assert_close(problem.query_loss({}, meta), expected)


def test_anml_gates_start_open_and_close_features(learner, task):
    plain = meta_of(OML(), learner)
    meta = {**plain, "gate.weight": torch.zeros(3, 3).double(), "gate.bias": torch.zeros(3).double()}
    torch.testing.assert_close(ANML().outputs(learner, meta, task.query), learner.outputs(plain, task.query))
    shut = {**meta, "gate.bias": torch.tensor([0.0, -50.0, 0.0]).double()}
    without = {**plain, "head.weight": plain["head.weight"] * torch.tensor([1.0, 0.0, 1.0])}
    torch.testing.assert_close(ANML().outputs(learner, shut, task.query), learner.outputs(without, task.query))


def test_anml_needs_features():
    bare = ModuleLearner(torch.nn.Linear(2, 2), F.cross_entropy)
    with pytest.raises(ConfigError, match="anml gates feature vectors, and a ModuleLearner has none"):
        ANML().meta_parameters(bare, LOOP, 2)


def test_la_maml_is_the_sum_of_look_aheads(learner, task):
    """The loss on all that was seen, after every step but the last, and the query at the end; by plain autograd."""
    meta = meta_of(LaMAML(), learner)
    theta, total = dict(meta), torch.tensor(0.0).double()
    for step in range(6):
        if step:
            logits = learner.outputs(theta, task.support)[:step]
            total = total + F.cross_entropy(logits, task.support.targets[:step])
        loss = F.cross_entropy(learner.outputs(theta, task.support)[[step]], task.support.targets[[step]])
        grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        theta = {name: tensor - 0.1 * g for (name, tensor), g in zip(theta.items(), grads, strict=True)}
    total = total + learner.loss(theta, task.query)
    expected = dict(zip(meta, torch.autograd.grad(total, list(meta.values())), strict=True))
    found = Reverse().estimate(LaMAML().problem(learner, meta, task, LOOP))
    assert found.query_loss == pytest.approx(float(total.detach()), rel=1e-12)
    assert relative_error(found.gradient, expected) < 1e-12


def test_proto_sequence_is_a_small_stream_from_class_means():
    """Written out: heads from means, each step on its experience's share among the classes met, then all asked."""
    learner = TinyLearner()
    objective = ProtoSequence(experiences=2, steps_each=2)
    loop = InnerLoop(steps=4, step_size={"value": 0.1, "head": 0.1, "learn": "none"})
    # Class by class, as episodes are: four classes of two examples, so two classes an experience, four examples.
    labels = [0, 0, 1, 1, 2, 2, 3, 3]
    support, query = (learner.encode([f"{p} {i}" for i in range(8)], labels) for p in ("learned", "asked"))
    task = Task(4, support, query)
    meta = spread(objective.meta_parameters(learner, loop, 4))
    means = learner.features(meta, support).reshape(4, 2, -1).mean(1)
    adapter = {name: tensor.clone() for name, tensor in meta.items()}  # the means are of the start, not of what adapts
    theta = {**adapter, "head.weight": 2 * means, "head.bias": -(means**2).sum(-1)}
    for places, met in (([0, 2], 2), ([1, 3], 2), ([4, 6], 4), ([5, 7], 4)):
        logits = learner.outputs(theta, support)[places, :met]
        loss = F.cross_entropy(logits, torch.tensor([labels[place] for place in places]))
        grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        theta = {name: tensor - 0.1 * g for (name, tensor), g in zip(theta.items(), grads, strict=True)}
    asked = F.cross_entropy(learner.outputs(theta, query), torch.tensor(labels))
    expected = dict(zip(meta, torch.autograd.grad(asked, list(meta.values())), strict=True))
    found = Reverse().estimate(objective.problem(learner, meta, task, loop))
    assert found.query_loss == pytest.approx(float(asked.detach()), rel=1e-12)
    assert relative_error(found.gradient, expected) < 1e-12


@pytest.mark.parametrize(
    ("objective", "episodes", "steps", "told"),
    [
        ({"experiences": 4}, {"ways": {"min": 2, "max": 5}}, 4, r"episodes\.ways: 2 classes .* 4 experiences"),
        (
            {"steps_each": 3},
            {"ways": 4, "shots": {"min": 2, "max": 5}},
            9,
            r"steps_each: .* 2 examples for its 3 steps",
        ),
        ({"steps_each": 2}, {"ways": 3, "shots": 2}, 5, r"inner\.steps: 5 end before .* inner\.steps=6"),
        ({"steps_each": 2}, {"ways": 3, "shots": 2}, 6, None),
    ],
)
def test_proto_sequence_has_examples_and_steps_for_every_experience(objective, episodes, steps, told):
    check = lambda: ProtoSequence(**objective).check_fits(EpisodeShape(**episodes), InnerLoop(steps=steps))  # noqa: E731
    if told is None:
        check()
    else:
        with pytest.raises(ConfigError, match=told):
            check()
