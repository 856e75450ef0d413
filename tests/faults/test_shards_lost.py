"""A process that combines gradients is killed, and a node with one: the same bytes as of the run left alone."""

import pytest

from tests.faults.conftest import initialization_hash

pytestmark = [pytest.mark.ray, pytest.mark.slow]

MORE_OF_WORKERS = {"gradient_shards": 3, "stragglers": {"policy": "wait"}}
"""A slow machine may take so long to miss a node that its task is done elsewhere, and its loss never told."""


def test_shards_are_killed(drill):
    drill.wait_for_groups(2)
    kinds = [("kill_shard", 1, 2), ("kill_shard", 2, 0), ("corrupt_reply", 3, 0), ("non_finite", 3, 1)]
    faults = [{"kind": kind, "step": step, "index": index} for kind, step, index in [*kinds, ("kill_node", 4, 1)]]
    config, run = drill.train("shards", faults=faults)
    assert run.said("outer step 1 is computed again", "a shard was lost")
    assert run.said("damaged on its way") and run.said("not finite") and run.said("is lost (")
    assert initialization_hash(config) == drill.expected
