"""Omniglot: the bundled drawings are the published ones, splits are disjoint, turned characters are classes."""

import numpy as np
import pytest

from metacl.errors import DataError
from metacl.tasks import EpisodeShape, Omniglot, TaskAddress
from metacl.tasks.omniglot import bundled_drawings

SHAPE = EpisodeShape(ways=5, shots=1, queries=3)


@pytest.fixture(scope="module")
def source():
    return Omniglot().open()


def test_drawings():
    drawings = bundled_drawings()
    assert drawings.shape == (1623, 20, 28, 28)
    assert set(np.unique(drawings)) == {0, 1}
    ink = drawings.mean(axis=(2, 3))
    assert ink.min() > 0
    assert 0.05 < ink.mean() < 0.3, "ink is 1, paper is 0"
    # Two drawings of one character share more than drawings of two characters.
    blurred = drawings.reshape(1623, 20, 7, 4, 7, 4).mean(axis=(3, 5)).reshape(1623, 20, 49)
    same = np.linalg.norm(blurred[:, 0] - blurred[:, 1], axis=-1).mean()
    assert same < 0.9 * np.linalg.norm(blurred[:, 0] - np.roll(blurred[:, 1], 1, axis=0), axis=-1).mean()


def test_characters_of_the_splits_are_disjoint(source):
    characters = {split: {character for character, _ in classes} for split, classes in source.classes.items()}
    assert {split: len(found) for split, found in characters.items()} == {"train": 1100, "valid": 100, "test": 423}
    assert len(set.union(*characters.values())) == 1623
    assert {split: len(classes) for split, classes in source.classes.items()} == {
        "train": 4400,
        "valid": 100,
        "test": 423,
    }


def test_episode(source):
    episode = source.episode(TaskAddress("train", 0, 3, 1), SHAPE)
    (images, targets), (queries, query_targets) = episode.support, episode.query
    assert images.shape == (5, 1, 28, 28)
    assert queries.shape == (15, 1, 28, 28)
    assert targets.tolist() == [0, 1, 2, 3, 4]
    assert query_targets.tolist() == np.repeat(range(5), 3).tolist()
    flat = {image.tobytes() for image in [*images, *queries]}
    assert len(flat) == 20, "no drawing twice"
    again = Omniglot().open().episode(TaskAddress("train", 0, 3, 1), SHAPE)
    assert np.array_equal(again.query[0], queries)


def test_turns(source):
    upright = Omniglot(rotations=False).open()
    assert len(upright.classes["train"]) == 1100
    turned = [turn for _, turn in source.classes["train"]]
    assert [turned.count(turn) for turn in range(4)] == [1100] * 4
    # An episode of a turned class holds the drawing of that character, turned.
    source.classes["valid"] = [(7, 1)]
    image = source.episode(TaskAddress("valid", 0, 0, 0), EpisodeShape(ways=1, shots=1, queries=1)).support[0][0, 0]
    assert any(np.array_equal(np.rot90(drawing), image) for drawing in bundled_drawings()[7])


@pytest.mark.parametrize(("shape", "part"), [({"ways": 500}, "423 classes"), ({"shots": 15, "queries": 6}, "20 draw")])
def test_what_cannot_be_drawn(source, shape, part):
    with pytest.raises(DataError, match=part):
        source.check("test", EpisodeShape(**shape))
