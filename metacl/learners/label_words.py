"""Classes as words: a language model tells them apart by how probable each one's name is after a text.

A text of a class is shown with the class's name behind it (Brown et al. 2020, "Language Models are Few-Shot Learners",
sec. 2.4); what is scored is the whole name, not divided by its length. Before the name stands the marker that the
learner scores after, or `MARKER`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from metacl.errors import DataError
from metacl.learners.base import Params, Task
from metacl.learners.transformer import TransformerConfig, TransformerLearner
from metacl.tasks.episode import ArrayEpisode, Episode

MARKER = "\nLabel: "
SCORED_TOGETHER = 64
"""Texts that are scored in one go; bounds the memory of their logits."""


class LabelWords(TransformerLearner):
    """A language model's learner, which knows episodes of classes by the classes' names."""

    config: TransformerConfig

    @property
    def marker(self) -> str:
        """What stands between a text and the name of its class."""
        return self.config.scores_after or MARKER

    def prepare(self, episode: Episode | ArrayEpisode) -> Task:
        """As for every learner, the texts of several classes with the names behind them."""
        if isinstance(episode, Episode) and len(episode.class_names) > 1:
            support, query = (
                self.labelled(texts, labels, episode.class_names)
                for texts, labels in (
                    (episode.support_texts, episode.support_labels),
                    (episode.query_texts, episode.query_labels),
                )
            )
            episode = replace(episode, support_texts=tuple(support), query_texts=tuple(query))
        return super().prepare(episode)

    def labelled(self, texts: Sequence[str], labels: Sequence[int], names: Sequence[str]) -> list[str]:
        """Each of B texts, cut at the front until it fits, with the marker and the name of its class behind it."""
        return [
            self._fitted(text, f"{self.marker}{in_words(names[label])}")
            for text, label in zip(texts, labels, strict=True)
        ]

    @torch.no_grad()
    def class_scores(self, params: Params, texts: Sequence[str], names: Sequence[str]) -> Tensor:
        """Log-probability (B, N) of each of N names after each of B texts, up to a constant for each text.

        Where the whole text counts in the loss its own log-probability is in it, the same for all names.
        """
        shown = [text for one in texts for text in self.labelled([one] * len(names), range(len(names)), names)]
        parts = [
            -self.outputs(params, self.encode(shown[first : first + SCORED_TOGETHER], None))
            for first in range(0, len(shown), SCORED_TOGETHER)
        ]
        return torch.cat(parts).view(len(texts), len(names))

    def fits(self, text: str, names: Sequence[str]) -> bool:
        """Whether a text leaves room for the longest name."""
        longest = max(map(in_words, names), key=self._count)
        return self._count(f"{text}{self.marker}{longest}") <= self.config.max_length

    def with_long_texts(self) -> Self:
        """The same model, whose texts may be as long as it has positions."""
        limit = getattr(self.adapted.model.config, "max_position_embeddings", None)
        if limit is None:
            return self
        longer = copy.copy(self)
        room = limit - self.adapted.prompt_tokens
        longer.config = longer._options = self.config.model_copy(update={"max_length": room, "padding": "groups"})
        return longer

    def _fitted(self, text: str, end: str) -> str:
        while (over := self._count(text + end) - self.config.max_length) > 0:
            read = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
            if over >= len(read):
                raise DataError(
                    f"learner.max_length: {self.config.max_length} tokens leave no room for a text before "
                    f"{end[:60]!r}. Raise learner.max_length."
                )
            text = text[max(read[over][0], 1) :]
        return text + end

    def _count(self, text: str) -> int:
        return len(self.tokenizer(text)["input_ids"])


def in_words(name: str) -> str:
    """``card_arrival`` and ``cardArrival`` become "card arrival", ``books / fiction`` "books fiction"."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.split(r"[\W_]+", apart)).strip().lower() or name
