"""Arrays of one's own: balanced episodes of disjoint rows, what cannot be read, and a training on Gaussian clusters."""

import json

import numpy as np
import pytest

import metacl
from metacl.config import config_from_dict
from metacl.errors import ConfigError, DataError
from metacl.tasks import EpisodeShape, LabelledArrays, TaskAddress

CLASSES, EACH = 10, 8


def clusters(path, spread=3.0):
    """Rows x ~ N(m_c, I) in 6 dimensions, m_c ~ N(0, spread² I); the last column is the row's number."""
    random = np.random.default_rng(0)
    labels = np.repeat([f"class {c}" for c in range(CLASSES)], EACH)
    means = np.repeat(spread * random.standard_normal((CLASSES, 6)), EACH, 0)
    inputs = means + random.standard_normal(means.shape)
    numbers = np.arange(len(labels))[:, None]
    np.savez(path, inputs=np.hstack([inputs, numbers]), labels=labels)
    return path


def test_promises_of_an_episode(tmp_path):
    source = LabelledArrays(path=clusters(tmp_path / "a.npz"), fractions=(0.5, 0.2, 0.3)).open()
    shape, classes_drawn = EpisodeShape(ways=3, shots=2, queries=4), set()
    source.check("train", shape)
    for step in range(60):
        address = TaskAddress("train", 1, step, 0)
        episode = source.episode(address, shape)
        (x, y), (xq, yq) = episode.support, episode.query
        assert x.shape == (6, 7) and xq.shape == (12, 7) and x.dtype == np.float32 and episode.ways == 3
        np.testing.assert_array_equal(y, [0, 0, 1, 1, 2, 2])
        np.testing.assert_array_equal(yq, np.repeat([0, 1, 2], 4))
        rows = np.concatenate([x[:, 6], xq[:, 6]]).astype(int)
        assert len(set(rows)) == 18  # support and query share none, and none is there twice
        of_class = [{row // EACH for row in rows[np.concatenate([y, yq]) == way]} for way in range(3)]
        assert all(len(found) == 1 for found in of_class) and len(set.union(*of_class)) == 3
        classes_drawn |= set.union(*of_class)
        np.testing.assert_array_equal(source.episode(address, shape).query[0], xq)
    assert {f"class {c}" for c in classes_drawn} == set(source.classes["train"]) and len(classes_drawn) == 5
    assert not {*source.classes["train"]} & {*source.classes["valid"], *source.classes["test"]}


def test_splits_of_a_file(tmp_path):
    names = {"train": ["class 3", "class 1"], "valid": [], "test": ["class 0"]}
    (tmp_path / "s.json").write_text(json.dumps(names))
    source = LabelledArrays(path=clusters(tmp_path / "a.npz"), splits=tmp_path / "s.json").open()
    assert source.classes == {"train": ["class 1", "class 3"], "valid": [], "test": ["class 0"]}
    with pytest.raises(DataError, match=r"3-way episodes need 3 classes, but split 'train' has 2"):
        source.check("train", EpisodeShape(ways=3))
    with pytest.raises(DataError, match=r"need 9 different examples a class.*'class 1' \(8\)"):
        source.check("train", EpisodeShape(ways=2, shots=4, queries=5))


GOOD = {"inputs": np.zeros((4, 2)), "labels": np.array([0, 0, 1, 1])}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, r"no array 'inputs'; it has 'x'. Name it with data.inputs"),
        ({**GOOD, "labels": np.zeros(4)}, r"'labels' is float64 of shape \(4,\); expected whole numbers or text"),
        ({**GOOD, "labels": np.array([{}, {}])}, r"not a file of numpy.savez with plain arrays"),
        ({**GOOD, "inputs": np.zeros((3, 2))}, r"a row for each of the 4 labels"),
        ({**GOOD, "inputs": np.array([["a"]] * 4)}, r"'inputs' is <U1 of shape \(4, 1\); expected numbers"),
        ({**GOOD, "inputs": np.array([[0.0], [np.inf], [0], [0]])}, r"'inputs', row 2, is not finite"),
    ],
)
def test_arrays_that_cannot_work(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        LabelledArrays(path=tmp_path / "a.npz").open()


def test_files_that_cannot_work(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        LabelledArrays(path=tmp_path / "none.npz").open()
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError, match="one array; expected a file"):
        LabelledArrays(path=tmp_path / "one.npy").open()
    (tmp_path / "text.npz").write_text("inputs, labels")
    with pytest.raises(DataError, match="not a file of"):
        LabelledArrays(path=tmp_path / "text.npz").open()


def test_unseen_clusters_are_told_apart(tmp_path):
    """The best possible tells clusters three standard deviations apart nearly always; chance is one in three."""
    path = clusters(tmp_path / "a.npz")
    with np.load(path) as archive:
        np.savez(path, inputs=archive["inputs"][:, :6], labels=archive["labels"])
    tree = {
        "name": "clusters",
        "output": str(tmp_path / "run"),
        "learner": {"name": "mlp_classifier", "inputs": 6, "hidden": [32]},
        "data": {"name": "labelled_arrays", "path": str(path), "fractions": [0.6, 0.0, 0.4]},
        "episodes": {"ways": 3, "shots": 2, "queries": 4},
        "objective": "proto_maml",
        "inner": {"steps": 2, "step_size": {"value": 0.05, "head": 0.05}},
        "outer": {"steps": 15, "tasks_per_step": 2, "learning_rate": 0.01},
        "workers": {"executor": "local"},
        "evaluation": {"shape": {"ways": 3, "shots": 2, "queries": 4}, "episodes": 30, "steps": [2]},
    }
    wide = {**tree, "learner": {**tree["learner"], "inputs": 7}}
    with pytest.raises(ConfigError, match=r"does not go through it .*Rows have the shape \(6,\)"):
        metacl.train(config_from_dict(wide))
    assert not (tmp_path / "run" / "config.yaml").exists()
    found = metacl.train(config_from_dict(tree)).results["rows"]
    (accuracy,) = [row["accuracy"] for row in found if (row["method"], row["steps"]) == ("meta-learned", 2)]
    assert accuracy["low"] > 0.85
