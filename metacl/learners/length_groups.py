"""Splitting a batch by length, so that short texts are not padded to the longest one.

A pass costs about (longest text × texts) tokens, and something fixed. The split that costs least is found
exactly, over the different lengths.
"""

from __future__ import annotations

from collections.abc import Sequence

PASS_COST = 40
"""What one more pass through the model costs, in tokens. Measured on MiniLM, one CPU thread: 30 to 60."""


def length_groups(lengths: Sequence[int], pass_cost: int = PASS_COST) -> list[list[int]]:
    """Partition positions 0 … B−1 into groups of similar length at the least total cost.

    Parameters
    ----------
    lengths : B integers
        Tokens of each text.
    pass_cost : int
        The fixed cost of a group, in tokens.

    Returns
    -------
    list of list of int
        Shortest texts first; within a group in the order given. Depends on the lengths alone.
    """
    different = sorted(set(lengths))
    counts = [sum(length == value for length in lengths) for value in different]
    # best[j]: (cost, first) of the cheapest split of the j shortest lengths, whose last group starts at `first`.
    best: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(different) + 1):
        best.append(
            min(
                (best[first][0] + pass_cost + different[end - 1] * sum(counts[first:end]), first)
                for first in range(end)
            )
        )
    bounds = []
    end = len(different)
    while end > 0:
        first = best[end][1]
        bounds.append((different[first], different[end - 1]))
        end = first
    return [
        [position for position, length in enumerate(lengths) if low <= length <= high] for low, high in reversed(bounds)
    ]
