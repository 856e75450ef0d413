"""The scheduler alone: by hand where order matters, and by a state machine that does everything in any order."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from metacl.config import Stragglers
from metacl.coordination.scheduler import ENOUGH, QUEUE, Scheduler
from metacl.tasks import TaskAddress


def addresses(count, step=0):
    return [TaskAddress("train", 0, step, index) for index in range(count)]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def scheduler(groups=2, tasks=4, policy="reissue", deviations=3.0, minimum_completion=1.0, clock=None):
    made = Scheduler(Stragglers(policy=policy, deviations=deviations), clock=clock or Clock())
    for group in range(groups):
        made.join(group)
    made.begin(addresses(tasks), minimum_completion)
    return made


def where(tickets):
    return [(ticket.group, ticket.address.index) for ticket in tickets]


def test_handed_out_in_turn_up_to_the_queue():
    made = scheduler(groups=2, tasks=6)
    first = made.hand_out()
    assert where(first) == [(0, 0), (1, 1), (0, 2), (1, 3)]
    assert made.hand_out() == []
    assert made.accept(first[1])
    assert where(made.hand_out()) == [(1, 4)]


def test_a_lost_groups_addresses_go_out_first_and_in_order():
    made = scheduler(groups=2, tasks=6)
    made.hand_out()
    assert [a.index for a in made.leave(0)] == [0, 2]
    made.join(2)
    assert where(made.hand_out()) == [(2, 0), (2, 2)]


def test_late_result_of_a_lost_group_counts_if_it_is_first_and_only_then():
    made = scheduler(groups=2, tasks=1)
    (late,) = made.hand_out()
    made.leave(0)
    (again,) = made.hand_out()
    assert again.group == 1
    assert made.accept(late)
    assert made.done
    assert not made.accept(again)
    assert not made.accept(late)


def test_results_of_the_call_before_are_refused_and_free_their_group():
    made = scheduler(groups=1, tasks=2)
    stale = made.hand_out()
    made.begin(addresses(2))  # the very same addresses, with other parameters
    assert made.hand_out() == []
    assert [made.accept(ticket) for ticket in stale] == [False, False]
    assert not made.done
    assert where(made.hand_out()) == [(0, 0), (0, 1)]


def test_a_failed_task_is_tried_once_elsewhere_then_given_up():
    made = scheduler(groups=2, tasks=1)
    (first,) = made.hand_out()
    assert made.refuse(first) is False
    (second,) = made.hand_out()
    assert second.group != first.group
    assert made.refuse(second) is True
    assert made.done


def test_elsewhere_waits_for_a_busy_group():
    made = scheduler(groups=2, tasks=5)
    tickets = made.hand_out()
    made.refuse(tickets[0])  # task 0 failed on group 0; group 1 is full
    (four,) = made.hand_out()
    assert (four.group, four.address.index) == (0, 4)
    made.leave(1)
    for ticket in (tickets[2], four):
        made.accept(ticket)
    assert where(made.hand_out()) == [(0, 1), (0, 3)]  # what was lost goes first


def test_a_lone_group_tries_again_itself():
    made = scheduler(groups=1, tasks=1)
    (ticket,) = made.hand_out()
    made.refuse(ticket)
    assert where(made.hand_out()) == [(0, 0)]


def test_idle_is_who_holds_nothing_when_nothing_waits():
    made = scheduler(groups=2, tasks=5)
    tickets = made.hand_out()
    for ticket in (tickets[0], tickets[2]):  # both of group 0
        made.accept(ticket)
    assert not made.idle(0)  # the fifth task waits
    (fifth,) = made.hand_out()
    made.accept(fifth)
    assert [made.idle(group) for group in (0, 1, 7)] == [True, False, False]


def test_losses_are_counted_for_the_task_that_was_computed_not_for_the_one_in_the_queue():
    made = scheduler(groups=1, tasks=2)
    made.hand_out()
    made.leave(0)
    assert [made.losses(address) for address in addresses(2)] == [1, 0]


def finished_tasks(made, clock, seconds):
    """One after the other, by the one group that has room."""
    queue = []
    for took in seconds:
        queue += made.hand_out()
        clock.now += took
        assert made.accept(queue.pop(0))


def test_deadline_is_median_and_deviations():
    clock = Clock()
    made = Scheduler(Stragglers(deviations=3.0), queue=1, clock=clock)
    made.join(0)
    made.begin(addresses(9))
    finished_tasks(made, clock, [10.0, 20.0, 30.0, 40.0])
    assert made.deadline() is None
    finished_tasks(made, clock, [100.0])
    assert ENOUGH == 5
    assert made.deadline() == pytest.approx(30.0 + 3.0 * 10.0)  # |10-30|, |20-30|, 0, |40-30|, |100-30|: MAD 10
    finished_tasks(made, clock, [30.0, 30.0, 30.0, 30.0])
    assert made.deadline() == pytest.approx(30.0 + 3.0 * 0.1 * 30.0)  # a tenth of the median in the place of a MAD of 0


def test_quick_tasks_are_given_a_second_and_kinds_have_deadlines_of_their_own():
    clock = Clock()
    made = Scheduler(Stragglers(deviations=3.0), queue=1, clock=clock)
    made.join(0)
    made.begin(addresses(5), kind="training")
    finished_tasks(made, clock, [0.125] * 5)
    assert made.deadline() == 0.125 + 1.0
    made.begin(addresses(5), kind="evaluation")
    assert made.deadline() is None
    finished_tasks(made, clock, [60.0] * 5)
    made.begin(addresses(1), kind="training")
    assert made.deadline() == 0.125 + 1.0


def straggling(policy, minimum_completion=1.0, others=1):
    """One task of six hangs on group 0 from time 0; the rest took a second each on the other."""
    clock = Clock()
    made = Scheduler(Stragglers(policy=policy, deviations=3.0), queue=1, clock=clock)
    made.join(0)
    made.begin(addresses(6), minimum_completion)
    (slow,) = made.hand_out()
    for group in range(1, 1 + others):
        made.join(group)
    finished_tasks(made, clock, [1.0] * 5)
    return made, slow


def test_policy_reissue():
    made, slow = straggling("reissue")
    assert made.reissue_overdue() == [slow]
    assert made.reissue_overdue() == []  # once
    (copy,) = made.hand_out()
    assert copy.address == slow.address and copy.group != slow.group
    assert made.drop_overdue() == []
    assert made.accept(slow) and not made.accept(copy)


def test_nothing_is_reissued_to_the_group_that_is_slow():
    made, _ = straggling("reissue")
    made.leave(1)
    assert made.reissue_overdue() == []
    assert made.hand_out() == []


def test_what_waits_behind_a_late_task_is_reissued_too_and_nothing_more_is_put_there():
    clock = Clock()
    made = Scheduler(Stragglers(policy="reissue", deviations=3.0), clock=clock)
    made.join(0)
    made.begin(addresses(5))
    finished_tasks(made, clock, [1.0] * 5)
    made.begin(addresses(1, step=1))
    made.hand_out()
    made.begin(addresses(3, step=2))  # group 0 is still at the task of the step before
    assert where(made.hand_out()) == [(0, 0)]
    clock.now += 10.0
    assert made.reissue_overdue() == []  # there is nobody else
    assert made.hand_out() == []
    made.join(1)
    assert where(made.reissue_overdue()) == [(0, 0)]
    assert where(made.hand_out()) == [(1, 0), (1, 1)]


def test_policy_wait():
    made, _ = straggling("wait")
    assert made.reissue_overdue() == made.drop_overdue() == []
    assert not made.done


@pytest.mark.parametrize(("minimum", "dropped"), [(5 / 6, True), (0.9, False), (1.0, False)])
def test_policy_drop_wants_enough(minimum, dropped):
    made, slow = straggling("drop", minimum)
    assert made.drop_overdue() == ([slow] if dropped else [])
    assert made.done == dropped
    assert made.accept(slow) is not dropped


def test_hung_groups_are_seen_even_when_what_they_compute_is_stale():
    clock = Clock()
    made = scheduler(groups=2, tasks=2, clock=clock)
    tickets = made.hand_out()
    clock.now = 50.0
    made.accept(tickets[0])
    made.begin(addresses(1, step=1))
    made.hand_out()
    clock.now = 61.0
    assert made.busy_longer_than(60.0) == [1]


class AnyInterleaving(RuleBasedStateMachine):
    """Groups join and are lost, results come late, twice, damaged or not at all, time passes, steps begin early."""

    @initialize(policy=st.sampled_from(["wait", "reissue"]))
    def start(self, policy):
        self.clock = Clock()
        self.scheduler = Scheduler(Stragglers(policy=policy, deviations=1.0), clock=self.clock)
        self.tickets = []  # everything ever handed out, answered or not, group alive or not
        self.alive = set()
        self.holding = {}
        self.refused = set()
        self.new_groups = iter(range(10_000))
        self.step = -1
        self.begin(5)

    @rule(count=st.integers(1, 8))
    def begin(self, count):
        self.step += 1
        self.expected = addresses(count, self.step)
        self.accepted = {}
        self.given_up = set()
        self.refused = set()
        self.scheduler.begin(self.expected)

    @rule()
    def join(self):
        group = next(self.new_groups)
        self.alive.add(group)
        self.holding[group] = set()
        self.scheduler.join(group)

    @rule()
    def hand_out(self):
        for ticket in self.scheduler.hand_out():
            assert ticket.group in self.alive
            assert ticket.address in self.expected and ticket.address not in self.accepted
            held = self.holding[ticket.group]
            assert ticket.address not in {other.address for other in held if other.call == ticket.call}
            held.add(ticket)
            self.tickets.append(ticket)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def answer(self, data):
        """Any ticket at all: of a lost group, of an earlier step, for the second time."""
        self.take(data.draw(st.sampled_from(self.tickets)))

    def take(self, ticket):
        self.holding[ticket.group].discard(ticket)
        if self.scheduler.accept(ticket):
            assert ticket.address not in self.accepted and ticket.address not in self.given_up
            self.accepted[ticket.address] = value_of(ticket.address)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def reply_is_damaged(self, data):
        ticket = data.draw(st.sampled_from(self.tickets))
        self.holding[ticket.group].discard(ticket)
        self.scheduler.damaged(ticket)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def task_fails_for_the_first_time(self, data):
        ticket = data.draw(st.sampled_from(self.tickets))
        if ticket.address in self.refused:
            return
        self.refused.add(ticket.address)
        self.holding[ticket.group].discard(ticket)
        assert self.scheduler.refuse(ticket) is False

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def group_is_lost(self, data):
        group = data.draw(st.sampled_from(sorted(self.alive)))
        self.alive.discard(group)
        self.holding[group] = set()
        self.scheduler.leave(group)

    @rule(seconds=st.floats(0.0, 100.0))
    def time_passes(self, seconds):
        self.clock.now += seconds
        self.scheduler.reissue_overdue()

    @invariant()
    def nothing_is_counted_that_was_not_asked(self):
        assert set(self.accepted) <= set(self.expected)
        assert self.scheduler.done == (set(self.accepted) == set(self.expected))

    @invariant()
    def in_flight_is_bounded(self):
        assert all(len(held) <= QUEUE for held in self.holding.values())

    def teardown(self):
        """Whatever happened: with one more group the step ends, and its sum is the undisturbed one."""
        if not hasattr(self, "scheduler"):
            return
        self.join()
        for _ in range(10_000):
            if self.scheduler.done:
                break
            self.hand_out()
            for ticket in [ticket for held in self.holding.values() for ticket in sorted(held, key=lambda t: t.number)]:
                self.take(ticket)
        assert set(self.accepted) == set(self.expected)
        assert in_order(self.accepted) == in_order({address: value_of(address) for address in self.expected})


def value_of(address):
    """Numbers of very different sizes: added up in another order they give another sum."""
    generator = np.random.default_rng([address.step, address.index])
    return float(generator.standard_normal() * 10.0 ** generator.integers(-12, 12))


def in_order(values):
    return added_up(values[address] for address in sorted(values))


def added_up(values):
    """Plainly: Python's own `sum` compensates for the order since 3.12."""
    total = 0.0
    for value in values:
        total += value
    return total


def test_the_instrument_would_see_another_order():
    values = [value_of(address) for step in range(3) for address in addresses(8, step)]
    assert added_up(values) != added_up(reversed(values))


TestAnyInterleaving = AnyInterleaving.TestCase
TestAnyInterleaving.settings = settings(max_examples=150, stateful_step_count=40)
