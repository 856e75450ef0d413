"""A stream learned by a group of two ranks, the base whole or in shards, against one process without an engine."""

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
from tests.continual.digits import run
from tests.continual.everything import EVERYTHING
from tests.ray.ranks import distance
from tests.small_models import FAMILIES, save_family

pytestmark = pytest.mark.ray

WORDS = ("card", "transfer", "my pin", "cash", "late", "limit", "top up", "fee", "rate")
REPLAY_AND_EWC = [{"name": "replay", "memory": 6, "ratio": 0.4}, {"name": "ewc", "strength": 5.0, "step": "proximal"}]
A_GEM = [{"name": "a_gem", "per_experience": 4, "batch": 7}]
FISHERS = [
    {"name": "ewc", "strength": 5.0, "step": "proximal", "fisher": kind} for kind in ("exact", "sampled", "batched")
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
    options = {"epochs": 2, "batch_size": 5, "learning_rate": 0.05, "head": "class_means", **training}
    built = [STRATEGIES.build(dict(options)) for options in strategies]
    loop = ContinualLoop(
        learner, of(), Training(**options), built, seed=3, scenario=scenario, curve=(0, 2), optimizer_in_parts=parts
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
        ([*REPLAY_AND_EWC, *A_GEM], "llama", 3, "class"),
        (EVERYTHING, "gpt2", 3, "class"),
        (FISHERS, "llama", 3, "task"),
    ],
)
def test_two_ranks_learn_what_one_does(pair, models, strategies, family, stage, scenario):
    config = learner_config(models, family)
    rows, curves, params = learned(config.build(0), strategies, scenario=scenario)
    found = pair.call(on_rank, config, stage, strategies, stream, stage > 0, scenario)
    for its_rows, its_curves, its_params in found:
        assert its_rows == rows and its_curves == curves
        assert distance(its_params, params) < 1e-5
    assert all(torch.equal(found[0][2][name], found[1][2][name]) for name in params)
