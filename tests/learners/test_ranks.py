"""Sharing a batch, without any process: who computes what, and where it then stands."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metacl.learners.ranks import RankGroup


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(1, 5), st.randoms())
def test_every_example_is_found_where_the_order_says(sizes, ranks, random):
    positions = list(range(sum(sizes)))
    random.shuffle(positions)
    groups = [[positions.pop() for _ in range(size)] for size in sizes]
    shares = [RankGroup(rank, ranks).share(groups) for rank in range(ranks)]
    assert all([len(part) for part in mine] == [-(-size // ranks) for size in sizes] for mine, _ in shares)
    # What `collect` gives: first rows first, a row of each rank.
    rows = [[position for part in mine for position in part] for mine, _ in shares]
    collected = torch.tensor([row[place] for place in range(len(rows[0])) for row in rows])
    for _, order in shares:
        assert collected[order].tolist() == list(range(sum(sizes)))


def test_alone_nothing_is_sent():
    rows, params = torch.ones(2, 3), {"a": torch.ones(2)}
    assert RankGroup().collect(rows) is rows
    assert RankGroup().spread(params) is params


def test_a_broken_message_is_a_lost_rank():
    from metacl.learners.ranks import RankLost, collective

    with pytest.raises(RankLost, match="a message among the ranks failed \\(gone\\)"), collective():
        raise RuntimeError("gone\nmore")


@given(st.lists(st.integers(), max_size=12), st.integers(1, 4))
def test_portions_count_every_item_once_in_as_many_steps_on_each_rank(items, ranks):
    portions = [list(RankGroup(rank, ranks).portion(items)) for rank in range(ranks)]
    assert {len(steps) for steps in portions} == {-(-len(items) // ranks)}
    counted = [own for steps in zip(*portions, strict=True) for _, own, counts in steps if counts]
    assert counted == items
    assert all(own in together for steps in portions for together, own, _ in steps)
