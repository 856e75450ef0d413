"""Why the adapted model gave the answers that a report shows: their tokens, and the support examples they are near to.

The same as ``metacl predict --explain``, of the model as it was adapted to an episode's support.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from metacl.config import RunConfig
from metacl.coordination.executor import Executor
from metacl.coordination.flat import Flat
from metacl.coordination.worker import Meta, Work, Worker
from metacl.errors import ConfigError
from metacl.evaluation.methods import Scene
from metacl.evaluation.walk import bound_after
from metacl.initialization.adapt import AdaptedClassifier
from metacl.learners.text_classifier import TextClassifier, TextClassifierConfig
from metacl.tasks import Episode, EpisodeShape, TaskAddress

EXPLAINED = 3
"""Answers an episode; wrong ones first, but one."""

Reasons = dict[int, dict[str, Any]]
"""By place in the query: ``tokens``, pairs of a token and what it adds to the score of the answer, and ``examples``,
the nearest of the support with ``text``, ``label`` and ``similarity``."""


@dataclass(frozen=True)
class ExplainAnswers(Work[Reasons]):
    """Reasons for some queries of each episode after so many inner steps. places : by episode."""

    steps: int
    shape: EpisodeShape
    places: Mapping[TaskAddress, Sequence[int]]

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> Reasons:
        """Nothing where the objective scores otherwise than the learner, which is what can be explained."""
        episode = worker.source.episode(address, self.shape)
        assert isinstance(episode, Episode) and isinstance(worker.learner, TextClassifier), "checked before"
        task, params = Scene(worker, meta, episode).task, worker.parameters(meta)
        ((_, bound),) = bound_after(worker.learner, worker.config, params, task, {self.steps})
        support = [
            (text, episode.class_names[label])
            for text, label in zip(episode.support_texts, episode.support_labels, strict=True)
        ]
        model = AdaptedClassifier(worker.config, worker.learner, bound, episode.class_names, [], support)
        try:
            found = {place: model.explain(episode.query_texts[place]) for place in self.places[address]}
        except ConfigError:
            return {}
        return {
            place: {"tokens": [list(one) for one in why.tokens], "examples": [asdict(one) for one in why.examples]}
            for place, why in found.items()
        }


def can_explain(config: RunConfig) -> bool:
    """Whether there are reasons to be had: of a text classifier, whole in each worker."""
    whole = config.workers.ranks_per_group == 1 and config.workers.zero_stage != 3
    return isinstance(config.learner, TextClassifierConfig) and whole


def with_reasons(
    executor: Executor,
    meta: Meta,
    addresses: Sequence[TaskAddress],
    examples: Sequence[Mapping[str, Any]],
    shape: EpisodeShape,
    steps: int,
) -> list[dict[str, Any]]:
    """`example_episodes` of a meta-learned row with ``why`` (see `Reasons`) in some of their queries.

    Parameters
    ----------
    addresses : of the evaluation
    examples : list of dict
        What `example_episodes` made of them.
    steps : the row's
    """
    shown = {str(one["address"]): one for one in examples}
    asked = [address for address in addresses if str(address) in shown]
    places = {address: worth_explaining([one["wrong"] for one in shown[str(address)]["query"]]) for address in asked}
    found = {str(done.address): done.result for done in executor.map(ExplainAnswers(steps, shape, places), asked, meta)}
    return [
        {
            **one,
            "query": [
                {**answer, "why": found[str(one["address"])][place]}
                if place in found[str(one["address"])]
                else dict(answer)
                for place, answer in enumerate(one["query"])
            ],
        }
        for one in examples
    ]


def worth_explaining(wrong: Sequence[bool]) -> list[int]:
    """The places of `EXPLAINED` answers, in order: all but one are wrong and the rest right, where there are such."""
    mistakes, right = ([place for place, one in enumerate(wrong) if one is kind] for kind in (True, False))
    chosen = mistakes[: EXPLAINED - 1]
    chosen += right[: EXPLAINED - len(chosen)]
    return sorted(chosen)
