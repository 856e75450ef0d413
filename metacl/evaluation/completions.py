"""What a language model says to the prompts of a domain after k inner steps, and how good that is.

Against what the data's own texts go on with: BLEU, ROUGE, exact match. Of a run that adapts by reward: the reward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from metacl.coordination.executor import Executor
from metacl.coordination.flat import Flat
from metacl.coordination.worker import TaskFailed, Work, Worker
from metacl.evaluation.generation import bleu, exact_match, rouge
from metacl.evaluation.methods import META_LEARNED, PRETRAINED
from metacl.evaluation.statistics import Difference, Estimate, mean_interval, paired_difference
from metacl.evaluation.walk import bound_after
from metacl.learners.base import Params, Task
from metacl.learners.generation import Generation, generate
from metacl.learners.label_words import LabelWords
from metacl.metagradients import InnerLoopDiverged
from metacl.objectives import PolicyGradient
from metacl.tasks import Episode, EpisodeShape, TaskAddress


@dataclass(frozen=True)
class Completions:
    """Of one task's queries: what was said, what the data says, and the mean reward of drawn answers."""

    prompts: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    reward: float | None = None

    def metrics(self) -> dict[str, float]:
        """By name: bleu (0 … 100), rouge1, rouge2, rougeL, exact_match (0 … 1), reward; those that were asked for."""
        found = {}
        if self.said:
            references = [[one] for one in self.references]
            found = {"bleu": bleu(self.said, references), **rouge(self.said, references)}
            found["exact_match"] = exact_match(self.said, references)
        return found if self.reward is None else {**found, "reward": self.reward}


@dataclass(frozen=True)
class CompletionsAfter(Work[dict[int, Completions]]):
    """What is said to the query's prompts after each number of inner steps on the support; how: None for rewards only.

    A text counts up to its first line break where the data's own has none: a model that was taught completions was not
    taught to end.
    """

    steps: tuple[int, ...]
    shape: EpisodeShape
    how: Generation | None

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> dict[int, Completions]:
        """Steps -> completions. Raises `TaskFailed` if the inner loop diverges."""
        episode = worker.source.episode(address, self.shape)
        assert isinstance(episode, Episode) and isinstance(worker.learner, LabelWords), "language models read texts"
        task = worker.learner.prepare(episode)
        found = {}
        try:
            for step, bound in bound_after(
                worker.learner, worker.config, worker.parameters(meta), task, set(self.steps)
            ):
                found[step] = self._after(worker, episode, task, bound)
        except InnerLoopDiverged as error:
            raise TaskFailed(str(error)) from None
        return found

    def _after(self, worker: Worker, episode: Episode, task: Task, bound: Params) -> Completions:
        learner, objective = worker.learner, worker.config.objective
        assert isinstance(learner, LabelWords)
        reward = None
        if isinstance(objective, PolicyGradient):
            with torch.no_grad():
                reward = objective.mean_reward(learner, bound, task)
        if self.how is None:
            return Completions(reward=reward)
        parts = [text.partition(learner.marker) for text in episode.query_texts]
        prompts = tuple(prompt for prompt, _, _ in parts)
        references = tuple(reference.strip() for _, _, reference in parts)
        said = generate(learner, bound, [learner.as_prompt(prompt) for prompt in prompts], self.how)
        ended = tuple(
            text.strip() if "\n" in reference else text.strip().partition("\n")[0].strip()
            for text, reference in zip(said, references, strict=True)
        )
        return Completions(prompts, ended, references, reward)


@dataclass(frozen=True)
class CompletionRow:
    """One line of the table. metrics : by name, means over tasks, in the units of `Completions.metrics`.

    corpus_bleu : of all tasks' texts together; None if nothing was generated.
    gains : this row less the pretrained start after as many steps, or, for pretrained rows, less the start before any,
    paired by task; above 0 is better. {} for that start.
    """

    method: str
    steps: int
    metrics: dict[str, Estimate]
    corpus_bleu: float | None
    gains: dict[str, Difference]


Answers = dict[tuple[str, int], list[Completions]]
"""Of each start and number of steps, by task."""


def completions(
    executor: Executor,
    starts: Mapping[str, Flat],
    addresses: Sequence[TaskAddress],
    shape: EpisodeShape,
    steps: Sequence[int],
    how: Generation | None,
) -> Answers:
    """The completions from each start on the same tasks; starts: `PRETRAINED` and `META_LEARNED` -> meta-parameters."""
    asked = sorted({0, *steps})
    answers: Answers = {}
    for method, meta in starts.items():
        work = CompletionsAfter(tuple(asked), shape, how)
        found = {done.address: done.result for done in executor.map(work, addresses, meta)}
        for step in asked:
            answers[method, step] = [found[address][step] for address in addresses]
    return answers


def completion_rows(answers: Answers) -> list[CompletionRow]:
    """The table of completions."""
    values = {row: [one.metrics() for one in of_tasks] for row, of_tasks in answers.items()}
    rows = []
    for (method, step), of_tasks in values.items():
        other = values[PRETRAINED, step if method == META_LEARNED else 0]
        metrics = {name: mean_interval([one[name] for one in of_tasks]) for name in of_tasks[0]}
        gains = {
            name: paired_difference([one[name] for one in of_tasks], [one[name] for one in other])
            for name in (of_tasks[0] if other is not of_tasks else ())
        }
        rows.append(CompletionRow(method, step, metrics, _corpus_bleu(answers[method, step]), gains))
    return rows


def _corpus_bleu(of_tasks: Sequence[Completions]) -> float | None:
    said = [text for one in of_tasks for text in one.said]
    return bleu(said, [[text] for one in of_tasks for text in one.references]) if said else None


def examples_said(answers: Answers, count: int = 5) -> list[dict[str, str]]:
    """The first prompts with what the data says and what was said from the meta-learned start after most steps."""
    steps = max(step for method, step in answers if method == META_LEARNED)
    shown = [
        {"prompt": prompt, "reference": reference, "said": said}
        for one in answers[META_LEARNED, steps]
        for prompt, reference, said in zip(one.prompts, one.references, one.said, strict=True)
    ]
    return shown[:count]
