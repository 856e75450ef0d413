"""A stream learned by a group of two ranks, the base whole or in shards, against one process without an engine."""

from functools import partial

import pytest
import torch

from metacl.adaptation import INNER_OPTIMIZERS
from metacl.continual.experience import Examples, Experience, Stream
from metacl.continual.fisher import fisher
from metacl.continual.loop import ContinualLoop
from metacl.continual.parted_optimizer import displacement_in_parts
from metacl.continual.strategies import STRATEGIES
from metacl.continual.training import Training
from metacl.learners import CausalLanguageModelConfig, TextClassifierConfig
from metacl.learners.adapter import AdapterConfig
from metacl.learners.ranks import RankGroup
from tests.continual.digits import run
from tests.continual.everything import EVERYTHING
from tests.ray.ranks import distance
from tests.small_models import FAMILIES, save_family

pytestmark = pytest.mark.ray

WORDS = ("card", "transfer", "my pin", "cash", "late", "limit", "top up", "fee", "rate")
REPLAY_AND_EWC = [{"name": "replay", "memory": 6, "ratio": 0.4}, {"name": "ewc", "strength": 5.0, "examples": 5}]
A_GEM = [{"name": "a_gem", "per_experience": 4, "batch": 7}]
FISHERS = [
    {"name": "ewc", "strength": 5.0, "step": "proximal", "fisher": kind, "examples": 3}
    for kind in ("exact", "sampled", "batched")
]


def stream():
    """Three experiences of two classes; counts are odd and lengths differ, so that nothing divides evenly."""
    experiences = []
    for k in range(3):
        texts = [
            (f"{'where is it ' * (i % 3)}{WORDS[(3 * k + 2 * c + i) % 9]} {c}", 2 * k + c)
            for i in range(7)
            for c in range(2)
        ]
        parts = [
            Examples([text for text, _ in some], tuple(label for _, label in some)) for some in (texts[:11], texts[9:])
        ]
        experiences.append(Experience(f"e{k}", *parts))
    return Stream(tuple(experiences), tuple(f"class {c}" for c in range(6)))


def domains():
    """The same texts without classes."""
    experiences = [
        Experience(e.name, *(Examples(part.inputs, (0,) * len(part.inputs)) for part in (e.train, e.test)))
        for e in stream().experiences
    ]
    return Stream(tuple(experiences))


def learned(learner, strategies, of=stream, parts=False, scenario="class", **training):
    """All of the stream: R, and what is trained at the end."""
    options = {"batch_size": 5, "learning_rate": 0.05, "head": "class_means", **training}
    built = [STRATEGIES.build(dict(choice)) for choice in strategies]
    loop = ContinualLoop(
        learner, of(), Training(**options), built, seed=3, scenario=scenario, curve=(2,), optimizer_in_parts=parts
    )
    standing = run(loop)
    return standing.record.to_dict()["rows"], standing.record.to_dict()["curves"], standing.params


def on_rank(rank, config, stage, *arguments, **options):
    return learned(config.build(0, engine=rank.engine(stage)), *arguments, **options)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {family: save_family(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


def learner_config(models, family, **changes):
    adapter = AdapterConfig(rank=3, targets=FAMILIES[family][1])
    options = {"max_length": 24, "adapter": adapter, "logit_scale": 3.0, **changes}
    return TextClassifierConfig(model=str(models[family]), **options)


@pytest.mark.parametrize(
    ("strategies", "family", "stage", "scenario"),
    [
        ([], "bert", 0, "class"),
        (REPLAY_AND_EWC, "bert", 0, "class"),
        (A_GEM, "bert", 0, "seen"),
        (FISHERS, "bert", 0, "task"),
        (EVERYTHING, "gpt2", 3, "class"),
        (FISHERS, "llama", 3, "task"),
    ],
    ids=["nothing", "replay and ewc", "a_gem", "fishers", "everything, sharded", "fishers, sharded"],
)
def test_two_ranks_learn_what_one_does(pair, models, strategies, family, stage, scenario):
    config = learner_config(models, family)
    rows, curves, params = learned(config.build(0), strategies, scenario=scenario)
    found = pair.call(on_rank, config, stage, strategies, stream, stage > 0, scenario)
    for its_rows, its_curves, its_params in found:
        assert its_rows == rows and its_curves == curves
        assert distance(its_params, params) < 1e-5
    assert all(torch.equal(found[0][2][name], found[1][2][name]) for name in params)


def test_activations_below_the_first_adapted_layer_are_exchanged(pair, models):
    """Each rank computes those of a part of the examples, and a minibatch may ask any rank for any of them."""
    config = learner_config(models, "bert")
    config = config.model_copy(update={"adapter": AdapterConfig(rank=2, targets=("query",), last_layers=1)})
    rows, _, params = learned(config.build(0), REPLAY_AND_EWC)
    for found in pair.call(on_rank, config, 3, REPLAY_AND_EWC):
        assert found[0] == rows and distance(found[2], params) < 1e-5


def test_text_domains_of_a_sharded_language_model(pair, tmp_path_factory):
    folder = save_family("llama", tmp_path_factory.mktemp("causal") / "llama", causal=True)
    adapter = AdapterConfig(rank=2, targets=FAMILIES["llama"][1])
    config = CausalLanguageModelConfig(model=str(folder), max_length=24, adapter=adapter)
    options = {"of": domains, "head": "zeros"}
    rows, _, params = learned(config.build(0), REPLAY_AND_EWC, **options)
    for found in pair.call(on_rank, config, 3, REPLAY_AND_EWC, **options):
        assert torch.allclose(torch.tensor(found[0]), torch.tensor(rows), rtol=1e-6)
        assert distance(found[2], params) < 1e-5


def test_the_bits_do_not_depend_on_the_stage(pair, models):
    """With Adam, which has the state that lies in parts."""
    config = learner_config(models, "bert")
    options = {"optimizer": "adam", "learning_rate": 0.01}
    whole, *others = [
        pair.call(on_rank, config, stage, REPLAY_AND_EWC, stream, stage > 0, **options)[0] for stage in (0, 1, 2, 3)
    ]
    for other in others:
        assert other[:2] == whole[:2]
        assert all(torch.equal(other[2][name], tensor) for name, tensor in whole[2].items())


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_an_optimizer_in_parts(pair, name):
    """Two steps of odd sizes: the bits of a whole one, and half of its state."""

    def steps(displacement):
        generator = torch.Generator().manual_seed(0)
        shapes = {"a": (3, 5), "b": (1,), "c": (7,)}
        params = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
        rates = {key: torch.tensor(0.1, dtype=torch.float64) for key in params}
        # La-MAML has one for every number.
        rates |= {"a": torch.rand((3, 5), generator=generator), "c": torch.rand(1, generator=generator)}
        state, moved = {}, []
        for step in range(2):
            gradient = {key: torch.randn(tensor.shape, generator=generator) for key, tensor in params.items()}
            found, state = displacement(params, gradient, state, rates, step)
            params = {key: tensor - found[key] for key, tensor in params.items()}
            moved.append(found)
        return moved, state

    optimizer = INNER_OPTIMIZERS.build({"name": name, **({"momentum": 0.9} if name == "sgd" else {})})
    moved, _ = steps(optimizer.displacement)

    def in_parts(rank):
        return steps(partial(displacement_in_parts, optimizer, RankGroup(rank.rank, rank.size)))

    for found, state in pair.call(in_parts):
        for mine, whole in zip(found, moved, strict=True):
            assert all(torch.equal(mine[key], whole[key]) and mine[key].shape == whole[key].shape for key in whole)
        for slot in state.values():
            assert {key: tensor.shape for key, tensor in slot.items()} == {"a": (8,), "b": (1,), "c": (4,)}


def test_each_rank_takes_a_part_of_the_examples_of_a_fisher(pair, models):
    """Eleven examples: six forwards on each rank, not eleven."""
    config = learner_config(models, "bert")

    def forwards(learner):
        loop = ContinualLoop(learner, stream(), Training(), seed=0)
        moment = loop._moment
        addresses = moment.pool.stream.train_addresses(0)
        calls = []
        moment.minibatch(addresses)  # encoded before it is counted
        hook = learner.module.register_forward_hook(lambda *_: calls.append(1))
        found = fisher(moment, loop.start, addresses, "empirical", 5, lambda same: same)
        hook.remove()
        return len(calls), found

    count, expected = forwards(config.build(0))
    assert count == 11
    for its_count, found in pair.call(lambda rank: forwards(config.build(0, engine=rank.engine(3)))):
        assert its_count == 6
        assert distance(found, expected) < 1e-5
