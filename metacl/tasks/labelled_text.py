"""Labelled text as a source of N-way K-shot episodes over disjoint classes.

The classes, not the examples, are split into train, valid and test: an episode of the test split is made
of classes that training never saw (Vinyals et al. 2016, "Matching Networks for One Shot Learning", sec. 4).
Where classes belong to domains, whole domains can be kept back instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, model_validator

from metacl.errors import DataError
from metacl.tasks.bundled import BUNDLED, bundled_class_split, bundled_examples
from metacl.tasks.class_episodes import ClassEpisodes
from metacl.tasks.class_texts import ClassTexts, group_examples, with_domains
from metacl.tasks.episode import TASK_SOURCES, Split, Survey, Surveyed, TaskSource, Unit
from metacl.tasks.line_index import indexed_texts, wants_index
from metacl.tasks.readers import Example, TextTable, open_table
from metacl.tasks.readers.json_file import load
from metacl.tasks.splits import Fractions, Names, Seed, classes_by_domain, drawn_with, read_splits, split_at_random


def _two_digits(value: Any) -> Any:
    """YAML reads an unquoted 02 as the number 2."""
    return f"{value:02d}" if isinstance(value, int) and not isinstance(value, bool) else value


@TASK_SOURCES.register("labelled_text")
class LabelledText(TaskSource):
    """N-way K-shot episodes from a bundled data set, or a file or folder of texts and labels.

    Give either `dataset` (a bundled one; `class_split` picks one of its published splits) or `path` (JSONL, JSON, CSV,
    Parquet, a folder saved by Hugging Face datasets, a folder of texts per class).

    text_column, label_column : fields of a row; null (default) for the obvious ones.
    domain_column : the field that holds a row's domain; or domains : a JSON file with {domain: [class, …]}.
    split_by : what the splits keep apart, "class" or "domain". fractions, split_seed : a random split; or splits : a
    file that `metacl data split` wrote.
    within_domain : all classes of an episode come from one domain.
    out_of_scope : this class is one of the N of every episode, in every split with examples of its own, drawn as the
    classes are: with `fractions` and `split_seed`, or those that stand in the file of splits.
    joint : every training episode holds all training classes in one order, so that a class is the same label in each:
    with objective maml and 0 inner steps, joint multi-task training.
    names_in_support : the name of each class, in words, is one more example of its support, in training and afterwards;
    not that of what is out of scope.
    """

    dataset: str | None = None
    class_split: Annotated[str, BeforeValidator(_two_digits)] = "01"
    path: Path | None = None
    text_column: str | None = None
    label_column: str | None = None
    domain_column: str | None = None
    domains: Path | None = None
    split_by: Unit = "class"
    fractions: Fractions = (0.4, 0.2, 0.4)
    split_seed: Seed = 0
    splits: Path | None = None
    within_domain: bool = False
    out_of_scope: str | None = None
    joint: bool = False
    names_in_support: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> LabelledText:
        if (self.dataset is None) == (self.path is None):
            raise ValueError(
                f"give exactly one of data.dataset (bundled: {', '.join(BUNDLED)}) and data.path (a file or folder)"
            )
        for_path = ("domain_column", "domains", "splits", "out_of_scope")
        given = [key for key in for_path if getattr(self, key) is not None]
        if self.dataset is not None and given:
            raise ValueError(f"data.{given[0]}: for data.path only; a bundled data set has published class splits")
        if self.domain_column is not None and self.domains is not None:
            raise ValueError("give one of data.domain_column and data.domains")
        if self.joint and (self.within_domain or self.out_of_scope is not None):
            raise ValueError("data.joint: it puts all classes together. Leave out within_domain and out_of_scope")
        for key, needs in (("split_by", self.split_by == "domain"), ("within_domain", self.within_domain)):
            if needs and self.domain_column is None and self.domains is None:
                raise ValueError(f"data.{key}: it needs domains. Set data.domain_column or data.domains")
        return self

    @property
    def origin(self) -> str:
        """The bundled data set, or the file or folder."""
        return self.dataset or str(Path(str(self.path)).resolve())

    @property
    def sizes_vary(self) -> bool:
        """Any N and K."""
        return True

    @property
    def shows_names(self) -> bool:
        """As `names_in_support` says."""
        return self.names_in_support

    def names_shown(self, names: Sequence[str]) -> list[str]:
        """What is out of scope is nothing that its name would say."""
        return [name for name in super().names_shown(names) if name != self.out_of_scope]

    def open(self) -> ClassEpisodes:
        """Read and split the data."""
        if self.dataset is not None:
            name = f"{self.dataset}, published class split {self.class_split}"
            classes = bundled_class_split(self.dataset, self.class_split)
            texts = group_examples(bundled_examples(self.dataset))
            return ClassEpisodes(name, texts, classes, joint=self.joint, names_in_support=self.names_in_support)
        table = self._table()
        texts = self.read(table)
        if self.splits is not None:
            how = f"{self._unit_plural} split by {self.splits}"
        else:
            how = f"{self._unit_plural} split {self.fractions} with seed {self.split_seed}"
        guessed = f" ({table.columns.guessed})" if table.columns.guessed else ""
        return ClassEpisodes(
            f"{self.path}{guessed}, {how}",
            texts,
            self._classes(texts),
            within_domain=self.within_domain,
            out_of_scope=self.out_of_scope,
            out_of_scope_texts=self._out_of_scope_positions(texts),
            joint=self.joint,
            names_in_support=self.names_in_support,
        )

    def read(self, table: TextTable | None = None) -> ClassTexts:
        """The texts of every class, before they are split."""
        if self.dataset is not None:
            return group_examples(bundled_examples(self.dataset))
        table = table or self._table()
        texts = indexed_texts(table) if wants_index(table.path) else group_examples(table.examples())
        if self.out_of_scope is not None and self.out_of_scope not in texts.texts:
            raise DataError(f"{self.path}: data.out_of_scope: no example has the label {self.out_of_scope!r}.")
        if self.domains is None:
            return texts
        listed = load(self.domains)
        if not isinstance(listed, dict) or not all(
            isinstance(names, list) and all(isinstance(name, str) for name in names) for names in listed.values()
        ):
            raise DataError(f"{self.domains}: expected {{domain: [class, …], …}}.")
        return with_domains(texts, listed, str(self.domains), self.out_of_scope)

    def units(self, texts: ClassTexts) -> list[str]:
        """What `split_by` says is split: the names of the classes or of the domains, sorted."""
        if self.split_by == "domain":
            return sorted({texts.domain_of[name] for name in texts.texts if name != self.out_of_scope})
        return sorted(name for name in texts.texts if name != self.out_of_scope)

    def _table(self) -> TextTable:
        assert self.path is not None
        return open_table(self.path, self.text_column, self.label_column, self.domain_column)

    @property
    def _unit_plural(self) -> str:
        return "domains" if self.split_by == "domain" else "classes"

    def _classes(self, texts: ClassTexts) -> Names:
        units = self.units(texts)
        if self.splits is not None:
            names = read_splits(self.splits, self.split_by, units)
        else:
            names = split_at_random(units, self.fractions, self.split_seed)
        if self.split_by == "class":
            return names
        return classes_by_domain(names, {c: d for c, d in texts.domain_of.items() if c != self.out_of_scope})

    def _out_of_scope_positions(self, texts: ClassTexts) -> dict[Split, list[int]]:
        """No split may ask with a text that another trained on: this class's examples are split, too."""
        if self.out_of_scope is None:
            return {}
        drawn = None if self.splits is None else drawn_with(self.splits)
        fractions, seed = drawn or (self.fractions, self.split_seed)
        return split_at_random(range(len(texts.texts[self.out_of_scope])), fractions, seed)

    def survey(self) -> Survey:
        """All examples with the class and split they belong to."""
        source = self.open()
        table = None if self.path is None else self._table()

        def examples() -> Iterator[Surveyed]:
            rows: Iterator[Example] = iter(bundled_examples(str(self.dataset))) if table is None else table.examples()
            for row in rows:
                name = source.names[row.domain, row.label]
                yield Surveyed(row.text, name, source.split_of(name, row.text), row.place)

        notes = [] if table is None or not table.columns.guessed else [f"columns {table.columns.guessed}"]
        if left := source.unassigned():
            notes.append(f"{len(left)} classes stand in no split: {', '.join(left[:5])}{' …' if left[5:] else ''}")
        return Survey("class", source.sizes(), source.domain_of, examples, tuple(notes))
