"""Sinusoid regression (Finn et al. 2017, sec. 5.1): one task is one wave, y = A sin(x − φ).

Amplitude A in [0.1, 5], phase φ in [0, π], x in [−5, 5], each uniform. The splits are the same distribution under
different random streams: there are no classes that could be held back.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from metacl.tasks.episode import TASK_SOURCES, ArrayEpisode, EpisodeShape, Split, TaskAddress, TaskSource
from metacl.tasks.randomness import AddressedRandom


@TASK_SOURCES.register("sinusoid")
class Sinusoid(TaskSource):
    """Waves of random amplitude and phase: `shots` support and `queries` query points each, `ways` without meaning."""

    gives: ClassVar[Literal["text", "arrays"]] = "arrays"

    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, math.pi)
    interval: tuple[float, float] = (-5.0, 5.0)

    @property
    def classes(self) -> bool:
        """Targets are real values."""
        return False

    def open(self) -> SinusoidEpisodes:
        """Nothing to read."""
        return SinusoidEpisodes(self)


class SinusoidEpisodes:
    """See `Sinusoid`."""

    def __init__(self, config: Sinusoid) -> None:
        self.config = config

    def check(self, split: Split, shape: EpisodeShape) -> None:
        """Any shape can be drawn."""

    def episode(self, address: TaskAddress, shape: EpisodeShape) -> ArrayEpisode:
        """A wave of its own; inputs and targets are (B, 1)."""
        random = AddressedRandom(address)
        amplitude, phase = random.uniform(*self.config.amplitude), random.uniform(*self.config.phase)

        def points(count: int) -> tuple[np.ndarray, np.ndarray]:
            x = random.uniforms(*self.config.interval, count)[:, None]
            return x, amplitude * np.sin(x - phase)

        return ArrayEpisode(address, 0, points(shape.shots), points(shape.queries))

    def describe(self) -> str:
        """The ranges."""
        low, high = self.config.interval
        return f"sinusoids, amplitude {self.config.amplitude}, phase {self.config.phase}, x in {low:g} … {high:g}"
