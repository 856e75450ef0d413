"""Runs whose meta-parameters lie in parts, one a rank, with an aggregator and an outer optimizer a part."""

import json
from functools import cache

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._pytree import tree_iter
from transformers import AutoModel

import metacl
from metacl import cli
from metacl.config import config_from_dict
from metacl.coordination import ray_parts
from metacl.coordination.checkpoint import load_checkpoint
from metacl.initialization import read_initialization
from tests.ray.ranks import distance
from tests.small_models import save_family
from tests.small_runs import small_tree

pytestmark = [pytest.mark.ray]

IN_PARTS = {
    "executor": "ray",
    "ranks_per_group": 2,
    "zero_stage": 3,
    "deepspeed": {"zero_optimization": {"stage3_param_persistence_threshold": 0}},
}
OUTER = {
    "steps": 3,
    "tasks_per_step": 2,
    "accumulate": 2,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "aggregator": "clipped_mean",
    "clip_norm": 0.5,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_family("gpt2", tmp_path_factory.mktemp("gpt2"))


def config_of(model, output, estimator, workers, **changes):
    tree = small_tree(model, output, learner__adapter=None, learner__logit_scale=1.0, estimator=estimator)
    inner = {"steps": 2, "step_size": {"value": 0.02, "head": 0.1}}
    return config_from_dict({**tree, "inner": inner, "outer": OUTER, "workers": workers, **changes})


@pytest.fixture(scope="module")
def trained_in_parts(ray_cluster, model, tmp_path_factory):
    """Estimator -> a run of its own."""
    return cache(lambda name: metacl.train(config_of(model, tmp_path_factory.mktemp("run") / name, name, IN_PARTS)))


@pytest.mark.parametrize(("estimator", "bound"), [("first_order", 1e-5), ("finite_difference", 1e-3)])
def test_training_gives_what_one_process_gives(trained_in_parts, model, tmp_path, estimator, bound):
    found = trained_in_parts(estimator)
    alone = metacl.train(config_of(model, tmp_path / "alone", estimator, {"executor": "local"}))
    trained, expected = (read_initialization(run.initialization).meta for run in (found, alone))
    start = {f"model.{name}": tensor for name, tensor in load_file(model / "model.safetensors").items()}
    moves = [{name: meta[name] - tensor for name, tensor in start.items()} for meta in (trained, expected)]
    assert distance(*moves) < 10 * bound  # what moved is a hundredth of the weights, and their rounding is in it
    assert distance(trained, expected) < bound
    rows = [
        [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()] for run in (found, alone)
    ]
    for ours, theirs in zip(*rows, strict=True):
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=bound)
        assert ours["query_loss"] == pytest.approx(theirs["query_loss"], rel=bound)
    loaded = AutoModel.from_pretrained(found.initialization)
    assert all(torch.equal(p, trained[f"model.{name}"]) for name, p in loaded.named_parameters())


def test_no_process_has_all_of_it_and_a_resumed_run_the_same_bits(ray_cluster, model, tmp_path, monkeypatch):
    """Reptile, a held-out measurement, and a closing evaluation on the way; files of a part each, and small ones."""
    changes = {
        "outer": {**OUTER, "steps": 2, "held_out": {"every": 2, "tasks": 2}},
        "evaluation": {"shape": {"ways": 3, "shots": 1, "queries": 2}, "episodes": 2, "steps": [0, 1]},
        "checkpoints": {"every": 1, "keep": 5},
    }
    alone = metacl.train(config_of(model, tmp_path / "alone", "reptile", {"executor": "local"}, **changes))
    monkeypatch.setattr("metacl.learners.engine.load_whole", None)  # the driver loads no weights
    monkeypatch.setattr("metacl.initialization.folder.FILE_BYTES", 10_000)
    sizes = []
    answers = ray_parts.RayParts.answers

    def counted(self, references):
        found = answers(self, references)
        sizes.append(sum(leaf.numel() for leaf in tree_iter(found) if isinstance(leaf, torch.Tensor)))
        return found

    monkeypatch.setattr(ray_parts.RayParts, "answers", counted)
    whole = metacl.train(config_of(model, tmp_path / "whole", "reptile", IN_PARTS, **changes))
    for steps in (1, 2):
        changed = {**changes, "outer": {**changes["outer"], "steps": steps}, "evaluation": None}
        cut = metacl.train(config_of(model, tmp_path / "cut", "reptile", IN_PARTS, **changed))
    one, other, expected = (read_initialization(run.initialization).meta for run in (whole, cut, alone))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert distance(one, expected) < 1e-5
    for row, like in zip(whole.results["rows"], alone.results["rows"], strict=True):
        assert row["accuracy"]["mean"] == like["accuracy"]["mean"]
    assert len(list(whole.initialization.glob("model-*-of-*.safetensors"))) > 5
    numbers = sum(tensor.numel() for tensor in one.values())
    checkpoint = load_checkpoint(tmp_path / "whole" / "checkpoints" / "step-2")
    parts = [sum(tensor.numel() for tensor in meta.values()) for meta, _ in checkpoint.parts]
    assert len(parts) == 2 and numbers / 2 <= max(parts) < 0.52 * numbers and checkpoint.meta == {}
    assert 0 < max(sizes) < 1.01 * max(parts)  # of what came to the driver at a time
    assert len(whole.results["rows"]) > 3


def test_what_can_be_done_with_such_a_run(trained_in_parts, tmp_path, capsys):
    """On the command line: it is measured, adapted and exported in one process, and what cannot be says what can."""

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        return ended.value.code, capsys.readouterr().err

    run, texts, measured = trained_in_parts("first_order").folder, tmp_path / "texts.csv", tmp_path / "measured.json"
    few = ["--ways", 3, "--shots", 1, "--queries", 2, "--steps", "0,1", "--episodes", 2]
    assert call("evaluate", run, *few, "--groups", 0, "--json", measured)[0] == 0
    rows = json.loads(measured.read_text())["rows"]
    assert [row["steps"] for row in rows if row["method"] == "meta-learned"] == [0, 1]
    texts.write_text("text,label\nwhere is my card,a\nchange my pin,b\nnothing at all,c\n")
    assert call("adapt", run, "--data", texts, "--steps", 1, "--output", tmp_path / "adapted")[0] == 0
    assert call("predict", tmp_path / "adapted", "--text", "my card")[0] == 0
    assert call("export", run, tmp_path / "exported")[0] == 0
    trained = load_file(run / "init" / "model.safetensors")
    exported = AutoModel.from_pretrained(tmp_path / "exported")
    assert all(torch.equal(p, trained[name]) for name, p in exported.named_parameters())
    for arguments, instead in ((["evaluate", run, *few], "--groups 0"), (["replay", run, 0, 0], "zero_stage=2")):
        status, said = call(*arguments)
        assert status == 2 and instead in said
