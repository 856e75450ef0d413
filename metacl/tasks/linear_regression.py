"""Linear regression with a known prior: the task for which meta-learning's optimum is known in closed form.

y = w · x + ε with w ~ N(mean, spread² I), x ~ N(0, I), ε ~ N(0, noise²). Inputs and weights are independent, so the
best start for a step of gradient descent on the squared error is the prior's mean, whatever the step size; and the best
prediction of all is ridge regression around it, with λ = noise² / spread².
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import NonNegativeFloat, PositiveInt

from metacl.tasks.episode import TASK_SOURCES, ArrayEpisode, EpisodeShape, Split, TaskAddress, TaskSource
from metacl.tasks.randomness import AddressedRandom


@TASK_SOURCES.register("linear_regression")
class LinearRegression(TaskSource):
    """A weight vector of its own for each task; `ways` without meaning. For mlp with as many inputs.

    inputs : D. mean : of every weight. spread, noise : standard deviations of weights and of targets.
    """

    gives: ClassVar[Literal["text", "arrays"]] = "arrays"

    inputs: PositiveInt = 5
    mean: float = 1.0
    spread: NonNegativeFloat = 1.0
    noise: NonNegativeFloat = 0.1

    @property
    def classes(self) -> bool:
        """Targets are real values."""
        return False

    def open(self) -> LinearEpisodes:
        """Nothing to read."""
        return LinearEpisodes(self)


class LinearEpisodes:
    """See `LinearRegression`."""

    def __init__(self, config: LinearRegression) -> None:
        self.config = config

    def check(self, split: Split, shape: EpisodeShape) -> None:
        """Any shape can be drawn."""

    def episode(self, address: TaskAddress, shape: EpisodeShape) -> ArrayEpisode:
        """Inputs (B, D) and targets (B, 1)."""
        random, size = AddressedRandom(address), self.config.inputs
        weights = self.config.mean + self.config.spread * random.normals(size)

        def points(count: int) -> tuple[np.ndarray, np.ndarray]:
            x = random.normals(count * size).reshape(count, size)
            return x, (x @ weights + self.config.noise * random.normals(count))[:, None]

        return ArrayEpisode(address, 0, points(shape.shots), points(shape.queries))

    def describe(self) -> str:
        """The prior."""
        of = self.config
        return f"linear regression, {of.inputs} inputs, weights {of.mean:g} ± {of.spread:g}, noise {of.noise:g}"
