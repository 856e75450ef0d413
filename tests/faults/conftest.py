"""A Ray cluster of several simulated nodes with worker groups that all tests here share: a group takes ten seconds.

The head has no CPUs, so that every group lives on a node that can be killed.
"""

import contextlib
import hashlib
import logging
import time

import pytest
import ray
from ray.cluster_utils import Cluster

import metacl
from metacl.api import training
from metacl.coordination.ray_executor import RayExecutor
from tests.small_runs import save_tiny_bert, small_config

QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
    "health_check_timeout_ms": 1000,
}
HEAD = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK_TO_NOTICE}
WORKERS = {"executor": "ray", "groups": {"min": 1, "max": 3}, "task_timeout_s": 5.0}


class Watching:
    """Progress that remembers its notes and calls `after_step(step)`."""

    def __init__(self, after_step=None):
        self.notes, self.after_step = [], after_step

    def note(self, text):
        self.notes.append(text)

    def task_done(self, step, done, of):
        pass

    def step_done(self, metrics, steps):
        if self.after_step:
            self.after_step(metrics.step)

    def said(self, *parts):
        return any(all(part in note for part in parts) for note in self.notes)


def initialization_hash(config):
    """sha256 over the tensors of the initialization."""
    files = sorted((config.folder / "init").glob("*.safetensors"))
    assert files
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class Drill:
    """The cluster, the executor on it, and runs of one small model."""

    def __init__(self, folder, workers):
        self.folder, self.workers = folder, workers
        self.model = save_tiny_bert(folder / "model")
        self.cluster = Cluster(initialize_head=True, head_node_args=HEAD)
        self.nodes = []
        self.add_node()
        self.cluster.wait_for_nodes()
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
        self.notes = []
        self.executor = RayExecutor(small_config(self.model, folder / "none", workers=workers), self.notes.append)
        self.executor.start()
        undisturbed = small_config(self.model, folder / "undisturbed")
        metacl.train(undisturbed)
        self.expected = initialization_hash(undisturbed)

    def add_node(self):
        self.nodes.append(self.cluster.add_node(num_cpus=1))

    def remove_node(self):
        self.cluster.remove_node(self.nodes.pop(0))

    def wait_for_groups(self, count):
        """Bring the cluster to `count` live nodes and wait until each has a group that answers."""
        dead = [node for node in self.nodes if node.dead_processes()]
        dead += [node for node in self.nodes if node not in dead][count:]
        for node in dead:
            self.nodes.remove(node)
            self.cluster.remove_node(node)
        while len(self.nodes) < count:
            self.add_node()
        fleet, deadline = self.executor._fleet, time.monotonic() + 90
        while dead or self.groups() != count:
            assert time.monotonic() < deadline, self.notes[-5:]
            if dead or self.groups() > count:  # groups that were there are found out by giving them work
                self.train("probe", outer={"steps": 1, "tasks_per_step": 6})
                dead = []
            elif fleet.awaited:
                fleet.advance(ray.wait(fleet.awaited, timeout=0.5)[0])

    def groups(self):
        return len(self.executor._fleet.ready)

    def config(self, name, **changes):
        number = len(list(self.folder.glob(f"{name}*")))
        return small_config(self.model, self.folder / f"{name}{number}", workers=self.workers, **changes)

    def train(self, name, after_step=None, **changes):
        """A run on the shared groups; its config, and what it said."""
        config, watching = self.config(name, **changes), Watching(after_step)
        return config, self.go_on(config, watching)

    def go_on(self, config, watching=None):
        watching = watching or Watching()
        seen = len(self.notes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "running_executor", lambda *_: contextlib.nullcontext(self.executor))
            metacl.train(config, watching)
        watching.notes += self.notes[seen:]
        return watching

    def close(self):
        self.executor.close()
        ray.shutdown()
        self.cluster.shutdown()


@pytest.fixture(scope="module")  # tests/ray has a cluster of its own in the same process
def drill(tmp_path_factory, request):
    workers = {**WORKERS, **getattr(request.module, "MORE_OF_WORKERS", {})}
    made = Drill(tmp_path_factory.mktemp("drill"), workers)
    yield made
    made.close()
