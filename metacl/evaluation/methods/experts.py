"""A mixture of adapters, one a domain, and a gate that asks how near a text is to what each learned from."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from metacl.config import RunConfig
from metacl.coordination.worker import Worker
from metacl.evaluation.frozen_features import FrozenFeatures
from metacl.evaluation.methods.base import METHODS, Examples, Predictor, Row, Scene
from metacl.evaluation.methods.inner_steps import (
    InnerSteps,
    Starts,
    after_steps,
    check_heads,
    check_starts,
    on_device,
    stored_start,
)
from metacl.learners.gate import nearness
from metacl.tasks import Episode, TaskAddress


@METHODS.register("experts")
class Experts(InnerSteps):
    """What several runs learned, each on its domain, mixed by a gate: Σ_e g_e(x) p_e(y | x), each adapted by itself.

    g is the softmax over experts of the cosine, divided by `temperature`, of x with the mean embedding of the expert's
    training data, by pretrained features (Jacobs et al. 1991, "Adaptive Mixtures of Local Experts", with a gate that
    is not trained).

    starts : folders of runs or initializations on the same pretrained model with the same adapter.
    key_episodes : training episodes of each that its mean embedding is taken of.
    """

    starts: Starts
    temperature: PositiveFloat = 0.05
    key_episodes: PositiveInt = 20
    needs_features: ClassVar[bool] = True

    def obstacle(self, config: RunConfig) -> str | None:
        """Each start must fit the model. Raises `DataError` if one, or its data, cannot be read."""
        check_starts(self, self.starts, config)
        check_heads(self, self.starts, config)
        for start in self.starts:
            if stored_start(start).config.data.gives != "text":
                return f"its gate reads texts, and {start} was trained on others."
            stored_start(start).config.data.open()
        return super().obstacle(config)

    def rows(self) -> list[Row]:
        """One a number of steps."""
        return [Row(f"mixture of {len(self.starts)} adapters", step) for step in sorted(set(self.steps))]

    def prepare(self, scene: Scene) -> None:
        """Read the starts and embed their training data."""
        for start in self.starts:
            self._key(scene, start)

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """All experts go the same number of steps; scores are log-probabilities."""
        keys = torch.stack([self._key(scene, start) for start in self.starts])
        walks = []
        for start in self.starts:
            stored = stored_start(start)
            walks.append(after_steps(scene, stored.config, on_device(stored, scene), self.steps))
        for row, arrived in zip(self.rows(), zip(*walks, strict=True), strict=True):
            yield row, partial(self._mixed, scene, keys, [predictor for _, predictor in arrived])

    def _mixed(self, scene: Scene, keys: Tensor, experts: list[Predictor], examples: Examples) -> Tensor:
        shares = (nearness(scene.frozen.of(examples), keys) / self.temperature).log_softmax(-1)  # (B, E)
        each = torch.stack([expert(examples).log_softmax(-1) for expert in experts], 1)  # (B, E, N)
        return (shares.unsqueeze(-1) + each).logsumexp(1)

    def _key(self, scene: Scene, start: Path) -> Tensor:
        known = _KEYS.setdefault(scene.worker, {})
        if (start, self.key_episodes) not in known:
            known[start, self.key_episodes] = self._mean_embedding(scene.frozen, start)
        return known[start, self.key_episodes]

    def _mean_embedding(self, frozen: FrozenFeatures, start: Path) -> Tensor:
        config = stored_start(start).config
        source = config.data.open()
        texts: list[str] = []
        for index in range(self.key_episodes):
            episode = source.episode(TaskAddress("train", config.seed, 0, index), config.episodes)
            assert isinstance(episode, Episode), "checked before"
            texts += episode.support_texts
        return frozen.of_texts(texts).mean(0)


_KEYS: WeakKeyDictionary[Worker, dict[tuple[Path, int], Tensor]] = WeakKeyDictionary()
