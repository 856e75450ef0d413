"""Labelled text as a source of N-way K-shot episodes over disjoint classes.

The classes, not the examples, are split into train, valid and test: an episode of the test split is made
of classes that training never saw (Vinyals et al. 2016, "Matching Networks for One Shot Learning", sec. 4).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field, model_validator

from metacl.errors import DataError
from metacl.tasks.bundled import BUNDLED, bundled_class_split, bundled_examples
from metacl.tasks.episode import TASK_SOURCES, Episode, EpisodeShape, Split, TaskAddress, TaskSource
from metacl.tasks.randomness import AddressedRandom
from metacl.tasks.readers import Example, read_examples


def _two_digits(value: Any) -> Any:
    """YAML reads an unquoted 02 as the number 2."""
    return f"{value:02d}" if isinstance(value, int) and not isinstance(value, bool) else value


@TASK_SOURCES.register("labelled_text")
class LabelledText(TaskSource):
    """N-way K-shot episodes from a bundled data set or a JSONL/CSV file of texts and labels.

    Give either `dataset` (a bundled one; `class_split` picks one of its published splits) or `path`
    (a file; its classes are split at random by `fractions` with `split_seed`).
    """

    dataset: str | None = None
    class_split: Annotated[str, BeforeValidator(_two_digits)] = "01"
    path: Path | None = None
    text_column: str = "text"
    label_column: str = "label"
    fractions: tuple[float, float, float] = (0.4, 0.2, 0.4)
    split_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _one_origin(self) -> LabelledText:
        if (self.dataset is None) == (self.path is None):
            raise ValueError(
                f"give exactly one of data.dataset (bundled: {', '.join(BUNDLED)}) and data.path (a JSONL or CSV file)"
            )
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError(f"data.fractions must be three parts of 1 (train, valid, test), got {self.fractions}")
        return self

    def open(self) -> ClassEpisodes:
        """Read and split the data."""
        if self.dataset is not None:
            examples = bundled_examples(self.dataset)
            classes = bundled_class_split(self.dataset, self.class_split)
            name = f"{self.dataset}, published class split {self.class_split}"
        else:
            assert self.path is not None
            examples = read_examples(self.path, self.text_column, self.label_column)
            classes = _split_classes(sorted({e.label for e in examples}), self.fractions, self.split_seed)
            name = f"{self.path}, classes split {self.fractions} with seed {self.split_seed}"
        return ClassEpisodes(name, examples, classes)


class ClassEpisodes:
    """Episodes over one class split of a set of examples.

    Parameters
    ----------
    name : str
        What the data is, for messages.
    examples : list of Example
        Exact duplicates within a class are kept once, so that a class never has one sentence in support and query.
        A text that carries two labels stays in both classes.
    classes : dict of split to class names
        Disjoint.
    """

    def __init__(self, name: str, examples: list[Example], classes: dict[Split, list[str]]) -> None:
        self.name = name
        texts: dict[str, dict[str, None]] = {}
        for example in examples:
            texts.setdefault(example.label, {})[example.text] = None
        self.texts = {label: list(unique) for label, unique in texts.items()}
        self.duplicates = len(examples) - sum(map(len, self.texts.values()))
        self.classes = {split: sorted(names) for split, names in classes.items()}

    def check(self, split: Split, shape: EpisodeShape) -> None:
        """Raise `DataError` unless every class of `split` can serve in episodes of this shape."""
        names = self.classes[split]
        if shape.ways > len(names):
            raise DataError(
                f"{self.name}: {shape.ways}-way episodes need {shape.ways} classes, but split {split!r} has "
                f"{len(names)}. Lower episodes.ways, or give the split more classes."
            )
        need = shape.shots + shape.queries
        small = [f"{name!r} ({len(self.texts[name])})" for name in names if len(self.texts[name]) < need]
        if small:
            raise DataError(
                f"{self.name}: {shape.shots} shots + {shape.queries} queries need {need} different examples a class, "
                f"but in split {split!r} these have fewer: {', '.join(small[:5])}"
                f"{f' and {len(small) - 5} more' if len(small) > 5 else ''}. "
                f"Lower episodes.shots or episodes.queries, or remove these classes."
            )

    def episode(self, address: TaskAddress, shape: EpisodeShape) -> Episode:
        """Draw `ways` classes, then `shots` + `queries` different texts of each. Depends on the arguments alone."""
        random = AddressedRandom(address)
        names = random.sample(self.classes[address.split], shape.ways)
        support: list[tuple[str, int]] = []
        query: list[tuple[str, int]] = []
        for label, name in enumerate(names):
            drawn = random.sample(self.texts[name], shape.shots + shape.queries)
            support += [(text, label) for text in drawn[: shape.shots]]
            query += [(text, label) for text in drawn[shape.shots :]]
        return Episode(
            address=address,
            class_names=tuple(names),
            support_texts=tuple(text for text, _ in support),
            support_labels=tuple(label for _, label in support),
            query_texts=tuple(text for text, _ in query),
            query_labels=tuple(label for _, label in query),
        )

    def describe(self) -> str:
        """One line: the name, the examples, the classes of each split."""
        parts = ", ".join(f"{len(self.classes[split])} {split}" for split in get_args(Split))
        total = sum(map(len, self.texts.values()))
        dropped = f" ({self.duplicates} exact duplicates left out)" if self.duplicates else ""
        return f"{self.name}: {total} examples{dropped}, classes: {parts}"


def _split_classes(names: list[str], fractions: tuple[float, float, float], seed: int) -> dict[Split, list[str]]:
    shuffled = AddressedRandom(TaskAddress("train", seed, 0, 0)).sample(names, len(names))
    first = round(fractions[0] * len(names))
    second = round((fractions[0] + fractions[1]) * len(names))  # rounded together: the three parts add up
    return {"train": shuffled[:first], "valid": shuffled[first:second], "test": shuffled[second:]}
