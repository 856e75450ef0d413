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
        reached: list[float] = []
        for candidate in candidates:
            rows = table(evaluate(executor, meta, [candidate], validation, on_episode))
            reached.append(max(row.accuracy.mean for row in rows))
        options = [candidate.chosen_option() or ("", float(place)) for place, candidate in enumerate(candidates)]
        by_value = {value: accuracy for (_, value), accuracy in zip(options, reached, strict=True)}
        chosen.append(Chosen(candidates[reached.index(max(reached))], options[0][0], by_value))
    return chosen
