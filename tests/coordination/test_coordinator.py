"""The outer loop on a toy problem: what it trains does not depend on who computed what, when, or in how many parts."""

import json
import os
import random
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from metacl.aggregation import AGGREGATORS
from metacl.coordination import coordinator
from metacl.coordination.checkpoint import list_checkpoints, load_checkpoint
from metacl.coordination.executor import LocalExecutor
from metacl.coordination.failed_tasks import read_failed
from metacl.coordination.flat import FlatLayout, checksum
from metacl.coordination.gathering import InProcess
from metacl.coordination.interrupt import StopRequested, StopSignals
from metacl.coordination.meta_state import WholeState
from metacl.coordination.run_folder import RunFolder
from metacl.coordination.worker import Done, MetaGradientWork, ReplyDamaged, TaskFailed, TaskResult, Worker
from metacl.errors import ConfigError, MetaclError, ResourceError, RunInterrupted, TrainingError
from metacl.tasks import TaskAddress
from tests.helpers import tiny_config

INITIAL = {"adapter.w": torch.tensor([0.5, -1.0, 2.0]), "step_size.adapter.w": torch.tensor(0.1)}


def toy_result(address, meta):
    """A gradient towards a point of the task's own. The first and the last task carry huge opposite numbers, so that
    adding up in another order than the addresses' gives another sum, even in float64."""
    noise = np.random.default_rng([address.seed, address.step, address.index]).standard_normal(meta.size)
    gradient = (meta - noise).astype(np.float32)
    gradient[0] += {0: 1e20, 3: -1e20}.get(address.index, 0.0)
    return TaskResult(gradient, (checksum(gradient),), float(np.square(gradient[1:]).sum()), (2.0, 1.0 + address.index))


class ToyExecutor:
    """Answers in an order of its own.

    stop_at : (step, tasks done before)
        Where the run is stopped from outside. `harm` changes the result at `harmed` (step, index).
    """

    waited_s = 0.0

    def __init__(self, order=None, stop_at=None, harmed=None, harm=None):
        self.order = random.Random(order) if order is not None else None
        self.stop_at, self.harmed, self.harm = stop_at, harmed, harm
        self.asked = []

    def foresee(self, addresses):
        self.foreseen = list(addresses)

    def gathering(self, meta):
        return InProcess(AGGREGATORS.build({"name": "mean"}))

    def map(self, work, addresses, meta, left_out=None):
        self.asked.append(list(addresses))
        addresses = list(addresses)
        if self.order:
            self.order.shuffle(addresses)
        for done, address in enumerate(addresses):
            if self.stop_at == (address.step, done):
                raise StopRequested
            result = toy_result(address, meta)
            if self.harmed == (address.step, address.index):
                result = self.harm(result)
            try:
                work.check(result, meta)
            except TaskFailed as error:
                left_out(address, str(error))
            else:
                yield Done(address, result)


class Silent:
    def __init__(self):
        self.notes, self.tasks, self.steps = [], [], []

    def note(self, text):
        self.notes.append(text)

    def task_done(self, step, done, of):
        self.tasks.append((step, done, of))

    def step_done(self, metrics, steps):
        self.steps.append(metrics.step)


def config_of(tmp_path, name="run", every=2, keep=9, **outer):
    outer = {"steps": 6, "tasks_per_step": 4, "learning_rate": 0.05, **outer}
    return tiny_config(tmp_path, output=tmp_path / name, outer=outer, checkpoints={"every": every, "keep": keep})


def train(config, executor, progress=None, resume="auto", initial=INITIAL):
    config.folder.mkdir(exist_ok=True)
    progress = progress or Silent()
    start = coordinator.starting_checkpoint(config, FlatLayout.of(initial), resume, progress.note)
    with StopSignals() as signals:
        return coordinator.train(config, initial, executor, progress, signals, start).meta


def bits(params):
    return {name: tensor.numpy().tobytes() for name, tensor in params.items()}


def steps_in(folder):
    return [step for step, _ in reversed(list_checkpoints(folder / "checkpoints"))]


def metrics_in(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_trained_parameters_do_not_depend_on_the_order_of_results(tmp_path):
    trained = [train(config_of(tmp_path, f"run{order}"), ToyExecutor(order)) for order in (None, 1, 2, 3)]
    assert all(bits(params) == bits(trained[0]) for params in trained)


def test_the_instrument_would_see_another_order():
    results = [toy_result(TaskAddress("train", 0, 0, index), np.zeros(4, np.float32)) for index in range(4)]
    first = [result.gradient[0].item() for result in results]
    assert sum(first) != sum(first[index] for index in (0, 3, 1, 2))


def test_steps_by_hand(tmp_path):
    # Plain gradient descent; the huge numbers are added first and last, so nothing of the others' first entry is left.
    config = config_of(tmp_path, optimizer="sgd", learning_rate=0.5, step_size_learning_rate=0.25, steps=3)
    trained = train(config, ToyExecutor(1))
    layout = FlatLayout.of(INITIAL)
    meta, rates = layout.flatten(INITIAL), np.array([0.5, 0.5, 0.5, 0.25], np.float32)
    for step in range(3):
        gradients = [toy_result(TaskAddress("train", 0, step, i), meta).gradient.astype(np.float64) for i in range(4)]
        mean = (((gradients[0] + gradients[1]) + gradients[2]) + gradients[3]) / 4
        meta = meta - rates * mean.astype(np.float32)
    np.testing.assert_allclose(layout.flatten(trained), meta, rtol=1e-6)


def test_addresses_handed_out(tmp_path):
    executor = ToyExecutor()
    train(config_of(tmp_path, steps=2).model_copy(update={"seed": 8}), executor)
    assert executor.asked == [[TaskAddress("train", 8, step, index) for index in range(4)] for step in range(2)]


def test_progress_and_metrics(tmp_path):
    progress = Silent()
    config = config_of(tmp_path, steps=2)
    train(config, ToyExecutor(), progress)
    assert progress.tasks == [(step, done, 4) for step in (0, 1) for done in (1, 2, 3, 4)]
    assert progress.steps == [1, 2]
    first = metrics_in(config.folder)[0]
    results = [toy_result(TaskAddress("train", 0, 0, i), FlatLayout.of(INITIAL).flatten(INITIAL)) for i in range(4)]
    assert first["query_loss"] == pytest.approx(sum(result.query_loss for result in results) / 4)
    assert (first["support_loss_first"], first["support_loss_last"], first["tasks"]) == (2.0, 2.5, 4)
    assert 0 <= first["coordinator_seconds"] <= first["seconds"]


def test_no_inner_steps_no_support_losses(tmp_path):
    config = config_of(tmp_path, steps=1).model_copy(update={"inner": tiny_config(tmp_path, inner={"steps": 0}).inner})

    class NoLosses(ToyExecutor):
        def map(self, work, addresses, meta, left_out=None):
            for done in super().map(work, addresses, meta, left_out):
                yield replace(done, result=replace(done.result, support_losses=()))

    train(config, NoLosses())
    assert metrics_in(config.folder)[0]["support_loss_first"] is None


@pytest.mark.parametrize(("every", "keep", "expected"), [(2, 9, [2, 4, 5]), (1, 2, [4, 5]), (99, 9, [5])])
def test_checkpoints_are_written_when_asked(tmp_path, every, keep, expected):
    config = config_of(tmp_path, every=every, keep=keep, steps=5)
    trained = train(config, ToyExecutor())
    assert steps_in(config.folder) == expected
    assert bits(load_checkpoint(config.folder / "checkpoints" / "step-5").meta) == bits(trained)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("stop_at", [(0, 2), (1, 0), (3, 1), (5, 3)])
def test_interrupted_and_resumed_is_bit_for_bit_the_same(tmp_path, optimizer, stop_at):
    options = {"optimizer": optimizer, "schedule": "cosine", "warmup_steps": 2, "clip_norm": 1e3}
    undisturbed = train(config_of(tmp_path, "straight", **options), ToyExecutor())
    config = config_of(tmp_path, "stopped", **options)
    message = rf"stopped after {stop_at[0]} of 6 steps.*The same command continues"
    with pytest.raises(RunInterrupted, match=message) as caught:
        train(config, ToyExecutor(1, stop_at=stop_at))
    assert caught.value.exit_code == 75
    assert steps_in(config.folder)[-1] == stop_at[0]
    executor, progress = ToyExecutor(2), Silent()
    resumed = train(config, executor, progress)
    assert bits(resumed) == bits(undisturbed)
    assert executor.asked[0][0].step == stop_at[0]
    assert progress.notes == ([f"continuing after step {stop_at[0]}"])
    assert [line["step"] for line in metrics_in(config.folder)] == [1, 2, 3, 4, 5, 6]


def test_killed_between_checkpoints_goes_on_from_the_last(tmp_path):
    class Killed(Exception):
        pass

    def kill(result):
        raise Killed

    undisturbed = train(config_of(tmp_path, "straight"), ToyExecutor())
    config = config_of(tmp_path, "killed")
    with pytest.raises(Killed):
        train(config, ToyExecutor(harmed=(3, 2), harm=kill))
    assert steps_in(config.folder) == [2]
    assert [line["step"] for line in metrics_in(config.folder)] == [1, 2, 3]
    assert bits(train(config, ToyExecutor(3))) == bits(undisturbed)
    assert [line["step"] for line in metrics_in(config.folder)] == [1, 2, 3, 4, 5, 6]


def test_damaged_newest_checkpoint_costs_steps_not_bits(tmp_path):
    undisturbed = train(config_of(tmp_path, "straight"), ToyExecutor())
    config = config_of(tmp_path, "damaged")
    with pytest.raises(RunInterrupted):
        train(config, ToyExecutor(stop_at=(5, 0)))
    (config.folder / "checkpoints" / "step-5" / "outer_state.safetensors").write_bytes(b"")
    progress = Silent()
    assert bits(train(config, ToyExecutor(), progress)) == bits(undisturbed)
    assert "step-5" in progress.notes[0]
    assert progress.notes[1] == "continuing after step 4"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_tasks_are_computed(tmp_path, number):
    def send(result):
        os.kill(os.getpid(), number)
        return result

    config = config_of(tmp_path)
    with pytest.raises(RunInterrupted, match="stopped after 2 of 6 steps"):
        train(config, ToyExecutor(harmed=(2, 1), harm=send))
    assert steps_in(config.folder) == [2]


def test_signal_while_saving_waits_for_the_save(tmp_path, monkeypatch):
    real = coordinator.save_checkpoint

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(coordinator, "save_checkpoint", interrupted)
    config = config_of(tmp_path)
    with pytest.raises(RunInterrupted, match="stopped after 2 of 6"):
        train(config, ToyExecutor())
    assert steps_in(config.folder) == [2]
    load_checkpoint(config.folder / "checkpoints" / "step-2")


def test_longer_run_goes_on_where_the_shorter_one_ended(tmp_path):
    undisturbed = train(config_of(tmp_path, "straight", steps=7), ToyExecutor())
    train(config_of(tmp_path, "grown", steps=3), ToyExecutor())
    assert bits(train(config_of(tmp_path, "grown", steps=7), ToyExecutor())) == bits(undisturbed)


def test_shorter_run_than_was_trained_is_not_passed_off_as_one(tmp_path):
    # Either refuse, or return what a run of two steps gives; never the parameters of step 4 under the name of 2.
    short = train(config_of(tmp_path, "short", steps=2), ToyExecutor())
    train(config_of(tmp_path, "long", steps=4), ToyExecutor())
    shortened = config_of(tmp_path, "long", steps=2)
    try:
        found = train(shortened, ToyExecutor())
    except MetaclError as error:
        assert "outer.steps" in str(error)
    else:
        assert bits(found) == bits(short)


def test_finished_run_computes_nothing(tmp_path):
    config = config_of(tmp_path)
    trained, executor = train(config, ToyExecutor()), ToyExecutor()
    assert bits(train(config, executor)) == bits(trained)
    assert executor.asked == []


def test_resume_never_starts_at_the_beginning(tmp_path):
    config = config_of(tmp_path)
    train(config, ToyExecutor())
    executor = ToyExecutor()
    train(config, executor, resume="never")
    assert executor.asked[0][0].step == 0
    assert [line["step"] for line in metrics_in(config.folder)] == [1, 2, 3, 4, 5, 6]


def test_resume_from_a_named_checkpoint(tmp_path):
    config = config_of(tmp_path)
    trained, executor = train(config, ToyExecutor()), ToyExecutor()
    again = train(config, executor, resume=config.folder / "checkpoints" / "step-2")
    assert executor.asked[0][0].step == 2
    assert bits(again) == bits(trained)


def test_resume_from_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="step-2: not a complete checkpoint"):
        train(config_of(tmp_path), ToyExecutor(), resume=tmp_path / "step-2")


def test_checkpoint_of_other_parameters(tmp_path):
    config = config_of(tmp_path)
    train(config, ToyExecutor())
    with pytest.raises(ConfigError, match="step 6 holds other meta-parameters"):
        train(config, ToyExecutor(), initial={"adapter.w": torch.zeros(9)})


def damage(result):
    gradient = result.gradient.copy()
    gradient.view(np.uint32)[0] ^= 1
    return replace(result, gradient=gradient)


def poison(value):
    def harm(result):
        gradient = result.gradient.copy()
        gradient[1] = value
        return replace(result, gradient=gradient, checksums=(checksum(gradient),))

    return harm


RESULT = toy_result(TaskAddress("train", 0, 2, 3), np.zeros(4, np.float32))


def cut(result):
    return replace(result, gradient=result.gradient[:-1], checksums=(checksum(result.gradient[:-1]),))


@pytest.mark.parametrize(
    ("harm", "error", "part"),
    [
        (damage, ReplyDamaged, "checksum differs"),
        (cut, ReplyDamaged, r"\(3,\) numbers of float32 came back for \(4,\)"),
        (poison(np.nan), TaskFailed, r"not finite.*support losses \[2.0, 4.0\].*Lower inner.step_size"),
        (poison(-np.inf), TaskFailed, "not finite"),
        (lambda result: replace(result, query_loss=np.nan), TaskFailed, "query loss nan"),
    ],
)
def test_replies_are_checked(harm, error, part):
    MetaGradientWork().check(RESULT, np.zeros(4, np.float32))
    with pytest.raises(error, match=part):
        MetaGradientWork().check(harm(RESULT), np.zeros(4, np.float32))


def test_a_task_without_a_result_is_left_out_counted_and_kept_for_a_replay(tmp_path):
    config, progress = config_of(tmp_path, optimizer="sgd", learning_rate=0.5, steps=3), Silent()
    trained = train(config, ToyExecutor(1, harmed=(2, 3), harm=poison(np.nan)), progress)
    assert any("step=2/index=3 is left out: the meta-gradient is not finite" in note for note in progress.notes)
    lines = metrics_in(config.folder)
    assert [(line["tasks"], line["left_out"]) for line in lines] == [(4, 0), (4, 0), (3, 1)]

    layout = FlatLayout.of(INITIAL)
    before, reasons = read_failed(config.folder / "failed" / "step-2")
    assert list(reasons) == ["train/seed=0/step=2/index=3"]
    results = [toy_result(TaskAddress("train", 0, 2, index), layout.flatten(before)) for index in range(3)]
    mean = sum(result.gradient.astype(np.float64) for result in results) / 3
    expected = layout.flatten(before)[:3] - 0.5 * mean.astype(np.float32)[:3]
    np.testing.assert_allclose(layout.flatten(trained)[:3], expected, rtol=1e-6)


def test_too_few_results_end_the_run_with_the_reason(tmp_path):
    config = config_of(tmp_path, minimum_completion=0.8)
    message = r"outer step 2: 1 of 4 tasks have no usable.*completion is 0.8.*step=2/index=3: the meta-gradient is not"
    with pytest.raises(TrainingError, match=message) as caught:
        train(config, ToyExecutor(1, harmed=(2, 3), harm=poison(np.inf)))
    assert caught.value.exit_code == 4
    assert steps_in(config.folder) == [2]  # what was saved before stays
    assert read_failed(config.folder / "failed" / "step-2")


def test_accumulated_portions_are_one_step(tmp_path):
    # 2 portions of 4 tasks: the mean of all 8, but for the order of the sums; and 4 gradients in memory at a time.
    executor = ToyExecutor()
    options = {"steps": 2, "optimizer": "sgd", "learning_rate": 0.5}
    trained = train(config_of(tmp_path, accumulate=2, **options), executor)
    assert [len(asked) for asked in executor.asked] == [4, 4, 4, 4]
    assert [address.index for address in executor.asked[1]] == [4, 5, 6, 7]
    whole = train(config_of(tmp_path, "whole", **{**options, "tasks_per_step": 8}), ToyExecutor())
    layout = FlatLayout.of(INITIAL)  # but for its first number, where huge opposite ones are added
    np.testing.assert_allclose(layout.flatten(trained)[1:], layout.flatten(whole)[1:], rtol=1e-5)
    assert metrics_in(tmp_path / "run")[0]["tasks"] == 8


def test_what_comes_next_is_foreseen(tmp_path):
    pairs = []

    class Foreseen(ToyExecutor):
        def map(self, work, addresses, meta, left_out=None):
            pairs.append((list(addresses), self.foreseen))
            yield from super().map(work, addresses, meta, left_out)

    train(config_of(tmp_path, accumulate=2, steps=3), Foreseen())
    assert [foreseen for _, foreseen in pairs] == [*[addresses for addresses, _ in pairs[1:]], []]


def test_parameters_that_leave_the_numbers(tmp_path):
    # 1e36 times a gradient of some thousands is more than float32 holds.
    config = config_of(tmp_path, optimizer="sgd", learning_rate=1e36)
    message = r"outer step 0: the meta-parameters are not finite\. Lower outer\.learning_rate"
    with pytest.raises(TrainingError, match=message):
        train(config, ToyExecutor(harmed=(0, 1), harm=poison(1e5)))
    assert steps_in(config.folder) == []


def test_half_a_move_is_not_saved_as_the_step_before(tmp_path, monkeypatch):
    config = config_of(tmp_path, every=2)
    real, moved = WholeState.move, []

    def late(state, gradient, step):
        norm = real(state, gradient, step)
        moved.append(step)
        if step == 3:
            raise ResourceError("1 of 2 parts does not answer")
        return norm

    monkeypatch.setattr(WholeState, "move", late)
    with pytest.raises(ResourceError, match="does not answer"):
        train(config, ToyExecutor())
    assert moved == [0, 1, 2, 3]
    assert steps_in(config.folder) == [2]  # step 3 was finished, but its parameters may be those after step 4


def test_full_disk_ends_the_run_but_not_its_past(tmp_path, monkeypatch):
    real = coordinator.save_checkpoint

    def full(folder, checkpoint, *arguments):
        if checkpoint.step == 4:
            raise ResourceError("the disk is full")
        return real(folder, checkpoint, *arguments)

    undisturbed = train(config_of(tmp_path, "straight"), ToyExecutor())
    config = config_of(tmp_path, "full")
    monkeypatch.setattr(coordinator, "save_checkpoint", full)
    with pytest.raises(ResourceError):
        train(config, ToyExecutor())
    monkeypatch.setattr(coordinator, "save_checkpoint", real)
    assert steps_in(config.folder) == [2]
    assert bits(train(config, ToyExecutor())) == bits(undisturbed)


def test_initial_parameters_stay_as_they_are(tmp_path):
    before = bits(INITIAL)
    train(config_of(tmp_path), ToyExecutor())
    assert bits(INITIAL) == before


def test_real_worker_in_this_process(tmp_path):
    config = config_of(tmp_path, steps=2, tasks_per_step=2)
    executor = LocalExecutor(config, lambda text: None)
    executor.start()
    initial = Worker(config).initial
    trained = train(config, executor, initial=initial)
    again = train(config.model_copy(update={"output": tmp_path / "again"}), executor, initial=initial)
    assert bits(again) == bits(trained)
    assert set(trained) == set(initial)
    assert all(not torch.equal(trained[name], initial[name]) for name in initial)
    assert RunFolder(config.folder).metrics.exists()
