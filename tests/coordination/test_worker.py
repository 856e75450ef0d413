"""A worker: the result of an address, held against the estimator it uses."""

import pickle

import numpy as np
import pytest
import torch

from metacl.coordination.executor import LocalExecutor
from metacl.coordination.flat import checksum
from metacl.coordination.worker import MakeAhead, MetaGradientWork, TaskFailed, Worker
from metacl.learners.base import as_leaves
from metacl.metagradients import Unrolled
from metacl.tasks import TaskAddress
from tests.helpers import tiny_config

ADDRESS = TaskAddress("train", 0, 3, 1)


@pytest.fixture
def worker(tmp_path):
    return Worker(tiny_config(tmp_path))


def test_result_is_the_meta_gradient_of_the_addressed_task(worker):
    meta = worker.layout.flatten(worker.initial) + np.float32(0.01)
    result = MetaGradientWork()(worker, ADDRESS, meta)
    task = worker.learner.prepare(worker.source.episode(ADDRESS, worker.config.episodes))
    params = as_leaves(worker.parameters(meta))
    problem = worker.config.objective.problem(worker.learner, params, task, worker.config.inner)
    expected = Unrolled().estimate(problem)
    np.testing.assert_allclose(result.gradient, worker.layout.flatten(expected.gradient), rtol=1e-3, atol=1e-6)
    assert result.query_loss == pytest.approx(expected.query_loss, rel=1e-5)
    assert result.support_losses == pytest.approx(expected.support_losses, rel=1e-5)
    assert result.gradient.dtype == np.float32
    assert result.checksums == (checksum(result.gradient),)


def test_same_address_same_bits_whatever_came_before(tmp_path, worker):
    meta = worker.layout.flatten(worker.initial)
    first = MetaGradientWork()(worker, ADDRESS, meta)
    MetaGradientWork()(worker, TaskAddress("train", 0, 4, 0), meta + 1)
    assert MetaGradientWork()(worker, ADDRESS, meta).checksums == first.checksums
    assert MetaGradientWork()(Worker(tiny_config(tmp_path)), ADDRESS, meta).checksums == first.checksums
    assert MetaGradientWork()(worker, TaskAddress("train", 0, 3, 2), meta).checksums != first.checksums


def test_divergence_is_a_failed_task_with_the_mend(worker):
    meta = np.full(worker.layout.size, np.nan, np.float32)
    with pytest.raises(TaskFailed) as caught:
        MetaGradientWork()(worker, ADDRESS, meta)
    message = str(caught.value)
    assert message.startswith("the support loss is nan at inner step 0")
    assert "Lower inner.step_size.value (now 0.05)" in message


def test_layout_holds_every_meta_parameter(worker):
    assert [name for name, _ in worker.layout.shapes] == sorted(worker.initial)
    assert {"adapter.weight", "step_size.adapter.weight", "step_size.head.bias"} <= set(worker.initial)
    for name, tensor in worker.parameters(worker.layout.flatten(worker.initial)).items():
        assert torch.equal(tensor, worker.initial[name].float())


def test_work_and_results_travel(worker):
    result = MetaGradientWork()(worker, ADDRESS, worker.layout.flatten(worker.initial))
    assert pickle.loads(pickle.dumps(MetaGradientWork())) == MetaGradientWork()
    assert (checksum(pickle.loads(pickle.dumps(result)).gradient),) == result.checksums


def test_threads_are_fixed(tmp_path):
    Worker(tiny_config(tmp_path, workers={"executor": "local", "threads": 2}))
    try:
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_local_executor_answers_every_address_once(tmp_path):
    notes = []
    executor = LocalExecutor(tiny_config(tmp_path), notes.append)
    executor.start()
    meta = Worker(tiny_config(tmp_path)).layout
    addresses = [TaskAddress("train", 0, 0, index) for index in range(3)]
    found = list(executor.map(MetaGradientWork(), addresses, np.zeros(meta.size, np.float32)))
    assert [done.address for done in found] == addresses
    assert notes == ["loading a tiny test learner"]
    executor.close()
    with pytest.raises(AssertionError, match="start"):
        list(executor.map(MetaGradientWork(), addresses, np.zeros(meta.size, np.float32)))


def test_what_is_made_ahead_is_used_once_and_changes_no_bit(tmp_path, monkeypatch):
    worker = Worker(tiny_config(tmp_path))
    meta = worker.layout.flatten(worker.initial)
    expected = MetaGradientWork()(worker, ADDRESS, meta)
    made, prepare = [], worker.learner.prepare
    monkeypatch.setattr(worker.learner, "prepare", lambda episode: made.append(episode.address) or prepare(episode))
    other = TaskAddress("train", 0, 9, 9)
    MakeAhead()(worker, other, meta)
    MakeAhead()(worker, ADDRESS, meta)
    found = [MetaGradientWork()(worker, ADDRESS, meta) for _ in range(2)]
    assert made == [other, ADDRESS, ADDRESS]  # the first result took what was there, the second made its own
    assert {result.checksums for result in found} == {expected.checksums}
