"""Choosing between candidates of a method by episodes of the validation classes, never by those it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from metacl.config import Evaluation
from metacl.coordination.executor import Executor
from metacl.coordination.worker import Meta
from metacl.evaluation.few_shot import evaluate, table
from metacl.evaluation.methods import AdaptationMethod


@dataclass(frozen=True)
class Chosen:
    """A method, and the validation accuracy of each candidate's best row by its option's value; {} if it had no rival.

    option : what candidates differ in.
    """

    method: AdaptationMethod
    option: str = ""
    accuracies: dict[float, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        chosen = self.method.chosen_option()
        assert chosen is not None
        return {
            "method": self.method.rows()[0].method,
            "option": self.option,
            "chosen": chosen[1],
            "validation_accuracies": {f"{value:g}": accuracy for value, accuracy in self.accuracies.items()},
        }


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
        reached, option = {}, ""
        for candidate in candidates:
            option, value = candidate.chosen_option() or ("", 0.0)
            rows = table(evaluate(executor, meta, [candidate], validation, on_episode))
            reached[value] = max(row.accuracy.mean for row in rows)
        best = list(reached.values()).index(max(reached.values()))
        chosen.append(Chosen(candidates[best], option, reached))
    return chosen
