"""Whatever is killed, hangs, lies or comes and goes: the run ends with the bytes of the run left alone.

The tests share their groups and stand in the order that changes the cluster the least.
"""

import pytest

from metacl.errors import ResourceError, RunInterrupted
from tests.faults.conftest import initialization_hash

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TOO_LONG = "is lost (it has computed one task for more than"
LATE = "is late on worker group"
SIGNS = {
    "kill_rank": ("is lost (",),
    "kill_node": ("is lost (", LATE),  # it is only late until Ray notices
    "hang": (TOO_LONG, LATE),
    "slow": ("strikes",),  # late or not: that depends on how long the others took
    "non_finite": ("not finite",),
    "corrupt_reply": ("damaged on its way",),
}
"""What a run says when it meets the fault, one or the other."""


def strike(kind, step=3, index=1, **options):
    return {"kind": kind, "step": step, "index": index, **options}


@pytest.mark.parametrize("kind", ["non_finite", "corrupt_reply", "kill_rank", "hang"])
def test_one_group(drill, kind):
    drill.wait_for_groups(1)
    config, run = drill.train(kind, faults=[strike(kind)])
    assert run.said("strikes", kind)
    assert any(run.said(sign) for sign in SIGNS[kind])
    assert initialization_hash(config) == drill.expected


def test_full_disk(drill):
    drill.wait_for_groups(1)
    config = drill.config("full", faults=[strike("disk_full", 3)])
    message = r"step-4: .*The disk is full; free some space\. Older.*untouched"
    with pytest.raises(ResourceError, match=message) as caught:
        drill.go_on(config)
    assert caught.value.exit_code == 3
    run = drill.go_on(config)
    assert run.said("continuing after step 2")
    assert initialization_hash(config) == drill.expected


def test_growing_midway(drill):
    drill.wait_for_groups(1)

    def after_step(step):
        if step == 2:
            drill.wait_for_groups(2)

    config, _ = drill.train("growing", after_step)
    assert drill.groups() == 2
    assert initialization_hash(config) == drill.expected


@pytest.mark.parametrize("kind", ["kill_rank", "hang", "slow", "non_finite", "corrupt_reply", "kill_node"])
def test_two_groups(drill, kind):
    drill.wait_for_groups(2)
    config, run = drill.train(kind, faults=[strike(kind, seconds=1.0)])
    assert run.said("strikes", kind)
    assert any(run.said(sign) for sign in SIGNS[kind])
    assert initialization_hash(config) == drill.expected


def test_shrinking_midway(drill):
    drill.wait_for_groups(2)

    def after_step(step):
        if step == 2:
            drill.remove_node()

    config, run = drill.train("shrinking", after_step)
    assert any(run.said(sign) for sign in SIGNS["kill_node"])
    assert initialization_hash(config) == drill.expected


def test_sigterm_and_a_damaged_checkpoint(drill):
    drill.wait_for_groups(1)
    config = drill.config("stopped", faults=[strike("sigterm", 4), strike("corrupt_checkpoint", 3)])
    with pytest.raises(RunInterrupted, match="stopped after 4 of 5 steps") as caught:
        drill.go_on(config)
    assert caught.value.exit_code == 75
    drill.wait_for_groups(2)  # and it goes on with another number of groups
    run = drill.go_on(config)
    assert not run.said("strikes")
    assert run.said("skipping a damaged checkpoint", "step-4: meta_params.safetensors")
    assert initialization_hash(config) == drill.expected


def test_three_groups_and_everything_at_once(drill):
    drill.wait_for_groups(3)
    faults = [("kill_rank", 1, 0), ("kill_node", 1, 2), ("non_finite", 2, 0), ("kill_rank", 3, 2)]
    config, run = drill.train("three", faults=[strike(*fault) for fault in faults])
    assert all(run.said("strikes", fault[0]) for fault in faults)
    assert initialization_hash(config) == drill.expected


def test_a_task_that_kills_every_group_is_named(drill):
    config = drill.config("poison", faults=[strike("kill_rank", 2)] * 3)
    message = r"task train/seed=0/step=2/index=1: 3 worker groups were lost at it"
    with pytest.raises(ResourceError, match=message):
        drill.go_on(config)
    drill.go_on(config)
    assert initialization_hash(config) == drill.expected
