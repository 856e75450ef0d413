"""Inner loops over every parameter of a model, each of which lies in parts on two ranks, against one process."""

import pytest
import torch

from metacl.adaptation import InnerLoop
from metacl.learners import CausalLanguageModelConfig, Task, TextClassifierConfig
from metacl.learners.base import HEAD, STEP_SIZE, as_leaves
from metacl.learners.live_memory import LiveMemory
from metacl.metagradients import FiniteDifference, FirstOrder, Reptile, Reverse
from metacl.objectives import OBJECTIVES
from tests.ray.ranks import QUERY, SUPPORT, distance
from tests.small_models import FAMILIES, save_family

pytestmark = pytest.mark.ray

LOOPS = {
    "sgd": InnerLoop(steps=3, step_size={"value": 0.01, "head": 0.05, "learn": "tensor"}),
    "adam": InnerLoop(
        steps=2,
        proximal=0.5,
        optimizer={"name": "adamw", "eps": 1e-3},
        step_size={"value": 0.003, "head": 0.003, "learn": "scalar"},
    ),
    "each number": InnerLoop(steps=2, step_size={"value": 0.01, "head": 0.05, "learn": "parameter"}),
}


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    return {family: save_family(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


def learner_config(folder, **changes):
    return TextClassifierConfig(model=str(folder), max_length=16, adapter=None, logit_scale=3.0, **changes)


def gradient(learner, estimator, loop, objective="maml"):
    """g for one task, from a start where the head is not zero: the body would get no gradient."""
    objective = OBJECTIVES.build({"name": objective})
    generator = torch.Generator().manual_seed(0)
    meta = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator) if name.startswith(HEAD) else tensor
        for name, tensor in objective.meta_parameters(learner, loop, 3).items()
    }
    task = Task(3, learner.encode(*SUPPORT), learner.encode(*QUERY))
    return estimator.estimate(objective.problem(learner, as_leaves(meta), task, loop)).gradient


def on_rank(rank, config, *choices):
    return gradient(config.build(0, engine=rank.engine(3)), *choices)


def joined(parts, like):
    """What the ranks hold as whole tensors. What every rank holds must be the same there."""
    first, second = parts
    whole = {}
    for name, tensor in like.items():
        if name.startswith((HEAD, STEP_SIZE)) and first[name].shape == tensor.shape:
            assert torch.equal(first[name], second[name])
            whole[name] = first[name]
        else:
            assert first[name].numel() == -(-tensor.numel() // 2)
            both = torch.cat([first[name], second[name]])
            assert not both[tensor.numel() :].any()
            whole[name] = both[: tensor.numel()].view(tensor.shape)
    return whole


@pytest.mark.parametrize(
    ("family", "estimator", "loop", "bound"),
    [
        ("llama", FirstOrder(), "sgd", 1e-5),
        ("gpt2", FirstOrder(), "adam", 1e-5),
        ("bert", Reptile(), "sgd", 1e-5),
        ("qwen", Reptile(), "adam", 1e-5),
        ("llama", FiniteDifference(), "sgd", 1e-3),
        ("gpt2", FiniteDifference(), "each number", 1e-3),
        ("bert", FiniteDifference(), "adam", 1e-3),
        ("llama", Reverse(), "sgd", 1e-5),
        ("gpt2", Reverse(), "adam", 1e-5),
        ("bert", Reverse(allowance="all"), "each number", 1e-5),
    ],
    ids=lambda value: getattr(value, "registered_name", str(value)),
)
def test_the_gradient_of_one_process(pair, models, family, estimator, loop, bound):
    config = learner_config(models[family])
    expected = gradient(config.build(0), estimator, LOOPS[loop])
    parts = pair.call(on_rank, config, estimator, LOOPS[loop])
    assert distance(joined(parts, expected), expected) < bound


def test_a_head_from_the_class_means(pair, models):
    """θ_0 depends on the parts through a forward of its own."""
    config = learner_config(models["mistral"])
    expected = gradient(config.build(0), Reverse(), LOOPS["sgd"], "proto_maml")
    parts = pair.call(on_rank, config, Reverse(), LOOPS["sgd"], "proto_maml")
    assert distance(joined(parts, expected), expected) < 1e-5


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_causal_language_model(pair, tmp_path_factory, family):
    """With an output matrix of its own, and with one that is the embedding, too."""
    folder = save_family(family, tmp_path_factory.mktemp("causal") / family, causal=True)
    config = CausalLanguageModelConfig(model=str(folder), max_length=16, adapter=None)
    expected = gradient(config.build(0), FirstOrder(), LOOPS["sgd"])
    parts = pair.call(on_rank, config, FirstOrder(), LOOPS["sgd"])
    assert distance(joined(parts, expected), expected) < 1e-5


def test_no_rank_holds_more_than_its_parts_and_one_matrix(pair, models):
    """Counted as every tensor that an operation makes while loading; and what is whole at a time while computing."""

    def count(rank, config):
        engine = rank.engine(3)
        with LiveMemory() as loading:
            learner = config.build(0, engine=engine)
        held = {id(tensor.untyped_storage()): tensor.numel() for tensor in learner.initial.values()}
        for parameter in learner.module.parameters():
            for tensor in (parameter.data, parameter.ds_tensor.data):
                held[id(tensor.untyped_storage())] = tensor.untyped_storage().nbytes() // 4
        gradient(learner, FirstOrder(), LOOPS["sgd"])
        whole = sum(parameter.data.numel() for parameter in learner.module.parameters())
        return loading.peak / 4, sum(held.values()), whole, engine.gathering.peak, engine.gathering.elements

    config = learner_config(models["llama"])
    sizes = [tensor.numel() for tensor in config.build(0).initial.values()]
    parts = sum(-(-size // 2) for size in sizes)
    for loading, held, whole, together, elements in pair.call(count, config):
        assert together == max(sizes)
        assert elements > 3 * 3 * sum(sizes)  # each step gathers every matrix for the product, its two backwards
        assert whole == 0 and held <= parts
        assert loading <= parts + 2 * max(sizes) + 1000 < sum(sizes)  # a tensor of a file, and its copy; buffers
