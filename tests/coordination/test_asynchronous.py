"""Asynchronous steps on groups of a virtual clock: delayed descent by hand, and the bound on a gradient's age."""

import heapq
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metacl.config import RunConfig, Stragglers
from metacl.coordination import ray_executor, ray_pool
from metacl.coordination.flat import checksum
from metacl.coordination.scheduler import Scheduler
from metacl.coordination.worker import Done, Parameters, Reply, TaskFailed, TaskResult
from metacl.errors import ConfigError, TrainingError
from metacl.tasks import TaskAddress
from tests.coordination.test_coordinator import Silent, metrics_in, train
from tests.helpers import tiny_config

INITIAL = {"adapter.w": torch.tensor([4.0, -3.0, 2.0])}


def target(address):
    return np.random.default_rng([address.step, address.index]).normal(1.0, 0.1, 3).astype(np.float32)


def gradient(address, meta):
    return (meta - target(address)).astype(np.float32)


class Groups:
    """Group n takes seconds[n] a task; `fails` says which addresses have no result. Ends its stream when told to."""

    waited_s = 0.0

    def __init__(self, seconds, fails=lambda address: False):
        self.seconds, self.fails = seconds, fails
        self.time, self.refused, self.counted, self.ended = 0.0, 0, [], False

    def stream(self, work, addresses, meta, staleness, left_out):
        try:
            yield from self.endless(addresses, meta, staleness, left_out)
        finally:
            self.ended = True

    def endless(self, addresses, meta, staleness, left_out):
        scheduler = Scheduler(Stragglers(policy="wait"), queue=1, clock=lambda: self.time)
        for group in range(len(self.seconds)):
            scheduler.join(group)
        scheduler.begin([], staleness=staleness)
        newest, versions, answers = meta(), [meta().copy()], []  # sent, as it were: the buffer is used again
        while True:
            if meta() is not newest:
                newest = meta()
                versions.append(newest.copy())
                scheduler.renew()
            scheduler.extend(addresses)
            for ticket in scheduler.hand_out():
                there = self.time + self.seconds[ticket.group]
                heapq.heappush(answers, (there, ticket.number, ticket, len(versions) - 1))
            self.time, _, ticket, version = heapq.heappop(answers)
            if self.fails(ticket.address):
                if scheduler.refuse(ticket):
                    left_out(ticket.address, str(TaskFailed("it fails")))
                continue
            age = len(versions) - 1 - version
            assert scheduler.staleness(ticket) == age
            if not scheduler.accept(ticket):
                self.refused += 1
                assert age > staleness
                continue
            self.counted.append((ticket.address, age))
            found = gradient(ticket.address, versions[version])
            loss = float(np.square(found).sum())
            yield Done(ticket.address, TaskResult(found, (checksum(found),), loss, (loss,)), age)


def config_of(folder, staleness=1, **outer):
    outer = {"steps": 12, "optimizer": "sgd", "learning_rate": 0.25, "asynchronous": {"staleness": staleness}, **outer}
    return tiny_config(folder, outer=outer, workers={"executor": "ray"})


def test_two_equal_groups_are_descent_with_a_delay_of_one(tmp_path):
    # Both begin at φ_0; from then on each step is taken while the other group computes: φ_{v+1} = φ_v − α g(φ_{v−1}).
    trained = train(config_of(tmp_path, tasks_per_step=1), Groups([1.0, 1.0]), initial=INITIAL)
    phi = [INITIAL["adapter.w"].double().numpy()] * 2
    for step in range(12):
        phi.append(phi[-1] - 0.25 * (phi[-2] - target(TaskAddress("train", 0, step, 0))))
    np.testing.assert_allclose(trained["adapter.w"], phi[-1], rtol=1e-5)
    ages = [line["staleness"] for line in metrics_in(tmp_path / "run")]
    assert ages == [0, *[1] * 11]


def test_one_group_is_never_behind_and_takes_the_synchronous_steps(tmp_path):
    groups = Groups([1.0])
    trained = train(config_of(tmp_path, tasks_per_step=2), groups, initial=INITIAL)
    phi = INITIAL["adapter.w"].double().numpy()
    for step in range(12):
        phi = phi - 0.25 * np.mean([phi - target(TaskAddress("train", 0, step, index)) for index in range(2)], axis=0)
    np.testing.assert_allclose(trained["adapter.w"], phi, rtol=1e-5)
    assert {age for _, age in groups.counted} == {0}
    assert groups.ended


@pytest.mark.parametrize("staleness", [1, 2, 10])
def test_nothing_older_than_the_bound_counts_and_it_trains(tmp_path, staleness):
    groups = Groups([1.0, 1.1, 9.7])
    config = config_of(tmp_path, staleness, tasks_per_step=2, steps=40, learning_rate=0.1)
    trained = train(config, groups, initial=INITIAL)
    assert max(age for _, age in groups.counted) <= staleness
    assert len({address for address, _ in groups.counted}) == len(groups.counted) == 80
    assert (groups.refused > 0) == (staleness < 10)  # the slow group is nine steps behind
    np.testing.assert_allclose(trained["adapter.w"], 1.0, atol=0.15)
    assert all(line["tasks"] == 2 and line["staleness"] <= staleness for line in metrics_in(tmp_path / "run"))


def test_steps_without_enough_results_end_the_run(tmp_path):
    groups = Groups([1.0, 1.0], fails=lambda address: address.step >= 3)
    with pytest.raises(TrainingError, match=r"outer step 3: 3 tasks have no usable.*completion is 0.5 of 4.*it fails"):
        train(config_of(tmp_path, tasks_per_step=4), groups, initial=INITIAL)


def test_a_few_that_fail_are_left_out_and_others_take_their_place(tmp_path):
    groups, progress = Groups([1.0], fails=lambda address: address.index == 3), Silent()
    train(config_of(tmp_path, tasks_per_step=4, steps=4), groups, progress, initial=INITIAL)
    lines = metrics_in(tmp_path / "run")
    assert [line["tasks"] for line in lines] == [4] * 4
    assert sum(line["left_out"] for line in lines) == sum("is left out: it fails" in n for n in progress.notes) > 0


class Answer:
    """Stands for an object reference."""

    def __init__(self, reply):
        self.reply = reply


class AnsweredAtOnce:
    """A worker group, and of Ray what the executor needs: every answer is there as soon as it is looked for."""

    def submit(self, work, address, parameters):
        found = gradient(address, parameters.flat)
        return Answer(Reply(parameters.version, TaskResult(found, (checksum(found),), 1.0, (1.0,))))

    def cancel(self, reference):
        pass


def test_answers_that_come_together_are_held_to_the_bound_one_after_the_other(tmp_path, monkeypatch):
    config, notes = config_of(tmp_path, tasks_per_step=1), []
    copied = lambda parameters: Parameters(parameters.flat.copy(), parameters.version)  # noqa: E731
    fake = SimpleNamespace(put=copied, get=lambda reference: reference.reply)
    fake.wait = lambda references, num_returns, timeout: (references[:num_returns], references[num_returns:])
    monkeypatch.setattr(ray_pool, "ray", fake)
    executor = ray_executor.RayExecutor(config, notes.append)
    executor._fleet.ready = {number: AnsweredAtOnce() for number in range(4)}
    train(config, executor, initial=INITIAL)
    ages = [line["staleness"] for line in metrics_in(tmp_path / "run")]
    assert max(ages) == 1 and ages.count(0) > 1  # of eight that are out one is new, one a step old, and six too old
    assert any(note.startswith("computing 6 task(s) again") for note in notes)


@given(staleness=st.integers(0, 3), events=st.lists(st.integers(0, 6), max_size=60), data=st.data())
def test_scheduler_under_any_interleaving(staleness, events, data):
    """0–2: an answer, 3: a renewal, 4: a group joins, 5: one is lost, 6: an answer comes twice."""
    scheduler = Scheduler(Stragglers(policy="wait"), clock=lambda: 0.0)
    scheduler.join(0)
    scheduler.begin([], staleness=staleness)
    addresses = iter([TaskAddress("train", 0, step, 0) for step in range(1000)])
    version, groups, tickets, issued, accepted = 0, 1, [], {}, set()

    def hand_out():
        scheduler.extend(addresses)
        for ticket in scheduler.hand_out():
            issued[ticket] = version
            tickets.append(ticket)

    def answer(ticket):
        counts = version - issued[ticket] <= staleness and ticket.address not in accepted
        assert scheduler.accept(ticket) == counts
        if counts:
            accepted.add(ticket.address)

    hand_out()
    for event in events:
        if event == 3:
            version += 1
            scheduler.renew()
        elif event == 4:
            scheduler.join(groups)
            groups += 1
        elif event == 5 and scheduler.groups:
            scheduler.leave(data.draw(st.sampled_from(scheduler.groups)))
        elif tickets:
            answer(data.draw(st.sampled_from(tickets)))
        hand_out()
    open_addresses = {ticket.address for ticket in tickets} - accepted
    scheduler.join(groups)
    for _ in range(300):  # whatever happened, every task that was begun is finished at last
        hand_out()
        if not open_addresses - accepted:
            break
        for ticket in tickets[-8:]:
            answer(ticket)
    for ticket in tickets:
        answer(ticket)
    assert open_addresses <= accepted


def test_begin_forgets_the_stream():
    scheduler = Scheduler(Stragglers(policy="wait"), clock=lambda: 0.0)
    scheduler.join(0)
    scheduler.begin([], staleness=5)
    address = TaskAddress("valid", 0, 0, 0)
    scheduler.extend(iter([address]))
    (old,) = scheduler.hand_out()
    scheduler.begin([address])
    assert not scheduler.accept(old)
    (new,) = scheduler.hand_out()
    assert scheduler.accept(new)


@pytest.mark.parametrize(
    ("outer", "workers", "part"),
    [
        ({}, {"executor": "local"}, "one process has nobody to wait for. Set workers.executor=ray"),
        ({"accumulate": 2}, {}, "accumulate=1"),
        ({"held_out": {}}, {}, "outer.held_out=null"),
        ({}, {"gradient_shards": 2}, "workers.gradient_shards=1"),
        ({}, {"stragglers": {"policy": "drop"}}, "stragglers.policy=wait"),
    ],
)
def test_what_does_not_go_together(tmp_path, outer, workers, part):
    sections = {"outer": {"asynchronous": {}, **outer}, "workers": {"executor": "ray", **workers}}
    with pytest.raises((ConfigError, ValueError), match=part):
        RunConfig.model_validate(tiny_config(tmp_path, **sections))
