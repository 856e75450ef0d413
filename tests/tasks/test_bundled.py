"""The bundled data against the counts published with them (Dopierre et al. 2021, Larson et al. 2019)."""

from collections import Counter
from functools import cache

import pytest

from metacl.tasks import EpisodeShape, LabelledText, TaskAddress
from metacl.tasks.bundled import BUNDLED, bundled_class_split, bundled_examples

examples_of = cache(bundled_examples)

PUBLISHED = {"banking77": (13083, 77), "hwu64": (11036, 64), "oos": (22500, 150)}
FIVE = ("01", "02", "03", "04", "05")


@pytest.mark.parametrize("dataset", BUNDLED)
def test_counts(dataset):
    examples = examples_of(dataset)
    assert (len(examples), len({example.label for example in examples})) == PUBLISHED[dataset]


def test_oos_has_150_examples_of_every_intent():
    assert set(Counter(example.label for example in examples_of("oos")).values()) == {150}


@pytest.mark.parametrize("dataset", BUNDLED)
@pytest.mark.parametrize("split", FIVE)
def test_class_splits_are_disjoint_and_complete(dataset, split):
    classes = bundled_class_split(dataset, split)
    every = [name for names in classes.values() for name in names]
    assert set(classes) == {"train", "valid", "test"}
    assert len(every) == len(set(every))
    assert set(every) == {example.label for example in examples_of(dataset)}


@pytest.mark.parametrize("split", FIVE)
@pytest.mark.parametrize(("dataset", "sizes"), [("banking77", (25, 25, 27)), ("oos", (50, 50, 50))])
def test_published_split_sizes(dataset, sizes, split):
    classes = bundled_class_split(dataset, split)
    assert tuple(len(classes[part]) for part in ("train", "valid", "test")) == sizes


@pytest.mark.parametrize("dataset", BUNDLED)
def test_the_five_splits_differ(dataset):
    assert len({tuple(sorted(bundled_class_split(dataset, split)["train"])) for split in FIVE}) == 5


def test_published_protocol_can_be_drawn():
    source = LabelledText(dataset="banking77", class_split="03").open()
    shape = EpisodeShape(ways=5, shots=5, queries=5)
    for split in ("train", "valid", "test"):
        source.check(split, shape)
    assert source.describe() == (
        "banking77, published class split 03: 13072 examples (11 exact duplicates left out), "
        "classes: 25 train, 25 valid, 27 test"
    )
    episode = source.episode(TaskAddress("test", 1, 0, 0), shape)
    assert set(episode.class_names) <= set(bundled_class_split("banking77", "03")["test"])
