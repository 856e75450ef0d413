"""`--dry-run` refuses what the run would refuse, and counts memory for what it is."""

import sys
import types

import pytest

from metacl import plan
from metacl.coordination.run_folder import RunFolder
from metacl.errors import ConfigError
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
    memory = dict(plan.make_plan(small_config(model, tmp_path / "out")).lines)["memory per group"]
    assert memory.startswith("about 600 MB process + ") and "activations come on top" in memory
    assert memory.endswith(" MB free")


def test_memory_of_a_cluster_is_what_it_has_in_all(model, tmp_path, monkeypatch):
    """The cluster of $RAY_ADDRESS is looked at, as the run would join it."""
    stub = types.ModuleType("metacl.coordination.ray_cluster")
    stub.cluster_address = lambda workers: "10.0.0.1:6379"
    stub.cluster_resources = lambda workers: {"CPU": 1.0, "memory": 700 * 2**20}
    monkeypatch.setitem(sys.modules, "metacl.coordination.ray_cluster", stub)
    found = plan.make_plan(small_config(model, tmp_path / "out", workers={"executor": "ray", "groups": 2}))
    assert "the cluster at 10.0.0.1:6379" in dict(found.lines)["worker groups"]
    assert dict(found.lines)["memory per group"].endswith("700 MB in all")
    assert found.obstacles[0] == "2 CPUs asked for, 1 there"
    assert found.obstacles[1].endswith("needed before activations, 700 MB in all")
