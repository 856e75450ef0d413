"""The section ``evaluation``: the protocol of the closing evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from metacl.registry import Component
from metacl.tasks import EpisodeShape


class Evaluation(Component):
    """The protocol of the closing evaluation, on classes that training never saw.

    steps : the inner steps after which the query is asked. seed : of the episodes, the same for every method.
    """

    shape: EpisodeShape
    episodes: Annotated[int, Field(ge=2)] = 300
    steps: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0, 1, 3, 5, 10)
    split: Literal["valid", "test"] = "test"
    seed: NonNegativeInt = 1
