"""All that can be known of a run's data without a model: one pass over the texts, then a few episodes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from metacl.config import RunConfig
from metacl.data_check.encodings import Encodings
from metacl.data_check.finding import Finding, first_of
from metacl.data_check.lengths import Counts, Lengths
from metacl.data_check.reading import readable
from metacl.data_check.repeats import Repeats
from metacl.errors import DataError, MetaclError
from metacl.learners.loading import load_config_and_tokenizer
from metacl.learners.pretrained import find_pretrained
from metacl.learners.transformer import TransformerConfig
from metacl.tasks import EpisodeShape, EpisodeSource, Split, Survey, TaskAddress

MOST_EXAMPLES = 1_000_000
"""Texts that are compared; of a larger set the first so many."""

EPISODES = 5


@dataclass(frozen=True)
class DataReport:
    """findings : in the order a person reads them. episodes : lines of some examples. obstacle : why it cannot work."""

    findings: list[Finding]
    episodes: list[list[str]]
    obstacle: str | None


def check_config_data(config: RunConfig) -> DataReport:
    """Look at all that the run would draw from. Raises `DataError` with file and line where nothing can be read."""
    source = config.data.open()
    survey = config.data.survey()
    findings = [Finding("read", source.describe())]
    if survey is not None:
        findings += [Finding("note", note, "look") for note in survey.notes]
        findings += [*_counts(survey), *_unusable(survey, config), *_of_texts(survey, config)]
    obstacles = [*_refusals(source, config)]
    obstacles += [f"{found.what}: {found.found}: {found.details[0]}" for found in findings if found.level == "wrong"]
    addresses = [TaskAddress("train", config.seed, 0, index) for index in range(0 if obstacles else EPISODES)]
    episodes = [readable(source.episode(address, config.episodes)) for address in addresses]
    return DataReport(findings, episodes, obstacles[0] if obstacles else None)


def _needed(config: RunConfig) -> Iterator[tuple[Split, EpisodeShape]]:
    """Every split the run draws from, with the shape of its episodes."""
    yield "train", config.episodes
    if config.outer.held_out is not None:
        yield "valid", config.episodes
    if config.evaluation is not None:
        yield config.evaluation.split, config.evaluation.shape


def _refusals(source: EpisodeSource, config: RunConfig) -> Iterator[str]:
    for split, shape in _needed(config):
        try:
            source.check(split, shape)
        except DataError as error:
            yield str(error)


def _counts(survey: Survey) -> list[Finding]:
    """Groups and examples of each split, the domains, the smallest and the largest."""
    unit = "classes" if survey.unit == "class" else "domains"
    found = []
    for split, groups in survey.splits.items():
        if not groups:
            found.append(Finding(split, f"no {unit}"))
            continue
        sizes = sorted(groups.items(), key=lambda item: (item[1], item[0]))
        domains = {survey.domain_of[name] for name in groups if name in survey.domain_of}
        inside = f" of {len(domains)} domains" if domains else ""
        spread = f"{sizes[0][1]} ({sizes[0][0]}) to {sizes[-1][1]} ({sizes[-1][0]})"
        said = f"{len(groups)} {unit}{inside}, {sum(groups.values()):,} different examples, {spread} each"
        found.append(Finding(split, said, "fine", first_of([f"{name}: {size}" for name, size in sizes])))
    return found


def _unusable(survey: Survey, config: RunConfig) -> list[Finding]:
    found = []
    for split, shape in _needed(config):
        need = shape.shots + shape.queries
        small = [f"{name}: {size}" for name, size in survey.splits[split].items() if size < need]
        if small:
            said = f"{len(small)} of {split} have fewer than {shape.shots} shots + {shape.queries} queries need"
            found.append(Finding("unusable", said, "wrong", first_of(small, 20)))
    return found


def _of_texts(survey: Survey, config: RunConfig) -> list[Finding]:
    """One pass over the texts."""
    total = sum(size for groups in survey.splits.values() for size in groups.values())
    observers: list[Repeats | Encodings | Lengths] = [Repeats(survey.unit), Encodings()]
    beside: list[Finding] = []
    if isinstance(config.learner, TransformerConfig):
        marker = config.data.completion_marker
        try:
            counts = _token_counter(config.learner)
        except MetaclError as error:  # the data can be looked at all the same
            beside.append(Finding("lengths", f"not counted, for want of a tokenizer: {error}", "look"))
        else:
            observers.append(Lengths(counts, config.learner.max_length, total, survey.window, marker))
    seen = 0
    for example in itertools.islice(survey.examples(), MOST_EXAMPLES):
        seen += 1
        for observer in observers:
            observer.see(example)
    found = [finding for observer in observers for finding in observer.findings()] + beside
    if seen == MOST_EXAMPLES:
        found.append(Finding("note", f"texts were compared and measured among the first {MOST_EXAMPLES:,}", "look"))
    return found


def _token_counter(learner: TransformerConfig) -> Counts:
    _, tokenizer = load_config_and_tokenizer(find_pretrained(learner.model).folder)

    def counts(texts: list[str]) -> list[int]:
        read = tokenizer(texts, truncation=False, verbose=False)["input_ids"]
        return [len(ids) for ids in read]

    return counts
