"""Meta-gradients of a group of two ranks, its base in shards or whole, against one process without an engine."""

from contextlib import contextmanager

import pytest
import torch

from metacl.adaptation import InnerLoop
from metacl.errors import ConfigError
from metacl.learners import CausalLanguageModelConfig, TextClassifierConfig
from metacl.learners.adapter import AdapterConfig
from metacl.learners.gathered import gather_in_layers
from metacl.learners.live_memory import LiveMemory
from metacl.metagradients import FiniteDifference, FirstOrder, Implicit, Reptile, Reverse
from metacl.objectives import OBJECTIVES
from tests.ray.ranks import distance, meta_gradient
from tests.small_models import FAMILIES, save_family

pytestmark = pytest.mark.ray


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    return {family: save_family(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


def learner_config(models, family, **changes):
    adapter = AdapterConfig(rank=2, targets=FAMILIES[family][1])
    return TextClassifierConfig(model=str(models[family]), max_length=16, adapter=adapter, logit_scale=3.0, **changes)


def loop_of(steps):
    return InnerLoop(steps=steps, step_size={"value": 0.01, "head": 0.05, "learn": "tensor"})


def gradients_of(learner, steps_of):
    objective = OBJECTIVES.build({"name": "proto_maml"})
    return {steps: meta_gradient(learner, objective, Reverse(), loop_of(steps)) for steps in steps_of}


def on_rank(rank, config, stage, steps_of):
    return gradients_of(config.build(0, engine=rank.engine(stage)), steps_of)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_exact_meta_gradient(pair, models, family, stage):
    config = learner_config(models, family)
    expected = gradients_of(config.build(0), (1, 3, 5))
    first, second = pair.call(on_rank, config, stage, (1, 3, 5))
    for steps, gradient in expected.items():
        assert distance(first[steps], gradient) < 1e-5
        assert all(torch.equal(first[steps][name], second[steps][name]) for name in gradient)


def test_the_second_order_part_is_large(models):
    """What the test above would not see if it were lost is less than its bound."""
    learner = learner_config(models, "llama").build(0)
    objective = OBJECTIVES.build({"name": "proto_maml"})
    first_order = meta_gradient(learner, objective, FirstOrder(), loop_of(5))
    assert distance(first_order, gradients_of(learner, (5,))[5]) > 1e-2


def test_the_same_bits_again_and_offloaded(pair, models):
    def bits(rank, config, offload):
        learner = config.build(0, engine=rank.engine(3, offload))
        return [gradients_of(learner, (2,))[2] for _ in range(2)]

    config = learner_config(models, "qwen")
    once, again = pair.call(bits, config, "none")[0]
    offloaded, _ = pair.call(bits, config, "cpu")[1]
    for other in (again, offloaded):
        assert all(torch.equal(once[name], other[name]) for name in once)


def test_buffers_are_those_of_the_whole_base(pair, models):
    """Rotary frequencies: DeepSpeed makes them in bfloat16 on CPUs where it is told a type."""
    config = learner_config(models, "llama")
    found = pair.call(lambda rank: dict(config.build(0, engine=rank.engine(3)).module.named_buffers()))[0]
    whole = dict(config.build(0).module.named_buffers())
    assert whole and found.keys() == whole.keys()
    assert all(torch.equal(found[name], buffer) for name, buffer in whole.items())


def test_ia3(pair, models):
    config = learner_config(models, "llama")
    config = config.model_copy(update={"adapter": AdapterConfig(kind="ia3", targets=("k_proj", "v_proj", "down_proj"))})
    expected = gradients_of(config.build(0), (3,))[3]
    assert sum("ia3_l" in name for name in expected) == 2 * 6  # and their step sizes
    assert distance(pair.call(on_rank, config, 3, (3,))[0][3], expected) < 1e-5


def test_padded_to_one_length_and_one_adapted_layer(pair, models):
    """The frozen prefix runs on each rank's own rows."""
    config = learner_config(models, "bert", padding="max_length")
    config = config.model_copy(update={"adapter": AdapterConfig(rank=2, targets=("query",), last_layers=1)})
    expected = gradients_of(config.build(0), (3,))[3]
    assert distance(pair.call(on_rank, config, 3, (3,))[0][3], expected) < 1e-5


def test_bfloat16_base_equals_the_unsharded_bfloat16_base(pair, models):
    config = learner_config(models, "llama", base_dtype="bfloat16")
    expected = gradients_of(config.build(0), (2,))[2]
    # Where a last bit of float32 differs, a rounding to bfloat16 may, too.
    assert distance(pair.call(on_rank, config, 3, (2,))[0][2], expected) < 1e-2
    assert distance(gradients_of(learner_config(models, "llama").build(0), (2,))[2], expected) > 1e-3


@pytest.mark.parametrize(
    ("estimator", "bound"),
    [
        (Implicit(), 1e-5),
        (FirstOrder(), 1e-5),
        (Reptile(), 1e-5),
        (Reverse(allowance="all"), 1e-5),
        (FiniteDifference(), 1e-3),
    ],
    ids=lambda value: getattr(value, "registered_name", ""),
)
def test_every_other_estimator(pair, models, estimator, bound):
    loop = loop_of(3).model_copy(update={"proximal": 1.0})

    def gradient(learner):
        return meta_gradient(learner, OBJECTIVES.build({"name": "maml"}), estimator, loop)

    config = learner_config(models, "gpt2")
    found = pair.call(lambda rank: gradient(config.build(0, engine=rank.engine(3))))[0]
    assert distance(found, gradient(config.build(0))) < bound


def test_no_rank_holds_more_than_its_shard_and_one_matrix(pair, models):
    """Counted while loading, as every tensor that an operation makes, and while computing, over all parameters."""

    def count(rank, config):
        engine = rank.engine(3)
        with LiveMemory() as loading:
            learner = config.build(0, engine=engine)
        parameters = list(learner.module.parameters())
        base = [parameter for parameter in parameters if hasattr(parameter, "ds_tensor")]
        seen = []
        whole = engine.gathering.whole

        @contextmanager
        def counted(weight):
            with whole(weight) as matrix:
                small = {id(p) for p in base if p.data.numel() and p is not weight}
                held = sum(p.ds_tensor.numel() for p in base if id(p) not in small)
                seen.append(held + sum(p.data.numel() for p in base))
                yield matrix

        engine.gathering.whole = counted
        gradients_of(learner, (2,))
        adapter = sum(p.numel() for p in parameters if not hasattr(p, "ds_tensor"))
        return loading.peak / 4, max(seen), adapter, len(seen), engine.gathering.peak

    config = learner_config(models, "llama")
    sizes = [parameter.numel() for parameter in config.build(0).module.parameters() if not parameter.requires_grad]
    shapes = [parameter.shape for parameter in config.build(0).module.parameters() if not parameter.requires_grad]
    small = sum(size for size, shape in zip(sizes, shapes, strict=True) if len(shape) == 1)
    shard = sum(-(-size // 2) for size, shape in zip(sizes, shapes, strict=True) if len(shape) > 1)
    bound = shard + small + max(sizes)
    for loading, computing, adapter, gathers, together in pair.call(count, config):
        assert together == max(sizes)  # never two matrices at a time
        assert gathers > 50
        assert shard + small < computing <= bound
        beside = 2 * adapter + 1000  # the adapter is made, and copied; buffers
        assert loading <= bound + beside < sum(sizes)


def test_a_matrix_in_another_kind_of_layer_is_refused(pair, models):
    def refused(rank, folder):
        from transformers import AutoModel

        class Odd(torch.nn.Linear):
            pass

        kind = AutoModel.from_pretrained(folder)  # its class, whose layers are exchanged
        module = next(m for m in kind.modules() if isinstance(m, torch.nn.Linear))
        module.__class__ = Odd
        try:
            gather_in_layers(kind, {id(module.weight)})
        except ConfigError as error:
            return str(error)

    assert "is a Odd with weight. Set workers.zero_stage=2" in pair.call(refused, models["bert"])[0]


@pytest.mark.parametrize("family", ["llama", "qwen", "gpt2"])
def test_causal_language_model(pair, tmp_path_factory, family):
    """With its own output matrix, and with one that is the embedding, too."""
    folder = save_family(family, tmp_path_factory.mktemp("causal") / family, causal=True)
    adapter = AdapterConfig(rank=2, targets=FAMILIES[family][1])
    config = CausalLanguageModelConfig(model=str(folder), max_length=16, adapter=adapter)

    def gradient(learner):
        return meta_gradient(learner, OBJECTIVES.build({"name": "maml"}), Reverse(), loop_of(3))

    found = pair.call(lambda rank: gradient(config.build(0, engine=rank.engine(3))))[0]
    assert distance(found, gradient(config.build(0))) < 1e-5
