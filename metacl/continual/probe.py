"""A probe set: what the model can do that the stream does not teach, asked before it and after every experience.

A classifier is asked for its features: the accuracy of the nearest mean of a few examples a class (Snell et al. 2017),
so no head is in it. A language model is asked for its nats per token. Beside the measure there is the KL divergence of
what the start answers from what is answered now: of the softmax over −‖f − mean‖², or of the next-token distributions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import PositiveInt, model_validator
from torch import Tensor

from metacl.continual.experience import Examples
from metacl.continual.model import Model, kl_divergence
from metacl.continual.streams.base import random_of
from metacl.errors import DataError
from metacl.learners.base import Batch, Params
from metacl.objectives.proto_maml import class_means
from metacl.registry import Component, chosen_from
from metacl.tasks.domain_source import DomainSource
from metacl.tasks.episode import TASK_SOURCES, TaskSource
from metacl.tasks.labelled_text import LabelledText


@dataclass(frozen=True)
class ProbeTexts:
    """What is asked, the same for every seed. support : for the class means; empty for a language model."""

    support: Examples
    asked: Examples


class ProbeConfig(Component):
    """Texts that the stream does not teach.

    data : a task source ``labelled_text`` for a classifier, ``domain_text`` or ``prompt_completion`` for a language
    model; its splits are not looked at. shots : examples of a class that its mean is taken of; classes with no more
    texts than that are left out. size : texts that are asked, at most, the same number of each class.
    """

    data: Annotated[TaskSource, chosen_from(TASK_SOURCES)]
    shots: PositiveInt = 5
    size: PositiveInt = 500

    @model_validator(mode="after")
    def _gives_texts(self) -> ProbeConfig:
        if not isinstance(self.data, LabelledText | DomainSource):
            raise ValueError(
                f"data: {self.data.registered_name} has no texts to ask. Set probe.data.name to labelled_text, "
                f"domain_text or prompt_completion"
            )
        return self

    @property
    def classes(self) -> bool:
        """Whether its texts have classes."""
        return isinstance(self.data, LabelledText)

    def open(self) -> ProbeTexts:
        """Read and draw them. Raises `DataError` if there is nothing to tell apart."""
        if isinstance(self.data, LabelledText):
            return self._labelled(self.data)
        assert isinstance(self.data, DomainSource)
        texts = sorted({text[: self.data.window].strip() for text in self.data.texts()} - {""})
        chosen = random_of(0, 0, PROBE).sample(texts, min(self.size, len(texts)))
        return ProbeTexts(Examples([], ()), Examples(chosen, (0,) * len(chosen)))

    def _labelled(self, data: LabelledText) -> ProbeTexts:
        found = data.read().texts
        names = sorted(name for name, texts in found.items() if len(texts) > self.shots)
        if len(names) < 2:
            raise DataError(
                f"probe.data: {len(names)} of its {len(found)} classes have more than {self.shots} texts, and two are "
                f"needed to be told apart. Lower probe.shots, or give other data."
            )
        each = max(1, self.size // len(names))
        parts: tuple[list[tuple[str, int]], list[tuple[str, int]]] = ([], [])
        for label, name in enumerate(names):
            texts = found[name]
            drawn = random_of(0, label, PROBE).sample(texts, min(self.shots + each, len(texts)))
            parts[0].extend((text, label) for text in drawn[: self.shots])
            parts[1].extend((text, label) for text in drawn[self.shots :])
        return ProbeTexts(*(Examples([t for t, _ in part], tuple(label for _, label in part)) for part in parts))


PROBE = 4
"""What is drawn, beside what `random_of` lists."""


@dataclass(frozen=True)
class Probed:
    """value : accuracy, a share, or nats per token. kl : mean KL(start ‖ now), in nats, a text or a token."""

    value: float
    kl: float


class Probe:
    """A probe set as a model sees it, encoded when it is first asked.

    Parameters
    ----------
    start : Params
        What the KL divergence is from.
    rows : int
        Texts that are asked together.
    """

    def __init__(self, model: Model, start: Params, texts: ProbeTexts, rows: int) -> None:
        self._model, self._start, self._texts, self._rows = model, start, texts, rows
        self._encoded: tuple[list[Batch], list[Batch]] | None = None
        self._first: list[Tensor] = []

    @torch.no_grad()
    def ask(self, params: Params) -> Probed:
        """The model with these parameters; a strategy that answers in its place is not asked."""
        support, asked = self._batches()
        return (
            self._by_tokens(params, asked) if self._model.learner.vocabulary else self._by_means(params, support, asked)
        )

    def _by_means(self, params: Params, support: list[Batch], asked: list[Batch]) -> Probed:
        self._first = self._first or self._scores(self._start, support, asked)
        now = self._scores(params, support, asked)
        divergence = sum(
            float(kl_divergence(before, after)) * len(after) for before, after in zip(self._first, now, strict=True)
        )
        labels = torch.tensor(self._texts.asked.labels)
        right = int(torch.eq(torch.cat(now).argmax(-1).cpu(), labels).sum())
        count = len(labels)
        return Probed(right / count, divergence / count)

    def _scores(self, params: Params, support: list[Batch], asked: list[Batch]) -> list[Tensor]:
        """−‖f − mean‖² of every text and class, a tensor (B, N) for each batch."""
        labels = torch.tensor(self._texts.support.labels, device=self._model.learner.device)
        features = torch.cat([self._model.features(params, batch) for batch in support])
        means = class_means(features, labels, int(labels.max()) + 1)
        return [
            -torch.cdist(self._model.features(params, b), means, compute_mode="donot_use_mm_for_euclid_dist").square()
            for b in asked
        ]

    def _by_tokens(self, params: Params, asked: list[Batch]) -> Probed:
        surprise = divergence = tokens = 0.0
        for batch in asked:
            assert batch.targets is not None
            surprise += float(self._model.outputs(params, batch).double().sum())
            divergence += float(self._model.divergence(self._start, params, batch).double().sum())
            tokens += float(batch.targets.sum())
        return Probed(surprise / tokens, divergence / tokens)

    def _batches(self) -> tuple[list[Batch], list[Batch]]:
        if self._encoded is None:
            self._encoded = list(self._of(self._texts.support)), list(self._of(self._texts.asked))
        return self._encoded

    def _of(self, examples: Examples) -> Iterator[Batch]:
        for first in range(0, len(examples), self._rows):
            part = examples.take(range(first, min(first + self._rows, len(examples))))
            yield self._model.learner.encode(part.inputs, list(part.labels))
