"""What a rank is sent and what it sends back: versions, checksums, and tasks that nobody can go on without."""

import numpy as np
import pytest

from metacl.coordination.executor import LocalExecutor
from metacl.coordination.held_out import HeldOutLoss
from metacl.coordination.ray_group import GroupRank
from metacl.coordination.worker import Parameters, ReplyDamaged, TaskFailed, Work, Worker
from metacl.tasks import TaskAddress
from tests.helpers import tiny_config, write_labelled_csv

ADDRESS = TaskAddress("valid", 0, 0, 1)


class Total(Work):
    def __call__(self, worker, address, meta):
        return float(meta.sum())


def test_a_reply_carries_the_version_of_the_parameters_it_is_for():
    rank = GroupRank()
    rank.worker = None
    ones = Parameters.of(np.ones(3, np.float32))
    assert (rank.run(Total(), ADDRESS, ones).version, rank.run(Total(), ADDRESS, ones).result) == (ones.version, 3.0)
    twos = Parameters.of(2 * ones.flat)
    assert twos.version != ones.version
    assert rank.run(Total(), ADDRESS, twos).version == twos.version


def test_parameters_that_were_damaged_on_their_way_are_not_used():
    rank = GroupRank()
    rank.worker = None
    ones = Parameters.of(np.ones(3, np.float32))
    with pytest.raises(ReplyDamaged, match="the parameters were damaged"):
        rank.run(Total(), ADDRESS, Parameters(2 * ones.flat, ones.version))


def test_a_failed_task_is_an_error_where_nobody_goes_on_without_it(tmp_path):
    write_labelled_csv(tmp_path / "data.csv", classes=20)
    config, notes = tiny_config(tmp_path), []
    executor = LocalExecutor(config, notes.append)
    executor.start()
    meta = np.full(Worker(config).layout.size, np.nan, np.float32)
    with pytest.raises(TaskFailed, match="task valid/seed=0/step=0/index=1: the support loss is nan"):
        list(executor.map(HeldOutLoss(), [ADDRESS], meta))
    assert "trying once more" in notes[-1]
    left_out = {}
    assert list(executor.map(HeldOutLoss(), [ADDRESS], meta, left_out.__setitem__)) == []
    assert list(left_out) == [ADDRESS]
    assert executor.waited_s > 0
