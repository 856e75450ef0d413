"""Streams have what they say, once, and in the same order every time."""

from collections import Counter

import numpy as np
import pytest

from metacl.continual.experience import Examples, Experience, Stream
from metacl.continual.streams import STREAMS, permuted, rotated
from metacl.continual.streams.base import blurred
from metacl.errors import ConfigError, DataError


def domain_file(folder):
    rows = [f"text {i} of {d}{c},{d}{c},{d}" for d in "pqr" for c in "12" for i in range(8)]
    path = folder / "data.csv"
    path.write_text("text,label,domain\n" + "\n".join(rows) + "\n")
    return path


def test_classes_come_once(tmp_path):
    data = {"path": domain_file(tmp_path)}
    source = STREAMS.build({"name": "classes", "data": data, "experiences": 3, "test": 0.25})
    stream = source.open(0)
    assert [len(e.classes()) for e in stream.experiences] == [2, 2, 2]
    assert sorted(c for e in stream.experiences for c in e.classes()) == list(range(6))
    for experience in stream.experiences:
        assert (len(experience.train), len(experience.test)) == (12, 4)
        assert not set(experience.train.inputs) & set(experience.test.inputs)
        for text, label in zip(experience.train.inputs, experience.train.labels, strict=True):
            assert text.endswith(stream.class_names[label])
    assert [e.fingerprint() for e in source.open(0).experiences] == [e.fingerprint() for e in stream.experiences]
    assert source.open(1).class_names != stream.class_names


def test_domains_in_the_order_given(tmp_path):
    data = {"path": domain_file(tmp_path), "domain_column": "domain"}
    stream = STREAMS.build({"name": "domains", "data": data, "order": ["r", "p"], "train_per_class": 2}).open(0)
    assert [e.name for e in stream.experiences] == ["r", "p"]
    assert stream.class_names == ("r1", "r2", "p1", "p2") and len(stream.experiences[0].train) == 4
    with pytest.raises(DataError, match="no domain 's'"):
        STREAMS.build({"name": "domains", "data": data, "order": ["s"]}).open(0)
    with pytest.raises(ConfigError, match="domain_column"):
        STREAMS.build({"name": "domains", "data": {"path": data["path"]}}).open(0)


def test_own_files(tmp_path):
    for name, label in (("one", "a"), ("two", "b")):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{name} 1,{label}\n{name} 2,a\n")
    listed = [{"train": tmp_path / f"{name}.csv", "test": tmp_path / "one.csv"} for name in ("one", "two")]
    stream = STREAMS.build({"name": "files", "experiences": listed}).open(0)
    assert stream.class_names == ("a", "b") and stream.experiences[1].train.labels == (1, 0)
    (tmp_path / "one.csv").write_text("text,label\nx,\n")
    with pytest.raises(DataError, match=r"one\.csv"):
        STREAMS.build({"name": "files", "experiences": listed}).open(0)


def test_text_domains(tmp_path):
    for name in ("law", "sea"):
        (tmp_path / f"{name}.txt").write_text("\n\u241e\n".join(f"{name} document {i}" for i in range(8)))
    data = {"name": "domain_text", "path": tmp_path, "split_by": "example"}
    stream = STREAMS.build({"name": "text_domains", "data": data, "order": ["sea", "law"]}).open(0)
    assert [e.name for e in stream.experiences] == ["sea", "law"] and stream.class_names == ()
    assert all(text.startswith("sea") for text in stream.experiences[0].train.inputs)
    assert [len(e.train) for e in stream.experiences] == [6, 6]


def test_blurred_borders_move_the_share_and_lose_nothing():
    def experience(k):
        return Experience(str(k), Examples([f"{k} {i}" for i in range(20)], (k,) * 20), Examples(["t"], (k,)))

    sharp = Stream(tuple(experience(k) for k in range(3)), ("a", "b", "c"))
    soft = blurred(sharp, 0.3, 0)
    origins = [Counter(text.split()[0] for text in e.train.inputs) for e in soft.experiences]
    assert [dict(sorted(counts.items())) for counts in origins] == [
        {"0": 14, "1": 3, "2": 3},
        {"0": 3, "1": 14, "2": 3},
        {"0": 3, "1": 3, "2": 14},
    ]
    texts = [text for e in soft.experiences for text in e.train.inputs]
    assert len(set(texts)) == len(texts) == 60
    assert all(str(label) == text.split()[0] for e in soft.experiences for text, label in _pairs(e.train))


def _pairs(examples):
    return zip(examples.inputs, examples.labels, strict=True)


def test_permuted_and_rotated_images():
    images = np.arange(2 * 16, dtype=np.float32).reshape(2, 4, 4)
    part = (images, [0, 1])
    stream = permuted(part, part, 3, 0, ["a", "b"])
    first, second, third = (e.train.inputs for e in stream.experiences)
    assert np.array_equal(first, images.reshape(2, 16))
    assert not np.array_equal(second, third) and np.array_equal(np.sort(second), np.sort(first))
    turned = rotated(part, part, [0, 90], ["a", "b"]).experiences[1].train.inputs
    assert np.allclose(turned, np.rot90(images, axes=(1, 2)).reshape(2, 16), atol=1e-4)
