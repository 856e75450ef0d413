"""Every parameter of a model adapts (`learner.adapter: null`)."""

import pytest
import torch
from safetensors.torch import load_file
from torch.func import functional_call
from transformers import AutoModel, AutoTokenizer

import metacl
from metacl.adaptation import InnerLoop
from metacl.config import config_from_dict
from metacl.errors import ConfigError
from metacl.initialization import load_initialization
from metacl.learners import TextClassifierConfig
from metacl.learners.base import Task, as_leaves
from metacl.metagradients import Reverse
from metacl.objectives import OBJECTIVES
from tests.ray.ranks import distance
from tests.small_models import FAMILIES, save_family
from tests.small_runs import save_tiny_bert, small_config, small_tree

TEXTS = ("where is my card", "hi", "pin?"), (0, 1, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_step_against_autograd_through_the_module_itself(family, tmp_path):
    """Pooling, head and inner step written out on transformers' own model."""
    folder = save_family(family, tmp_path)
    learner = TextClassifierConfig(
        model=str(folder), max_length=16, adapter=None, padding="max_length", normalize=False, logit_scale=1.0
    ).build(0)
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    weights = {name: p for name, p in model.named_parameters() if not name.startswith("pooler.")}
    assert set(learner.initial) == {f"model.{name}" for name in weights}
    assert learner.base_parameters == sum(p.numel() for p in model.parameters()) - sum(
        p.numel() for p in weights.values()
    )
    loop = InnerLoop(steps=1, step_size={"value": 0.01, "head": 0.01, "learn": "none"})
    objective = OBJECTIVES.build({"name": "maml"})
    meta = as_leaves(objective.meta_parameters(learner, loop, 2))
    torch.manual_seed(1)
    meta["head.weight"] = torch.randn(2, 32, requires_grad=True)
    batch = learner.encode(*TEXTS)
    found = Reverse().estimate(objective.problem(learner, meta, Task(2, batch, batch), loop)).gradient

    read = AutoTokenizer.from_pretrained(folder)(
        list(TEXTS[0]), truncation=True, padding="max_length", max_length=16, return_tensors="pt"
    )
    inputs = {name: read[name] for name in ("input_ids", "attention_mask")}

    def loss(params):
        own = {name: params[f"model.{name}"] for name in weights}
        hidden = functional_call(model, own, (), inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        scores = pooled @ params["head.weight"].T + params["head.bias"]
        return torch.nn.functional.cross_entropy(scores, torch.tensor(TEXTS[1]))

    names = list(meta)
    grads = torch.autograd.grad(loss(meta), list(meta.values()), create_graph=True)
    moved = {name: meta[name] - 0.01 * grad for name, grad in zip(names, grads, strict=True)}
    expected = torch.autograd.grad(loss(moved), list(meta.values()))
    assert distance(found, dict(zip(names, expected, strict=True))) < 1e-5


def test_what_is_trained_is_a_plain_transformers_model(tmp_path):
    model = save_tiny_bert(tmp_path / "bert")
    before = {path: path.read_bytes() for path in model.iterdir()}
    config = small_config(model, tmp_path / "run", learner__adapter=None, outer__steps=2, estimator="first_order")
    run = metacl.train(config)
    assert {path: path.read_bytes() for path in model.iterdir()} == before
    loaded = dict(AutoModel.from_pretrained(run.initialization).named_parameters())
    stored, pretrained = (load_file(folder / "model.safetensors") for folder in (run.initialization, model))
    moved = [name for name, tensor in stored.items() if not torch.equal(tensor, pretrained[name])]
    assert "embeddings.word_embeddings.weight" in moved and len(moved) > 0.9 * len(stored)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in stored.items())
    start = load_initialization(run.initialization)
    assert all(torch.equal(start.meta[f"model.{name}"], tensor) for name, tensor in stored.items())
    adapted = start.adapt(["my card", "a pin"], ["card", "pin"])
    adapted.save(tmp_path / "adapted")
    again = metacl.load_adapted(tmp_path / "adapted").predict(["the card"])
    assert again == adapted.predict(["the card"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learner__base_dtype": "bfloat16"}, "bfloat16 is for frozen matrices"),
        ({"workers": {"zero_stage": 3}, "estimator": "implicit", "inner__proximal": 1.0}, "'implicit' takes whole"),
        ({"workers": {"zero_stage": 3}, "inner__precondition": "meta_curvature"}, "sides of whole matrices"),
        ({"workers": {"zero_stage": 3, "offload": "nvme", "nvme_path": "/tmp"}}, "nvme is for a frozen base"),
    ],
)
def test_what_does_not_go_together(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        config_from_dict(small_tree("model", tmp_path, learner__adapter=None, **changes))


def test_prefix_tuning_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"prefix does not adapt plain parameters.*Set learner\.adapter\.kind=lora"):
        config_from_dict(small_tree("model", tmp_path, learner__adapter={"kind": "prefix"}))
