"""Adapting from an initialization to a user's own texts, and predicting (or generating text) with the result."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from metacl.config import RunConfig, config_from_dict
from metacl.errors import ConfigError, DataError, TrainingError
from metacl.initialization.folder import (
    FORMAT,
    StoredInitialization,
    check_free,
    load_params,
    read_about,
    read_initialization,
    save_params,
    written_whole,
)
from metacl.learners.base import Learner, Params, Task
from metacl.learners.generation import Generation, generate
from metacl.learners.transformer import TransformerLearner
from metacl.metagradients import InnerLoopDiverged, plain_gradient
from metacl.metagradients import adapt as walk
from metacl.tasks.names_in_words import in_words, unfit_as_examples

if TYPE_CHECKING:
    from metacl.initialization.explain import Explanation

PREDICT_BATCH = 64
ADAPTED = ("adapted.json", "an adapted model")
"""The file by which a folder with an adapted model is known, and what it is called."""


@dataclass(frozen=True)
class Prediction:
    """The likeliest label of a text, and the probability of every label."""

    label: str
    probabilities: dict[str, float]


class Initialization:
    """A meta-learned start. Adapting does not change it; adapt it as often as you like."""

    def __init__(self, stored: StoredInitialization) -> None:
        self.config = stored.config
        self.meta = stored.meta
        self.trained_steps = stored.trained_steps
        self.learner: Learner = stored.config.learner.build(stored.config.seed)

    def adapt(self, texts: Sequence[str], labels: Sequence[str], steps: int | None = None) -> AdaptedClassifier:
        """Adapt to labelled texts with the learned inner loop.

        Parameters
        ----------
        texts, labels : B texts and their labels
            At least two different labels; any number of examples a label. Where training had the names of the classes
            in the support (`data.names_in_support`), the labels are read as names here.
        steps : int
            Inner steps; default what the initialization was trained with.

        Raises
        ------
        DataError
            Something else than lists of text, unequal lengths, an empty text, fewer than two labels.
        ConfigError
            Negative steps, a learned head of another number of labels, or a language model.
        TrainingError
            The steps led to numbers that are not finite.
        """
        if not self.config.learner.classifies:
            raise ConfigError("this initialization is of a language model, which takes no labels. Use adapt_to_texts.")
        _check_examples(texts, labels)
        names = tuple(sorted(set(labels)))
        head = self.meta.get("head.bias")
        if head is not None and len(head) != len(names):
            raise ConfigError(
                f"this initialization has a learned head for {len(head)} labels, the data has {len(names)}. "
                f"Train with episodes.ways={len(names)}, or with objective=proto_maml, which takes any number."
            )
        shown, of = list(texts), [names.index(label) for label in labels]
        if named := sorted({name for part in self.config.data.parts for name in part.names_shown(names)}):
            if why := unfit_as_examples(named):
                raise DataError(
                    f"of the labels {why}, and this initialization reads the names of the classes "
                    f"(data.names_in_support). Give labels that say what they mean."
                )
            shown, of = [*shown, *map(in_words, named)], [*of, *map(names.index, named)]
        support = self.learner.encode(shown, of)
        params, losses = self._adapted(Task(ways=len(names), support=support, query=support), steps)
        examples = list(zip(texts, labels, strict=True))
        return AdaptedClassifier(self.config, self.learner, params, names, losses, examples)

    def adapt_to_texts(self, texts: Sequence[str], steps: int | None = None) -> AdaptedLanguageModel:
        """Adapt a language model to texts, written as those it was trained on (with their marker, if they have one).

        Raises
        ------
        DataError
            Something else than a list of text, an empty one, none at all.
        ConfigError
            Negative steps, or a classifier.
        TrainingError
            The steps led to numbers that are not finite.
        """
        if self.config.learner.classifies:
            raise ConfigError("this initialization is of a classifier, which wants labels. Use adapt.")
        _check_texts(texts)
        if not texts:
            raise DataError("no texts to adapt to.")
        support = self.learner.encode(list(texts), None)
        params, losses = self._adapted(Task(ways=1, support=support, query=support), steps)
        return AdaptedLanguageModel(self.config, self.learner, params, losses)

    def _adapted(self, task: Task, steps: int | None) -> tuple[Params, list[float]]:
        """The parameters after so many inner steps (None: as trained), and the loss before each."""
        steps = self.config.inner.steps if steps is None else steps
        if steps < 0:
            raise ConfigError(f"steps: {steps}; expected 0 or more.")
        loop = self.config.inner.model_copy(update={"steps": steps})
        problem = self.config.objective.problem(self.learner, self.meta, task, loop)
        with torch.no_grad():
            start = problem.start(self.meta)
        try:
            end = walk(problem, plain_gradient(problem), start)
        except InnerLoopDiverged as error:
            raise TrainingError(f"{error}. Take fewer steps.") from None
        for name, tensor in end.theta.items():
            if not bool(torch.isfinite(tensor).all()):
                raise TrainingError(f"{name} is not finite after {steps} inner steps. Take fewer steps.")
        return self.config.objective.bind(end.theta, self.meta), end.losses


class AdaptedClassifier:
    """A model adapted to one set of labels.

    Attributes
    ----------
    labels : tuple of str
        In the order of the model's outputs.
    support_losses : list of float
        The loss on the adaptation texts before each inner step.
    support : list of (text, label)
        What it was adapted to, for explanations.
    """

    def __init__(
        self,
        config: RunConfig,
        learner: Learner,
        params: Params,
        labels: tuple[str, ...],
        losses: list[float],
        support: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.config = config
        self.learner = learner
        self.params = params
        self.labels = labels
        self.support_losses = losses
        self.support = list(support)

    def explain(self, text: str) -> Explanation:
        """The label of a text with the tokens and the adaptation examples that speak for it.

        Raises `DataError` as `predict` does, and `ConfigError` if the model is no text classifier.
        """
        from metacl.initialization.explain import explain  # captum takes a second to import

        return explain(self, text)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """The label of each text with probabilities. Raises `DataError` on what is no text, or an empty one."""
        _check_texts(texts)
        predictions = []
        for first in range(0, len(texts), PREDICT_BATCH):
            batch = list(texts[first : first + PREDICT_BATCH])
            with torch.no_grad():
                encoded = self.learner.encode(batch, None)
                probabilities = self.config.objective.outputs(self.learner, self.params, encoded).softmax(-1)
            for row in probabilities.tolist():
                by_label = dict(zip(self.labels, row, strict=True))
                predictions.append(Prediction(max(by_label, key=by_label.__getitem__), by_label))
        return predictions

    def save(self, path: str | Path) -> None:
        """Write a folder that `load_adapted` reads (and PEFT, for the adapter). Raises `ConfigError` if it is taken."""
        _save(Path(path), self, {"labels": self.labels, "support": self.support})


class AdaptedLanguageModel:
    """A language model adapted to some texts.

    Attributes
    ----------
    support_losses : list of float
        The loss on the adaptation texts before each inner step, in nats per token.
    """

    def __init__(self, config: RunConfig, learner: Learner, params: Params, losses: list[float]) -> None:
        self.config = config
        self.learner = learner
        self.params = params
        self.support_losses = losses

    def generate(self, prompts: Sequence[str], how: Generation | None = None) -> list[str]:
        """What it says after each prompt; a marker that stands between prompts and completions is put there.

        Raises `DataError` on what is no text, an empty one, or one that leaves no room.
        """
        _check_texts(prompts)
        assert isinstance(self.learner, TransformerLearner)
        given = [self.learner.as_prompt(prompt) for prompt in prompts]
        return generate(self.learner, self.params, given, how or Generation())

    def save(self, path: str | Path) -> None:
        """Write a folder that `load_adapted` reads (and PEFT, for the adapter). Raises `ConfigError` if it is taken."""
        _save(Path(path), self, {"labels": None})


def load_initialization(path: str | Path) -> Initialization:
    """Load an initialization: its own folder, or that of the run that made it. Raises `DataError`."""
    path = Path(path)
    if (path / "init" / "adaptation.json").exists():
        path = path / "init"
    return Initialization(read_initialization(path))


def load_adapted(path: str | Path) -> AdaptedClassifier | AdaptedLanguageModel:
    """Load what `save` (or ``metacl adapt``) wrote. Raises `DataError`."""
    path = Path(path)
    mark, what = ADAPTED
    about = read_about(path / mark, f"{what} (made by: metacl adapt)", ("config", "labels", "support_losses"))
    config = config_from_dict(about["config"], origin=str(path / mark))
    params = load_params(path, config.learner)
    learner = config.learner.build(config.seed)
    head = {"head.weight", "head.bias"} if config.learner.classifies else set()
    missing = sorted({*learner.initial, *head} - set(params))
    if missing:
        raise DataError(f"{path}: damaged ({missing[0]} missing).")
    losses = list(about["support_losses"])
    if not config.learner.classifies:
        return AdaptedLanguageModel(config, learner, params, losses)
    support = [(text, label) for text, label in about.get("support", [])]  # older folders have none
    return AdaptedClassifier(config, learner, params, tuple(about["labels"]), losses, support)


def _save(path: Path, model: AdaptedClassifier | AdaptedLanguageModel, answers: dict[str, Any]) -> None:
    with written_whole(path, *ADAPTED) as aside:
        save_params(model.params, model.learner, aside)
        about = {
            "format": FORMAT,
            **answers,
            "support_losses": model.support_losses,
            "config": model.config.to_dict(),
        }
        (aside / "adapted.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", "utf-8")


def check_adapted_output(path: Path) -> None:
    """Before the work: may an adapted model be saved to `path`? Raises `ConfigError` if it holds something else."""
    check_free(path, *ADAPTED)


def _check_examples(texts: Sequence[str], labels: Sequence[str]) -> None:
    _check_texts(texts)
    _check_strings("label", labels)
    if len(texts) != len(labels):
        raise DataError(f"{len(texts)} texts but {len(labels)} labels; each text needs one.")
    counts = Counter(labels)
    if len(counts) < 2:
        raise DataError(
            f"adapting needs examples of at least two labels, got {len(counts)}: {', '.join(counts) or 'none'}."
        )


def _check_texts(texts: Sequence[str]) -> None:
    _check_strings("text", texts)
    for position, text in enumerate(texts, start=1):
        if not text.strip():
            raise DataError(f"text {position} is empty.")


def _check_strings(what: str, items: Sequence[object]) -> None:
    if isinstance(items, str):
        raise DataError(f"{what}s: one str was given; pass a list, for example [{items[:40]!r}].")
    for position, item in enumerate(items, start=1):
        if not isinstance(item, str):
            hint = ", for example str(label)" if what == "label" else ""
            raise DataError(f"{what} {position} is a {type(item).__name__} ({item!r}); {what}s must be text{hint}.")
