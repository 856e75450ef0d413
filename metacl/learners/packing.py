"""Several short texts in one row of tokens, so that a batch has few shapes and little padding.

Texts that share a row must not see each other: the mask lets a token attend to its own text only, and positions
start anew with every text. Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination", sec. 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SHAPES = 12
"""About how many different numbers of rows batches of as many texts may have: one compilation each, against padding."""

TEXTS_A_ROW = 2
"""Of the longest that have room in a row. Long rows are filled better, and attention within them costs more."""


@dataclass
class Packed:
    """B texts in R rows of L tokens.

    input_ids, position_ids : (R, L), zeros where nothing stands. attention_mask : (R, 1, L, L), added to the
    attention scores: 0 within a text, the least number elsewhere. owner : (R, L), which text a token belongs to, −1
    for none. first : (R, L), whether it is its text's first token.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    owner: Tensor
    first: Tensor

    def mean_weights(self) -> Tensor:
        """(B, R·L): the weight of every token in its text's mean."""
        weights = torch.nn.functional.one_hot(self.owner.flatten() + 1).T[1:].to(torch.float32)
        return weights / weights.sum(1, keepdim=True)

    def first_weights(self) -> Tensor:
        """(B, R·L): one at every text's first token."""
        return (self.mean_weights() > 0) * self.first.flatten().to(torch.float32)


def pack(tokens: Sequence[Sequence[int]], longest: int) -> Packed:
    """Lay texts of at most `longest` tokens into rows; the number of rows is rounded up to few values.

    Where a text stands depends on the lengths alone.
    """
    row = TEXTS_A_ROW * longest
    rows = _first_fit([len(text) for text in tokens], row)
    most = -(-len(tokens) // TEXTS_A_ROW)
    coarse = max(1, most // SHAPES)
    count = min(-(-len(rows) // coarse) * coarse, most)
    ids, positions = torch.zeros(count, row, dtype=torch.long), torch.zeros(count, row, dtype=torch.long)
    owner = torch.full((count, row), -1)
    for place, members in enumerate(rows):
        begin = 0
        for text in members:
            end = begin + len(tokens[text])
            ids[place, begin:end] = torch.tensor(tokens[text])
            positions[place, begin:end] = torch.arange(len(tokens[text]))
            owner[place, begin:end] = text
            begin = end
    # What belongs to no text attends to its like, so that no row of the softmax is empty.
    together = owner.unsqueeze(2) == owner.unsqueeze(1)
    mask = torch.zeros(together.shape).masked_fill(~together, torch.finfo(torch.float32).min).unsqueeze(1)
    return Packed(ids, positions, mask, owner, (positions == 0) & (owner >= 0))


def _first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Positions by row: the longest text first, each into the first row that has room (first-fit decreasing)."""
    rows: list[list[int]] = []
    room: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda p: -lengths[p]):
        place = next((place for place, free in enumerate(room) if lengths[position] <= free), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(capacity)
        rows[place].append(position)
        room[place] -= lengths[position]
    return rows
