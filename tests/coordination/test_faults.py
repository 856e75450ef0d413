"""Faults on purpose, without Ray: each strikes once, resumed or not, and changes no bit. Replaying what failed."""

import json

import numpy as np
import pytest

import metacl
from metacl import cli
from metacl.config import Fault, config_to_yaml
from metacl.coordination import faults as faults_module
from metacl.coordination.checkpoint import list_checkpoints, load_checkpoint
from metacl.coordination.failed_tasks import KEPT, failed_steps, record_failed
from metacl.coordination.faults import Faults
from metacl.coordination.replay import replay
from metacl.coordination.run_folder import RunFolder
from metacl.coordination.worker import MetaGradientWork, TaskFailed, Worker
from metacl.errors import ConfigError, ResourceError, RunInterrupted
from metacl.tasks import TaskAddress
from tests.helpers import tiny_config
from tests.small_runs import save_tiny_bert, small_config

LOCAL = ["slow", "non_finite", "corrupt_reply", "sigterm", "corrupt_checkpoint", "disk_full"]


class Notes:
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def __getattr__(self, name):
        return lambda *_: None


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_bert(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def expected(model, tmp_path_factory):
    config = small_config(model, tmp_path_factory.mktemp("undisturbed") / "run")
    metacl.train(config)
    return trained_bytes(config)


def trained_bytes(config):
    return (config.folder / "init" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", LOCAL)
def test_same_bits_in_one_process(model, expected, tmp_path, kind):
    config = small_config(model, tmp_path / "run", faults=[{"kind": kind, "step": 3, "index": 1, "seconds": 0.01}])
    first, again = Notes(), Notes()
    ends = {"sigterm": (RunInterrupted, "stopped after 3"), "disk_full": (ResourceError, "The disk is full")}
    if kind in ends:
        error, message = ends[kind]
        with pytest.raises(error, match=message):
            metacl.train(config, first)
        for _, path in list_checkpoints(config.folder / "checkpoints"):
            load_checkpoint(path)
        metacl.train(config, again)
    else:
        metacl.train(config, first)
    assert [note for note in first.notes if "strikes" in note] == [f"fault 0 strikes: {kind} at step 3, index 1"]
    assert not any("strikes" in note for note in again.notes)
    assert trained_bytes(config) == expected


@pytest.mark.parametrize(("struck", "slept"), [(None, [[0.5], [0.5]]), (1, [[], [0.5]])])
def test_one_rank_of_a_group_or_all(tmp_path, monkeypatch, struck, slept):
    worker, found = Worker(tiny_config(tmp_path)), []
    address, meta = TaskAddress("train", 0, 3, 1), worker.layout.flatten(worker.initial)
    faults = Faults([Fault(kind="slow", step=3, index=1, rank=struck, seconds=0.5)], tmp_path / "f.json", print)
    sent = faults.strike(MetaGradientWork()).handed_out(address)
    for rank in range(2):
        found.append([])
        monkeypatch.setattr(faults_module.time, "sleep", found[-1].append)
        monkeypatch.setattr(worker, "rank", rank)
        assert sent(worker, address, meta).checksums == MetaGradientWork()(worker, address, meta).checksums
    assert found == slept


def test_a_rank_that_a_group_does_not_have(tmp_path):
    faults = [{"kind": "kill_rank", "step": 1, "rank": 2}]
    with pytest.raises(ValueError, match=r"faults.0.rank: 2, but a group has ranks 0 to 1"):
        tiny_config(tmp_path, workers={"executor": "ray", "ranks_per_group": 2}, faults=faults)


def test_full_disk_at_the_command_line(model, expected, tmp_path, capsys):
    config = small_config(model, tmp_path / "run", faults=[{"kind": "disk_full", "step": 3}])
    (tmp_path / "run.yaml").write_text(config_to_yaml(config))
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", str(tmp_path / "run.yaml")])
    assert caught.value.code == 3
    said = " ".join(capsys.readouterr().err.split())
    assert "step-4: the checkpoint could not be written (No space left on device). The disk is full" in said
    assert [step for step, _ in list_checkpoints(config.folder / "checkpoints")] == [2]
    metacl.train(config)
    assert trained_bytes(config) == expected


def test_a_task_that_fails_twice_is_left_out_and_can_be_replayed(model, tmp_path, capsys):
    faults = [{"kind": "non_finite", "step": 3, "index": 1}] * 2
    config, said = small_config(model, tmp_path / "run", faults=faults), Notes()
    metacl.train(config, said)
    assert any("step=3/index=1 is left out: the meta-gradient is not finite" in note for note in said.notes)
    lines = [json.loads(line) for line in RunFolder(config.folder).metrics.read_text().splitlines()]
    assert [(line["tasks"], line["left_out"]) for line in lines] == [(3, 0), (3, 0), (3, 0), (2, 1), (3, 0)]

    found = replay(config, 3, 1)  # alone it is fine: the number was put there by the fault
    assert "not finite" in found.recorded
    assert found.failure is None and found.not_finite == {}
    with pytest.raises(SystemExit) as caught:
        cli.main(["replay", str(config.folder), "3", "1"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "left out: the meta-gradient is not finite" in printed and "now             a usable result" in printed


def test_replay_is_the_task_of_that_step(tmp_path):
    config = tiny_config(tmp_path, outer={"steps": 4, "tasks_per_step": 2}, checkpoints={"every": 2, "keep": 9})
    metacl.train(config)
    worker = Worker(config)
    meta = worker.layout.flatten(load_checkpoint(config.folder / "checkpoints" / "step-2").meta)
    expected = MetaGradientWork()(worker, TaskAddress("train", 0, 2, 1), meta)
    found = replay(config, 2, 1)
    assert ((found.checksum,), found.query_loss) == (expected.checksums, expected.query_loss)
    assert found.gradient_norm == pytest.approx(float(np.linalg.norm(expected.gradient)), rel=1e-5)
    assert replay(config, 0, 0).failure is None  # the start needs no record
    with pytest.raises(ConfigError, match=r"parameters of step 3 are not kept .* There are those of step 0, 2, 4\."):
        replay(config, 3, 0)
    with pytest.raises(ConfigError, match="tasks 0 to 1, not 2"):
        replay(config, 2, 2)


def test_a_diverging_task_is_left_out_every_time_and_its_replay_says_so(tmp_path, monkeypatch):
    config = tiny_config(tmp_path, outer={"steps": 2, "tasks_per_step": 3})
    real = MetaGradientWork.__call__

    def diverging(self, worker, address, meta):
        if (address.step, address.index) == (1, 2):
            raise TaskFailed("the support loss is nan at inner step 0")
        return real(self, worker, address, meta)

    monkeypatch.setattr(MetaGradientWork, "__call__", diverging)
    metacl.train(config)
    found = replay(config, 1, 2)
    assert found.failure == found.recorded == "the support loss is nan at inner step 0"


def test_records_of_failed_tasks_do_not_pile_up(tmp_path):
    for step in range(KEPT + 3):
        record_failed(tmp_path, step, {}, {TaskAddress("train", 0, step, 0): "why"})
    assert [step for step, _ in failed_steps(tmp_path)] == list(range(3, KEPT + 3))


def test_without_faults_the_work_is_not_wrapped(tmp_path):
    work = MetaGradientWork()
    assert Faults((), tmp_path / "faults.json", print).strike(work) is work
    of_checkpoints = Faults([Fault(kind="disk_full", step=0)], tmp_path / "faults.json", print)
    assert of_checkpoints.strike(work) is work


def test_faults_that_would_end_this_process_need_groups(tmp_path):
    with pytest.raises(ValueError, match=r"faults\.0: hang needs worker groups\. Set workers\.executor=ray"):
        tiny_config(tmp_path, faults=[{"kind": "hang", "step": 1}])


def test_two_runs_in_one_folder(tmp_path):
    config = tiny_config(tmp_path, outer={"steps": 1, "tasks_per_step": 1})
    with (
        RunFolder(config.folder).locked(),
        pytest.raises(ConfigError, match=r"run: another metacl is at work in this folder\. Wait for it"),
    ):
        metacl.train(config)
    metacl.train(config)
