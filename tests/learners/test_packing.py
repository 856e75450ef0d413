"""Packing: every text whole and once, within the rows, and hardly more of them than the tokens need."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metacl.learners.packing import SHAPES, TEXTS_A_ROW, pack

LONGEST = 16
ROW = TEXTS_A_ROW * LONGEST
lengths = st.lists(st.integers(1, LONGEST), min_size=1, max_size=60)


@given(lengths)
def test_every_text_stands_once_and_whole(sizes):
    texts = [[100 * text + token for token in range(1, size + 1)] for text, size in enumerate(sizes)]
    packed = pack(texts, LONGEST)
    for text, tokens in enumerate(texts):
        places = packed.owner == text
        assert packed.input_ids[places].tolist() == tokens
        assert packed.position_ids[places].tolist() == list(range(len(tokens)))
        assert int(packed.first[places].sum()) == 1
    assert int((packed.owner >= 0).sum()) == sum(sizes)


@given(lengths)
def test_a_token_attends_to_its_own_text_only(sizes):
    packed = pack([[7] * size for size in sizes], LONGEST)
    seen = packed.attention_mask[:, 0] == 0
    for row, owners in enumerate(packed.owner):
        np.testing.assert_array_equal(seen[row], owners[:, None] == owners[None, :])


@given(lengths)
def test_hardly_more_rows_than_the_tokens_need(sizes):
    """Where nothing is longer than half a bin, first fit fills all bins but one to two thirds (Johnson et al. 1974,
    "Worst-case performance bounds for simple one-dimensional packing algorithms"). And the rounding to few shapes."""
    rows = len(pack([[7] * size for size in sizes], LONGEST).input_ids)
    coarse = max(1, len(sizes) // TEXTS_A_ROW // SHAPES)
    assert sum(sizes) / ROW <= rows <= 3 / 2 * sum(sizes) / ROW + 1 + coarse


@given(lengths)
def test_weights_pool_means_and_first_tokens(sizes):
    packed = pack([[7] * size for size in sizes], LONGEST)
    hidden = np.random.default_rng(0).normal(size=(packed.owner.numel(), 3)).astype(np.float32)
    flat = packed.owner.flatten().numpy()
    means = np.stack([hidden[flat == text].mean(0) for text in range(len(sizes))])
    firsts = np.stack([hidden[flat == text][0] for text in range(len(sizes))])
    np.testing.assert_allclose(packed.mean_weights().numpy() @ hidden, means, atol=1e-5)
    np.testing.assert_allclose(packed.first_weights().numpy() @ hidden, firsts, atol=1e-5)


def test_batches_of_as_many_texts_have_few_shapes():
    random = np.random.default_rng(0)
    rows = {len(pack([[7] * n for n in random.integers(4, LONGEST, 96)], LONGEST).input_ids) for _ in range(300)}
    assert all(count % 4 == 0 for count in rows)
    assert 1 < len(rows) <= SHAPES
