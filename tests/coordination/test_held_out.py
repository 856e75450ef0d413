"""Early stopping: the loss is the one that an estimator would report, the best is kept, stopped or resumed or not."""

import json

import numpy as np
import pytest

import metacl
from metacl.api import training
from metacl.config import HeldOut
from metacl.coordination import coordinator
from metacl.coordination.checkpoint import list_checkpoints, load_checkpoint
from metacl.coordination.flat import FlatLayout
from metacl.coordination.held_out import HeldOutLoss, HeldOutState
from metacl.coordination.interrupt import StopRequested
from metacl.coordination.worker import TaskFailed, Worker
from metacl.errors import RunInterrupted
from metacl.learners.base import as_leaves
from metacl.metagradients import Unrolled
from metacl.tasks import TaskAddress
from tests.helpers import tiny_config, write_labelled_csv


def config_of(tmp_path, name="run", steps=6, **held_out):
    write_labelled_csv(tmp_path / "data.csv", classes=20)
    return tiny_config(
        tmp_path,
        output=tmp_path / name,
        outer={"steps": steps, "tasks_per_step": 2, "held_out": {"every": 2, "tasks": 3, **held_out}},
        checkpoints={"every": 2, "keep": 9},
    )


def losses_by_step(monkeypatch, losses):
    """What the held-out tasks say, in the order they are asked. Returns the parameters they are asked with."""
    asked, left = [], list(losses)

    def measured(config, held_out, executor, meta):
        asked.append(meta.copy())
        return left.pop(0)

    monkeypatch.setattr(coordinator, "held_out_loss", measured)
    return asked


def test_loss_is_the_estimators_query_loss(tmp_path):
    worker = Worker(config_of(tmp_path))
    address, meta = TaskAddress("valid", 0, 0, 1), worker.layout.flatten(worker.initial) + np.float32(0.01)
    task = worker.learner.prepare(worker.source.episode(address, worker.config.episodes))
    problem = worker.config.objective.problem(
        worker.learner, as_leaves(worker.parameters(meta)), task, worker.config.inner
    )
    assert HeldOutLoss()(worker, address, meta) == pytest.approx(Unrolled().estimate(problem).query_loss, rel=1e-5)
    with pytest.raises(TaskFailed):
        HeldOutLoss()(worker, address, np.full_like(meta, np.nan))


def test_state_by_hand():
    state, held_out = HeldOutState(), HeldOut(every=2, patience=2)
    for step, loss in [(0, 3.0), (2, 2.0), (4, float("nan")), (6, 2.0)]:
        assert state.due(held_out, step, 99) and not state.stops(held_out)
        state = state.after(step, loss)
        assert not state.due(held_out, step, 99)
    assert (state.best_step, state.best_loss, state.without_gain) == (2, 2.0, 2)
    assert state.stops(held_out) and not state.stops(HeldOut(every=2))
    assert not state.due(held_out, 7, 99) and state.due(held_out, 7, 7)


def test_best_is_exported_and_last_is_kept(tmp_path, monkeypatch):
    asked = losses_by_step(monkeypatch, [3.0, 1.0, 2.0, 2.5])
    config, written = config_of(tmp_path), []
    monkeypatch.setattr(training, "write_initialization", lambda *arguments: written.append(arguments))
    metacl.train(config)
    last = load_checkpoint(config.folder / "checkpoints" / "step-6")
    best = load_checkpoint(config.folder / "checkpoints" / "best" / "step-2")
    assert (best.held_out["best_step"], last.step) == (0, 6)  # saved before the verdict, which resuming repeats
    ((_, _, _, meta, steps, card),) = written
    layout = FlatLayout.of(meta)
    assert layout.flatten(best.meta).tobytes() == layout.flatten(meta).tobytes() == asked[1].tobytes()
    assert steps == 2 and "- 2 outer steps of 2 tasks" in card
    lines = [json.loads(line) for line in (config.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["held_out_loss"] for line in lines] == [3.0, None, 1.0, None, 2.0, None]


def test_patience_ends_the_run(tmp_path, monkeypatch):
    losses_by_step(monkeypatch, [3.0, 1.0, 2.0, 2.5, 0.0])
    config = config_of(tmp_path, steps=20, patience=2)
    metacl.train(config)
    assert list_checkpoints(config.folder / "checkpoints")[0][0] == 6


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_stopped_while_measuring_and_resumed(tmp_path, monkeypatch, at):
    straight = config_of(tmp_path, "straight")
    metacl.train(straight)
    real, calls = coordinator.held_out_loss, []

    def stopped(*arguments):
        calls.append(1)
        if len(calls) == at + 1:
            raise StopRequested
        return real(*arguments)

    monkeypatch.setattr(coordinator, "held_out_loss", stopped)
    config = config_of(tmp_path, "stopped")
    with pytest.raises(RunInterrupted):
        metacl.train(config)
    metacl.train(config)
    for path in ("init/adapter_model.safetensors", "checkpoints/step-6/state.json"):
        assert (config.folder / path).read_bytes() == (straight.folder / path).read_bytes()
    best = [list_checkpoints(c.folder / "checkpoints" / "best") for c in (config, straight)]
    assert [step for step, _ in best[0]] == [step for step, _ in best[1]]
