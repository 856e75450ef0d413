"""Classes as words: a language model tells them apart by how probable each one's name is after a text.

A text of a class is shown with the class's name behind it (Brown et al. 2020, "Language Models are Few-Shot Learners",
sec. 2.4); what is scored is the whole name, not divided by its length. Before the name stands the marker that the
learner scores after, or `MARKER`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from metacl.errors import DataError
from metacl.learners.base import Params, Task
from metacl.learners.transformer import TransformerConfig, TransformerLearner
from metacl.tasks.episode import ArrayEpisode, Episode
from metacl.tasks.names_in_words import in_words

MARKER = "\nLabel: "
TOKENS_TOGETHER = 2048
"""Of the texts that are scored in one go, padding included; bounds the memory of their logits."""


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
            self._cut(text, [end := self._end(names[label])]) + end for text, label in zip(texts, labels, strict=True)
        ]

    @torch.no_grad()
    def class_scores(self, params: Params, texts: Sequence[str], names: Sequence[str]) -> Tensor:
        """Log-probability (B, N) of each of N names after each of B texts, up to a constant for each text.

        A text is cut at the front until it fits with the longest name, so that all names are scored after the same.
        Where the whole text counts in the loss its own log-probability is in it, the same for all names.
        """
        ends = [self._end(name) for name in names]
        ends_longest_first = sorted(ends, key=self._count, reverse=True)
        shown = [cut + end for cut in (self._cut(text, ends_longest_first) for text in texts) for end in ends]
        parts = [-self.outputs(params, self.encode(part, None)) for part in self._in_parts(shown)]
        return torch.cat(parts).view(len(texts), len(names))

    def _in_parts(self, texts: Sequence[str]) -> Iterator[Sequence[str]]:
        """In order, as many at a time as `TOKENS_TOGETHER` has room for; at least one."""
        first = longest = 0
        for place, text in enumerate(texts):
            length = self.config.max_length if self.config.few_shapes else self._count(text)
            longest = max(longest, length)
            if place > first and longest * (place + 1 - first) > TOKENS_TOGETHER:
                yield texts[first:place]
                first, longest = place, length
        yield texts[first:]

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

    def _end(self, name: str) -> str:
        return f"{self.marker}{in_words(name)}"

    def _cut(self, text: str, ends: Sequence[str]) -> str:
        """As much of a text's end as leaves room for each of `ends`."""
        for end in ends:
            while (over := self._count(text + end) - self.config.max_length) > 0:
                read = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
                if over >= len(read):
                    raise DataError(
                        f"learner.max_length: {self.config.max_length} tokens leave no room for a text before "
                        f"{end[:60]!r}. Raise learner.max_length."
                    )
                text = text[max(read[over][0], 1) :]
        return text

    def _count(self, text: str) -> int:
        return len(self.tokenizer(text)["input_ids"])
