"""What `--dry-run` says a rank of a sharded group will hold, against the peak of real ranks in the environment of real
groups: nothing about allocators is set from outside."""

import ctypes
import gc
import os
from pathlib import Path

import pytest

from metacl.config import config_from_dict
from metacl.coordination.memory_plan import rank_memory
from metacl.coordination.worker import MetaGradientWork, Worker
from metacl.plan import MB, PROCESS_MB
from metacl.tasks import TaskAddress
from tests.small_models import FAMILIES, save_family
from tests.small_runs import small_tree

pytestmark = pytest.mark.ray

WORKERS = {
    "executor": "ray",
    "ranks_per_group": 2,
    "zero_stage": 3,
    "deepspeed": {"zero_optimization": {"stage3_param_persistence_threshold": 0}},
}


def tree_of(model, family, estimator, whole_model):
    return small_tree(
        model,
        Path("unused"),
        learner__max_length=48,
        learner__adapter=None if whole_model else {"rank": 2, "targets": list(FAMILIES[family][1])},
        episodes={"ways": 5, "shots": 6, "queries": 2},
        outer__tasks_per_step=1,
        objective="maml",
        estimator=estimator,
        workers=WORKERS,
    )


def peak_of(rank, warm_up, tree):
    """Bytes of a process with its libraries and data, and at its peak: it loads a model and computes a task."""
    engine = rank.engine(3)
    address = TaskAddress("train", 0, 0, 0)

    def compute(worker):
        MetaGradientWork()(worker, address, worker.layout.flatten(worker.initial))

    first = Worker(config_from_dict(warm_up), engine)
    compute(first)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    compute(Worker(config_from_dict(tree), engine))
    return before, resident_bytes("VmHWM")


def resident_bytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


@pytest.mark.parametrize(
    ("family", "estimator", "whole_model"),
    [("bert", {"name": "reverse", "allowance": "all"}, False), ("gpt2", "reptile", True)],
    ids=("adapter", "whole model"),
)
def test_a_rank_holds_what_is_planned(pair, tmp_path, family, estimator, whole_model):
    assert not any(name.startswith(("MALLOC_", "GLIBC_")) for name in os.environ)
    small = save_family(family, tmp_path / "small")
    model = save_family(family, tmp_path / "model", hidden=512)
    tree = tree_of(model, family, estimator, whole_model)
    planned = rank_memory(config_from_dict(tree)).on_device
    for before, peak in pair.call(peak_of, tree_of(small, family, estimator, whole_model), tree):
        assert planned == pytest.approx(peak - before, rel=0.15)
        assert PROCESS_MB * MB + planned == pytest.approx(peak, rel=0.15)
