"""Tokens that go through a model that two ranks share, against what the tokenizer gives."""

from dataclasses import dataclass

import torch
from transformers import AutoTokenizer

from metacl.learners import TextClassifierConfig
from metacl.learners.adapter import AdapterConfig
from metacl.learners.ranks import RankGroup
from metacl.learners.token_count import TokenCount
from tests.small_models import save_family

TEXTS = 2 * ["a b", "where is my card", "is it so?", "lost", "a"]
"""Two of each length, so that no group is odd and has a text twice."""


@dataclass(frozen=True)
class Half(RankGroup):
    """One of two ranks; the other's messages are zeros."""

    size: int = 2

    def spread(self, params):
        return params

    def collect(self, rows):
        return torch.cat([rows, rows])

    def total(self, value):
        return value


def test_each_rank_counts_its_part(tmp_path):
    folder = save_family("bert", tmp_path / "bert")
    learner = TextClassifierConfig(model=str(folder), adapter=AdapterConfig(targets=("query",))).build(0)
    parts = []
    for rank in (0, 1):
        learner.ranks = Half(rank)
        with TokenCount() as count:
            learner.features(learner.initial, learner.encode(TEXTS, None))
        parts.append(count.total)
    assert sum(parts) == sum(map(len, AutoTokenizer.from_pretrained(folder)(TEXTS)["input_ids"])) and min(parts) > 0
