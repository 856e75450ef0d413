"""La-MAML and OML along a stream, against their algorithms written down in plain torch, and what they are for."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from metacl.continual.experience import Examples, Experience, Stream
from metacl.continual.loop import ContinualLoop, Trained
from metacl.continual.strategies import STRATEGIES, stored
from metacl.continual.strategies.base import held
from metacl.continual.training import Training
from metacl.continual.worker import make_loop
from metacl.errors import ConfigError, TrainingError
from metacl.learners import ModuleLearner
from tests.continual.digits import digits_loop, run

BATCH = 4


def smooth_stream():
    random = np.random.default_rng(0)
    parts = [Examples(random.standard_normal((9, 5)), tuple(random.integers(0, 3, 9).tolist())) for _ in range(4)]
    return Stream((Experience("a", *parts[:2]), Experience("b", *parts[2:])), ("0", "1", "2"))


def smooth_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = {"body": nn.Linear(5, 6), "bend": nn.Tanh(), "head": nn.Linear(6, 3)}
        network = nn.Sequential()
        for name, layer in layers.items():
            network.add_module(name, layer)
        return network.double()


def learned(name, *others, learning_rate=0.1, **options):
    """Parameters and step sizes, by the module's names, after both experiences; beside `others`."""
    loop = ContinualLoop(
        ModuleLearner(smooth_network(), F.cross_entropy, head="head"),
        smooth_stream(),
        Training(batch_size=BATCH, shuffle=False, learning_rate=learning_rate),
        # The whole past is in the memory and asked at each step, so nothing is drawn.
        [STRATEGIES.build(one) for one in ({"name": name, "memory": 100, "replay": 100, **options}, *others)],
    )
    standing = run(loop)
    alpha = held(standing.states[0], "alpha")
    return tuple({n.removeprefix("module."): t for n, t in named.items()} for named in (standing.params, alpha))


def by_hand(second_order, inner, alpha, eta, update, replayed=False):
    """Algorithm 1 of Gupta et al. 2020, batch by batch; θ is updated by `update(θ, gradient, α)`.

    replayed : the experiences before are in each batch, too, which asks about them but learns the new ones only.
    """
    network = smooth_network()
    theta = {name: p.detach().clone() for name, p in network.named_parameters()}
    alpha = {name: torch.full_like(p, alpha) for name, p in theta.items() if inner(name)}
    past, finished = [], []

    def loss(params, examples):
        x, y = zip(*examples, strict=True)
        return F.cross_entropy(functional_call(network, params, (torch.stack(x),)), torch.stack(y))

    for experience in smooth_stream().experiences:
        pairs = list(zip(torch.tensor(experience.train.inputs), torch.tensor(experience.train.labels), strict=True))
        for first in range(0, len(pairs), BATCH):
            batch = pairs[first : first + BATCH]
            theta = {name: p.detach().requires_grad_() for name, p in theta.items()}
            alpha = {name: a.detach().requires_grad_() for name, a in alpha.items()}
            fast = dict(theta)
            for example in batch:
                names = list(alpha)
                grads = torch.autograd.grad(loss(fast, [example]), [fast[n] for n in names], create_graph=second_order)
                fast = {**fast, **{n: fast[n] - alpha[n] * g for n, g in zip(names, grads, strict=True)}}
            meta = loss(fast, batch + past + finished)
            found = torch.autograd.grad(meta, [*theta.values(), *alpha.values()])
            gradient = dict(zip(theta, found, strict=False))
            alpha = {n: a - eta * g for (n, a), g in zip(alpha.items(), found[len(theta) :], strict=True)}
            theta = update(theta, gradient, alpha)
            past += batch
        finished += pairs if replayed else []
    return theta, alpha


@pytest.mark.parametrize("estimator", ["first_order", "reverse"])
@pytest.mark.parametrize("synchronous", [False, True])
def test_la_maml_is_its_algorithm(estimator, synchronous):
    options = {"step_size": 0.05, "step_size_learning_rate": 4.0, "estimator": estimator}
    found, sizes = learned("la_maml", synchronous=synchronous, **options)

    def update(theta, gradient, alpha):
        rates = {name: 0.1 if synchronous else a.clamp(min=0) for name, a in alpha.items()}
        return {name: p - rates[name] * gradient[name] for name, p in theta.items()}

    theta, alpha = by_hand(estimator == "reverse", lambda name: True, 0.05, 4.0, update)
    for name, tensor in theta.items():
        assert torch.allclose(found[name], tensor, atol=1e-8, rtol=0)
        assert torch.allclose(sizes[name], alpha[name], atol=1e-8, rtol=0)
    assert any(bool((a < 0).any()) for a in alpha.values())  # so that clipping was asked


def test_what_is_replayed_is_asked_and_not_learned_as_if_it_were_new():
    whole_past = {"name": "replay", "memory": 100, "ratio": 25.0}
    found, _ = learned("la_maml", whole_past, step_size=0.05, step_size_learning_rate=0, synchronous=True)

    def update(theta, gradient, alpha):
        return {name: p - 0.1 * gradient[name] for name, p in theta.items()}

    theta, _ = by_hand(False, lambda name: True, 0.05, 0.0, update, replayed=True)
    assert all(torch.allclose(found[name], tensor, atol=1e-8, rtol=0) for name, tensor in theta.items())


def test_oml_is_its_algorithm():
    found, _ = learned("oml", step_size=0.2)

    def update(theta, gradient, alpha):
        return {name: p - 0.1 * gradient[name] for name, p in theta.items()}

    theta, _ = by_hand(True, lambda name: name.startswith("head"), 0.2, 0.0, update)
    assert all(torch.allclose(found[name], tensor, atol=1e-8, rtol=0) for name, tensor in theta.items())


ONLINE = {"epochs": 1, "batch_size": 10, "shuffle": True}


def test_la_maml_forgets_less_online():
    # Domain-incremental and one pass, as in the paper's table 1; fine-tuning at two rates.
    ahead = {"name": "la_maml", "arrive": 2, "replay": 30, "step_size_learning_rate": 0.3}
    numbers = np.empty((3, 2, 2))  # row, seed, accuracy and what was forgotten
    for row, (strategies, rate) in enumerate((([ahead], 0.1), ([], 0.1), ([], 0.03))):
        for seed in range(2):
            loop = digits_loop("domain", strategies, seed=seed, learning_rate=rate, **ONLINE)
            r = np.array(run(loop).record.rows)
            numbers[row, seed] = r[-1].mean(), np.mean([r[i, i] - r[-1, i] for i in range(4)])
    assert (numbers[0, :, 1] < numbers[1:, :, 1] - 0.1).all(), numbers
    assert (numbers[0, :, 0].mean() > numbers[1:, :, 0].mean(1)).all(), numbers


def test_memory_is_offered_every_example_once():
    loop = digits_loop("class", [{"name": "la_maml", "memory": 30, "arrive": 5}], **{**ONLINE, "epochs": 2})
    first = loop.learn(loop.begin())
    assert int(first.states[0]["offered"]) == len(loop.stream.experiences[0].train)
    assert len({*stored(first.states[0])}) == 30
    second = loop.learn(first)
    assert {k for k, _ in stored(second.states[0])} == {0, 1}
    again = loop.learn(loop.learn(loop.begin()))
    assert all(torch.equal(second.params[n], t) for n, t in again.params.items())


def test_penalties_are_descended_beside_it():
    # One step from the same place, away from EWC's anchor: the penalty moves it as it moves plain descent.
    ahead, ewc = {"name": "la_maml", "synchronous": True}, {"name": "ewc", "strength": 2.0, "step": "explicit"}

    def loop(*strategies):
        learner = ModuleLearner(smooth_network(), F.cross_entropy)
        return ContinualLoop(
            learner, smooth_stream(), Training(batch_size=9), [STRATEGIES.build(dict(s)) for s in strategies]
        )

    first = loop(ahead, ewc).learn(loop(ahead, ewc).begin())
    moved = {name: tensor + 0.1 for name, tensor in first.params.items()}
    states = {"la_maml": first.states[0], "ewc": first.states[1]}
    ends = [
        loop(*listed).fit(1, Trained(moved, tuple(states[s["name"]] for s in listed))).params
        for listed in ([ahead, ewc], [ahead], [ewc], [])
    ]
    for name in moved:
        added, alone, plain, neither = (end[name] for end in ends)
        assert torch.allclose(added - alone, plain - neither, atol=1e-12) and not torch.equal(added, alone)
        assert not torch.equal(alone, neither)


@pytest.mark.parametrize("estimator", ["reptile", "implicit", "annealed_order", {"name": "reverse", "compile": True}])
def test_estimators_that_do_not_descend_what_is_asked(estimator):
    with pytest.raises(ConfigError, match="does not descend what a look ahead asks"):
        STRATEGIES.build({"name": "la_maml", "estimator": estimator})


def test_one_strategy_answers_tests(config):
    made = config(experiences=1, strategies=["nearest_class_mean", "retrieval"])
    with pytest.raises(ConfigError, match="nearest_class_mean and retrieval answer tests in the model's place each"):
        make_loop(made, 0, made.stream.open(0), made.learner.build(0))


def test_what_cannot_be_is_said(config):
    with pytest.raises(ConfigError, match="oml and la_maml descend an objective of their own"):
        ContinualLoop(
            ModuleLearner(smooth_network(), F.cross_entropy, head="head"),
            smooth_stream(),
            Training(),
            [STRATEGIES.build({"name": "oml"}), STRATEGIES.build({"name": "la_maml"})],
        )
    with pytest.raises(ConfigError, match="this learner has none"):
        digits_loop("class", [{"name": "oml"}])
    with pytest.raises(ConfigError, match=r"oml differentiates twice.*learner\.attention=eager"):
        learner = config().learner.to_dict()
        config(learner={**learner, "attention": "sdpa"}, strategies=["oml"])
    with pytest.raises(TrainingError, match=r"after looking ahead is not finite.*Lower the step_size of la_maml"):
        learned("la_maml", step_size=1e200, step_size_learning_rate=1e300)


def test_new_classes_begin_with_the_first_step_size(config):
    made = {"strategies": [{"name": "la_maml", "head_step_size": 0.3, "arrive": 3}], "training": {"batch_size": 6}}
    loops = [
        make_loop(c, 0, c.stream.open(0), c.learner.build(0)) for c in (config(experiences=n, **made) for n in (1, 2))
    ]
    short = loops[0].learn(loops[0].begin())
    longer = loops[1].extended(short)
    sizes = [held(standing.states[0], "alpha")["head.weight"] for standing in (short, longer)]
    assert torch.equal(sizes[1][:2], sizes[0]) and bool((sizes[1][2:] == 0.3).all()) and len(sizes[1]) == 4
    assert len(loops[1].learn(longer).record.rows) == 2
