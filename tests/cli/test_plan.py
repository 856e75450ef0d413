"""`--dry-run` refuses what the run would refuse, and counts memory for what it is."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from transformers import BertModel

from metacl import plan
from metacl.coordination.memory_plan import rank_memory
from metacl.coordination.run_folder import RunFolder
from metacl.errors import ConfigError
from tests.small_models import FAMILIES, save_family
from tests.small_runs import save_tiny_bert, small_config


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("model") / "tiny")


def test_a_folder_that_is_taken(model, tmp_path):
    RunFolder(tmp_path / "out").claim(small_config(model, tmp_path / "out"))
    plan.make_plan(small_config(model, tmp_path / "out"))
    with pytest.raises(ConfigError, match="holds a different run"):
        plan.make_plan(small_config(model, tmp_path / "out", seed=5))
    with pytest.raises(ConfigError, match="already holds a run"):
        plan.make_plan(small_config(model, tmp_path / "out"), "never")


def test_memory_of_this_machine_is_what_is_free(model, tmp_path):
    lines = dict(plan.make_plan(small_config(model, tmp_path / "out")).lines)
    assert lines["memory per rank"].startswith("600 MB process + 3.9 MB base + ")
    assert "MB adapted parameters of 2 inner steps + " in lines["memory per rank"]
    assert lines["memory per rank"].endswith(" MB activations at the peak of reverse")
    assert lines["memory in all"].endswith(" MB free")
    assert "MALLOC_MMAP_THRESHOLD_" in lines["note"]  # a peak in this process is not held to the plan without it


def test_memory_of_a_cluster_is_what_it_has_in_all(model, tmp_path, monkeypatch):
    """The cluster of $RAY_ADDRESS is looked at, as the run would join it."""
    stub = types.ModuleType("metacl.coordination.ray_cluster")
    stub.cluster_address = lambda workers: "10.0.0.1:6379"
    stub.cluster_resources = lambda workers: {"CPU": 1.0, "memory": 700 * 2**20}
    monkeypatch.setitem(sys.modules, "metacl.coordination.ray_cluster", stub)
    found = plan.make_plan(small_config(model, tmp_path / "out", workers={"executor": "ray", "groups": 2}))
    assert "the cluster at 10.0.0.1:6379" in dict(found.lines)["worker groups"]
    assert dict(found.lines)["memory in all"].endswith("700 MB in all")
    assert found.obstacles[0] == "2 CPUs asked for, 1 there"
    assert found.obstacles[1].endswith("MB needed, 700 MB in all")


def test_packed_texts_and_a_range_of_groups(model, tmp_path):
    """No numbers are there to hold packing against, and a run starts with the least of its groups."""
    workers = {"executor": "ray", "groups": {"min": 1, "max": 100_000}, "tasks_per_forward": 2}
    config = small_config(model, tmp_path / "out", learner__padding="packed", workers=workers)
    found = plan.make_plan(config)
    assert found.obstacles == []
    assert dict(found.lines)["worker groups"].startswith("1 to 100000 of ")
    alone = small_config(model, tmp_path / "out", learner__padding="packed")
    assert rank_memory(config).activations == 2 * rank_memory(alone).activations


def test_a_sharded_base_is_planned_without_weights(model, tmp_path, monkeypatch):
    """The base's part, the largest matrix (the vocabulary's) and what is offloaded, by arithmetic."""
    monkeypatch.setattr("metacl.learners.engine.load_whole", None)  # nothing may be loaded
    workers = {"executor": "ray", "ranks_per_group": 2, "zero_stage": 3, "offload": "cpu"}
    lines = dict(plan.make_plan(small_config(model, tmp_path / "out", workers=workers)).lines)
    whole = sum(p.numel() for p in BertModel.from_pretrained(model).parameters())
    vocabulary = 30522 * 32  # the one matrix above DeepSpeed's threshold
    base, part = (vocabulary / 2 + 1.5 * (whole - vocabulary)) * 4 / 2**20, vocabulary / 2 * 4 / 2**20
    assert f"{base:.1f} MB its part of the base, {part:.1f} MB of it offloaded" in lines["memory per rank"]
    assert f"{2 * part:.1f} MB the largest matrix, gathered" in lines["memory per rank"]
    assert lines["worker groups"].startswith("1 of 2 rank(s), 2 CPU(s) and 0 GPU(s), ZeRO 3")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "family"),
    [("reverse", "llama"), ({"name": "reverse", "allowance": "all"}, "bert"), ("first_order", "gpt2")],
)
def test_planned_activations_are_those_of_a_process(estimator, family, tmp_path):
    """Against the peak of a fresh process above what it holds between tasks, where freed memory goes back at once."""
    model = save_family(family, tmp_path / family, hidden=256)
    changes = {
        "learner__max_length": 48,
        "learner__adapter": {"rank": 2, "targets": list(FAMILIES[family][1])},
        "episodes": {"ways": 5, "shots": 6, "queries": 2},
        "outer__tasks_per_step": 1,
        "objective": "maml",
        "estimator": estimator,
    }
    config = small_config(model, tmp_path / "out", **changes)
    planned = rank_memory(config)
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("peak.py")), json.dumps(config.to_dict())]
    measured = int(subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout)
    assert planned.activations + planned.trajectory == pytest.approx(measured, rel=0.15)
