"""What groups do that need not wait, or wait: asynchronous steps, and making tasks ahead."""

import json

import pytest

import metacl
from metacl.coordination.ray_executor import RayExecutor
from tests.ray.test_same_bits import trained_hash
from tests.small_runs import save_tiny_bert, small_config

pytestmark = pytest.mark.ray


def test_asynchronous_steps_survive_a_lost_group(ray_cluster, tmp_path):
    config = small_config(
        save_tiny_bert(tmp_path / "model"),
        tmp_path / "run",
        outer={"steps": 8, "tasks_per_step": 2, "asynchronous": {"staleness": 1}},
        workers={"executor": "ray", "groups": 2},
        faults=[{"kind": "kill_rank", "step": 3, "index": 1}, {"kind": "corrupt_reply", "step": 4}],
    )
    metacl.train(config)
    lines = [json.loads(line) for line in (config.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert all(line["tasks"] == 2 and 0 <= line["staleness"] <= 1 for line in lines)
    assert any(line["staleness"] > 0 for line in lines)
    assert json.loads((config.folder / "faults.json").read_text()) == [0, 1]


def test_tasks_made_ahead_change_no_bit(ray_cluster, tmp_path, monkeypatch):
    model, ahead = save_tiny_bert(tmp_path / "model"), []
    make_ahead = RayExecutor._make_ahead

    def watched(executor, foreseen, groups, shared):
        before = set(groups)
        make_ahead(executor, foreseen, groups, shared)
        ahead.extend(groups - before)

    monkeypatch.setattr(RayExecutor, "_make_ahead", watched)
    local = small_config(model, tmp_path / "local")
    two = small_config(model, tmp_path / "two", workers={"executor": "ray", "groups": 2})
    assert trained_hash(two) == trained_hash(local)
    assert ahead.count(0) >= 4 and ahead.count(1) >= 4  # in all of five steps but the last
