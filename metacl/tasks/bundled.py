"""The data sets that ship with metacl, with their published class splits (see NOTICE for the licences)."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from importlib.resources import as_file, files

from metacl.errors import ConfigError
from metacl.registry import nearest
from metacl.tasks.episode import Split
from metacl.tasks.readers import Example, read_examples

BUNDLED = ("banking77", "hwu64", "oos")


def bundled_examples(dataset: str) -> list[Example]:
    """All examples of a bundled data set. Raises `ConfigError` for an unknown one."""
    _known(dataset)
    with as_file(files("metacl.tasks.bundled_data") / f"{dataset}.jsonl.xz") as path:
        examples = read_examples(path, "sentence", "label")
    return [replace(example, place=f"{dataset}, line {example.line}") for example in examples]


def bundled_class_split(dataset: str, split: str) -> dict[Split, list[str]]:
    """One of the five published splits ("01" … "05") of a bundled data set into disjoint classes."""
    _known(dataset)
    splits = _splits()[dataset]
    if split not in splits:
        raise ConfigError(f"data.class_split: {dataset} has no split {split!r}. Known: {', '.join(splits)}.")
    return splits[split]


def _known(dataset: str) -> None:
    if dataset not in BUNDLED:
        raise ConfigError(
            f"data.dataset: no bundled data set {dataset!r}. {nearest(dataset, BUNDLED)} "
            f"For a file of your own use data.path."
        )


@lru_cache(maxsize=1)
def _splits() -> dict[str, dict[str, dict[Split, list[str]]]]:
    return json.loads((files("metacl.tasks.bundled_data") / "class_splits.json").read_text("utf-8"))
