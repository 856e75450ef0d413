"""Choosing between candidates of a method by episodes of the validation classes, never by those it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from metacl.config import Evaluation
from metacl.coordination.executor import Executor
from metacl.coordination.worker import Meta
from metacl.evaluation.few_shot import evaluate, table
from metacl.evaluation.methods import AdaptationMethod


@dataclass(frozen=True)
class Chosen:
    """A method, and the validation accuracy of each candidate's best row, in their order; () if it had no rival."""

    method: AdaptationMethod
    accuracies: tuple[float, ...] = ()


def choose(
    executor: Executor,
    meta: Meta,
    methods: Sequence[AdaptationMethod],
    validation: Evaluation,
    on_episode: Callable[[int, int], None],
) -> list[Chosen]:
    """The best candidate of each method; of equals the first."""
    chosen = []
    for method in methods:
        candidates = method.candidates()
        if len(candidates) == 1:
            chosen.append(Chosen(candidates[0]))
            continue
        reached = []
        for candidate in candidates:
            rows = table(evaluate(executor, meta, [candidate], validation, on_episode))
            reached.append(max(row.accuracy.mean for row in rows))
        chosen.append(Chosen(candidates[reached.index(max(reached))], tuple(reached)))
    return chosen
