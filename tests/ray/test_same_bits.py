"""Who computes the tasks does not change a bit: local, one group and two groups train the same initialization."""

import hashlib

import pytest

import metacl
from metacl.errors import ResourceError
from tests.small_runs import MINILM, save_tiny_bert, small_config

pytestmark = pytest.mark.ray


def checkpoint_hash(config):
    return hashlib.sha256((config.folder / "checkpoints/step-5/meta_params.safetensors").read_bytes()).hexdigest()


def trained_hash(config):
    metacl.train(config)
    return checkpoint_hash(config)


def test_minilm_local_one_group_two_groups(ray_cluster, tmp_path):
    local = small_config(MINILM, tmp_path / "local")
    one = small_config(MINILM, tmp_path / "one", workers={"executor": "ray", "groups": 1})
    two = small_config(MINILM, tmp_path / "two", workers={"executor": "ray", "groups": 2, "zero_stage": 2})
    assert trained_hash(local) == trained_hash(one) == trained_hash(two)


def test_side_by_side_and_what_adapting_takes_do_not_depend_on_the_groups(ray_cluster, tmp_path):
    model = save_tiny_bert(tmp_path / "model")
    evaluation = {"shape": {"ways": 3, "shots": 2, "queries": 2}, "episodes": 4, "steps": [0, 2]}
    found, hashes = [], set()
    for name, workers in [
        ("local", {"executor": "local"}),
        ("two", {"executor": "ray", "groups": 2, "gradient_shards": 2}),
    ]:
        options = {"workers": {**workers, "tasks_per_forward": 2}, "learner__padding": "packed"}
        config = small_config(model, tmp_path / name, evaluation=evaluation, **options)
        rows = metacl.train(config).results["rows"]
        found.append([(row["accuracy"], row["tokens"], row["memory_bytes"]) for row in rows])
        hashes.add(checkpoint_hash(config))
    local, two = found
    assert local == two and len(hashes) == 1
    assert len(local) == 4 and all(tokens > 0 and memory > 0 for _, tokens, memory in local)


def test_zero_stage_1_and_resume_with_another_number_of_groups(ray_cluster, tmp_path):
    model = save_tiny_bert(tmp_path / "model")
    whole = trained_hash(small_config(model, tmp_path / "whole"))
    first = small_config(model, tmp_path / "parts", outer__steps=3)
    metacl.train(first)
    rest = small_config(model, tmp_path / "parts", workers={"executor": "ray", "groups": 2, "zero_stage": 1})
    assert trained_hash(rest) == whole


def test_without_respawns_the_last_group_lost_is_one_clear_message_and_the_run_resumes(ray_cluster, tmp_path):
    model = save_tiny_bert(tmp_path / "model")
    workers = {"executor": "ray", "groups": 1, "respawns": 0}
    fault = {"kind": "kill_rank", "step": 3, "index": 2}
    config = small_config(model, tmp_path / "run", workers=workers, faults=[fault])
    with pytest.raises(ResourceError, match="worker groups: 0 of 1 ready; 1 needed") as caught:
        metacl.train(config)
    assert caught.value.exit_code == 3
    assert (config.folder / "checkpoints/step-3").exists()
    whole = trained_hash(small_config(model, tmp_path / "whole"))
    assert trained_hash(config) == whole


def test_more_than_the_cluster_has(ray_cluster, tmp_path):
    model = save_tiny_bert(tmp_path / "model")
    config = small_config(model, tmp_path / "run", workers={"executor": "ray", "groups": 64})
    with pytest.raises(ResourceError, match="need 64 CPUs, the cluster has 4"):
        metacl.train(config)
