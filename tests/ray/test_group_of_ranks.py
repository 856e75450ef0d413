"""Groups of two ranks as a run has them: the numbers of one rank, the same bits again, also after the loss of a rank.

One executor for all tests, since starting four ranks takes long; the tests at the end break its groups, one each.
"""

import os
import signal

import numpy as np
import pytest
import ray
from ray.exceptions import ActorDiedError

from metacl.coordination.ray_executor import RayExecutor
from metacl.coordination.worker import MetaGradientWork, Parameters, Worker
from metacl.tasks import TaskAddress
from tests.small_models import save_family
from tests.small_runs import small_config

pytestmark = pytest.mark.ray

ADDRESSES = [TaskAddress("train", 0, 0, index) for index in range(4)]


@pytest.fixture(scope="module")
def run(ray_cluster, tmp_path_factory):
    """An executor of two groups that hold a sharded and offloaded base, and a worker in this process."""
    folder = tmp_path_factory.mktemp("run")
    model = save_family("llama", folder / "llama")
    changes = {
        "learner__adapter": {"rank": 2, "targets": ["q_proj", "v_proj"]},
        "objective": "maml",
        "learner__logit_scale": 1.0,
        "inner": {"steps": 2, "step_size": {"value": 0.01, "head": 0.05}},
    }
    workers = {"executor": "ray", "groups": 2, "ranks_per_group": 2, "zero_stage": 3, "offload": "cpu"}
    workers["deepspeed"] = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
    config = small_config(model, folder / "run", **changes, workers=workers)
    notes = []
    executor = RayExecutor(config, notes.append)
    executor.start()
    assert sum("rank 0 of 2" in note and "ZeRO stage 3" in note for note in notes) == 2
    yield executor, Worker(small_config(model, folder / "run", **changes)), notes
    executor.close()


def middle_of_training(alone):
    meta = alone.layout.flatten(alone.initial)
    return meta + np.linspace(-0.05, 0.05, meta.size, dtype=np.float32)


def test_the_numbers_of_one_rank_and_the_same_bits_again(run):
    executor, alone, _ = run
    meta = middle_of_training(alone)
    expected = {address: MetaGradientWork()(alone, address, meta) for address in ADDRESSES}
    found = {done.address: done.result for done in executor.map(MetaGradientWork(), ADDRESSES, meta)}
    again = {done.address: done.result for done in executor.map(MetaGradientWork(), ADDRESSES[::-1], meta)}
    for address in ADDRESSES:
        assert found[address].checksums == again[address].checksums
        away = np.linalg.norm(found[address].gradient - expected[address].gradient)
        assert away < 1e-6 * np.linalg.norm(expected[address].gradient)
        assert found[address].query_loss == pytest.approx(expected[address].query_loss, rel=1e-6)


class FailsOnOneRank:
    """The usual work, but for rank 1."""

    def __call__(self, worker, address, meta):
        if worker.learner.ranks.rank == 1:
            raise MemoryError("only here")
        return MetaGradientWork()(worker, address, meta)


def test_a_rank_that_fails_alone_ends_its_group(run):
    executor, alone, _ = run
    group = executor._fleet.ready[0]
    assert group.node == ray.get_runtime_context().get_node_id()
    with pytest.raises(ActorDiedError):
        ray.get(group.submit(FailsOnOneRank(), ADDRESSES[0], Parameters.of(middle_of_training(alone))))


def test_a_lost_rank_is_the_loss_of_its_group_and_costs_no_bit(run):
    """Group 0 is found dead, and of group 1 a rank dies: both are started again, and all tasks are computed."""
    executor, alone, notes = run
    meta = middle_of_training(alone)
    before = {done.address: done.result.checksums for done in executor.map(MetaGradientWork(), ADDRESSES, meta)}
    group = executor._fleet.ready[1]
    pid = ray.get(group._ranks[1].__ray_call__.remote(lambda _: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    after = {done.address: done.result.checksums for done in executor.map(MetaGradientWork(), ADDRESSES, meta)}
    assert after == before and set(after) == set(ADDRESSES)
    assert any("worker group 1 is lost" in note for note in notes)
