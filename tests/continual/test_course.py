"""Whoever computes the parts of a run, and in whatever order they come: the bytes are those of one process."""

import itertools
import pickle
import random

import numpy as np
import pytest
import torch

from metacl import api
from metacl.config import Stragglers
from metacl.continual import run
from metacl.continual.loop import Trained
from metacl.continual.worker import ContinualWorker
from metacl.coordination.scheduler import Scheduler
from metacl.coordination.worker import Done
from metacl.errors import ConfigError
from tests.continual.test_run import tensor_bytes, timeless


class AnyOrder:
    """Three workers; who computes what is drawn, some of it twice; results come in any order, after their pickling."""

    waited_s = 0.0

    def __init__(self, config, notify, kind):
        self._workers = [kind(config) for _ in range(3)]
        self._random = random.Random(0)
        self.computed = []

    def start(self):
        pass

    def close(self):
        pass

    def map(self, work, addresses, meta, left_out=None, further=None):
        waiting = list(addresses)
        while waiting:
            address = waiting.pop(self._random.randrange(len(waiting)))
            for _ in range(self._random.choice([1, 1, 2])):  # the first one's result is lost
                worker = self._random.choice(self._workers)
                self.computed.append((address, self._workers.index(worker)))
                sent = pickle.loads(pickle.dumps(work.handed_out(address), protocol=5))
                result = pickle.loads(pickle.dumps(sent(worker, address, meta), protocol=5))
            yield Done(address, result)
            waiting += further()


def test_any_order_of_workers_and_answers(config, tmp_path, monkeypatch):
    api.continual(config("one"))
    made = []

    def pool(config_, notify, learner):
        made.append(AnyOrder(config_, notify, ContinualWorker))
        return made[0]

    monkeypatch.setattr(run, "_pool", pool)
    api.continual(config("any", workers={"groups": 3}))
    assert timeless(tmp_path / "any") == timeless(tmp_path / "one")
    for k in (2, 3):
        assert tensor_bytes(tmp_path / "any", k) == tensor_bytes(tmp_path / "one", k)
    learned = [(address, place) for address, place in made[0].computed if address.split == "train"]
    asked = [address for address, _ in made[0].computed if address.split == "test"]
    assert len({place for _, place in learned}) > 1 and {address.index for address in asked} == {0, 1}


class Scheduled(AnyOrder):
    """Three groups as the scheduler has them; the one that was given its work first is ready first."""

    def map(self, work, addresses, meta, left_out=None, further=None):
        scheduler, out, self.together = Scheduler(Stragglers(policy="wait"), queue=1), [], []
        for group in range(len(self._workers)):
            scheduler.join(group)
        scheduler.begin(addresses)
        while not scheduler.done:
            out += scheduler.hand_out()
            self.together.append({(ticket.address.split, ticket.address.step) for ticket in out})
            ticket = out.pop(0)
            self._busy = ticket.group
            result = work.handed_out(ticket.address)(self._workers[ticket.group], ticket.address, meta)
            scheduler.accept(ticket)
            yield Done(ticket.address, result)
            scheduler.add(further())


def test_one_seed_is_tested_and_learned_at_once(config, monkeypatch):
    made = []
    monkeypatch.setattr(run, "_pool", lambda *given: made.append(Scheduled(*given[:2], ContinualWorker)) or made[0])
    api.continual(config(strategies=[], workers={"groups": 3}))
    assert all(any({("test", k), ("train", k + 1)} <= out for out in made[0].together) for k in (0, 1))


def test_nothing_is_kept_of_a_finished_seed(config, monkeypatch):
    held = []

    class Watched(Scheduled):
        def map(self, work, *given, **options):
            for done in super().map(work, *given, **options):
                yield done
                held.append(([set(worker._loops) for worker in self._workers], self._busy, set(work._courses)))

    monkeypatch.setattr(run, "_pool", lambda *given: Watched(*given[:2], ContinualWorker))
    for seeds in ([0, 1], [0, 1, 2]):  # the second time two of them are finished from the beginning
        api.continual(config(experiences=1, strategies=[], seeds=seeds, workers={"groups": 3}))
    # A worker hears of it with the next work it gets.
    assert all(loops[busy] <= before for (_, _, before), (loops, busy, _) in itertools.pairwise(held) if before)


def test_what_arrives_is_what_was_sent():
    transposed = torch.arange(6.0).reshape(2, 3).T
    params = {"b": transposed, "a": torch.tensor(1.5, dtype=torch.float64), "h": torch.ones(3, dtype=torch.bfloat16)}
    states = ({"memory": torch.empty(0, 2, dtype=torch.int64), "mask": torch.tensor([True, False])}, {})
    sent = Trained(params, states)
    buffers = []
    arrived = pickle.loads(pickle.dumps(sent, protocol=5, buffer_callback=buffers.append), buffers=buffers)
    assert len(buffers) == 1  # all of it in one
    assert buffers[0].raw().nbytes == 6 * 4 + 8 + 3 * 2 + 2
    assert list(arrived.params) == list(params) and [list(state) for state in arrived.states] == [
        ["memory", "mask"],
        [],
    ]
    for before, after in zip([params, *states], [arrived.params, *arrived.states], strict=True):
        for name, tensor in before.items():
            assert after[name].dtype == tensor.dtype and torch.equal(after[name], tensor)
            assert after[name].is_contiguous() and (not tensor.numel() or after[name].data_ptr() % 64 == 0)
    arrived.params["b"] += 1  # its own memory
    assert np.array_equal(transposed.numpy(), np.arange(6.0).reshape(2, 3).T)


@pytest.mark.parametrize(
    ("workers", "part"),
    [
        ({"ranks_per_group": 2}, r"workers\.ranks_per_group: one rank learns"),
        ({"gpus_per_group": 1}, r"workers\.gpus_per_group: .* for CPUs"),
        ({"zero_stage": 3}, r"workers\.zero_stage: one rank holds"),
        ({"gradient_shards": 2}, r"workers\.gradient_shards"),
        ({"tasks_per_forward": 2}, r"workers\.tasks_per_forward"),
        ({"stragglers": {"policy": "drop"}}, r"workers\.stragglers\.policy: every experience"),
        ({"executor": "local", "groups": 2}, "the local executor is one process"),
    ],
)
def test_workers_that_cannot_be(config, workers, part):
    with pytest.raises(ConfigError, match=part):
        config(workers=workers)


def test_workers_of_a_run_may_change_but_not_what_bits_depend_on(config):
    api.continual(config(experiences=1, strategies=[]))
    api.continual(config(experiences=1, strategies=[], workers={"executor": "local", "task_timeout_s": 5}))
    with pytest.raises(ConfigError, match=r"workers\.threads: 1 -> 2"):
        api.continual(config(experiences=1, strategies=[], workers={"executor": "local", "threads": 2}))
