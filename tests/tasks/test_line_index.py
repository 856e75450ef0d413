"""A file read by its index gives what the same file gives from memory; the index is made once and never stale."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from metacl.errors import DataError, ResourceError
from metacl.tasks import EpisodeShape, LabelledText, TaskAddress, line_index
from metacl.tasks.class_texts import group_examples
from metacl.tasks.line_index import indexed_texts, wants_index
from metacl.tasks.readers import open_table


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(line_index, "CHUNK", 7)  # several portions, the last one not full
    return tmp_path / "cache"


@pytest.fixture
def path(tmp_path):
    """Classes in turn, duplicates near and far, blank lines, other alphabets, a byte order mark."""
    rows = [
        {"text": f" Größe {i % 23} von {i % 5}\u2028", "label": f"класс {i % 5}", "domain": "ab"[i % 5 % 2]}
        for i in range(160)
    ]
    lines = [json.dumps(row, ensure_ascii=bool(place % 2)) for place, row in enumerate(rows)]
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\n\n".join(lines).encode())
    return path


@pytest.mark.parametrize("domain", [None, "domain"])
def test_same_texts_as_from_memory(path, domain):
    table = open_table(path, None, None, domain)
    found, expected = indexed_texts(table), group_examples(table.examples())
    assert {name: list(texts) for name, texts in found.texts.items()} == expected.texts
    assert found.domain_of == expected.domain_of and found.names == expected.names
    assert found.duplicates == expected.duplicates == 160 - 5 * 23
    assert list(found.texts["класс 1"][2:4]) == expected.texts["класс 1"][2:4]


def test_same_episodes_as_from_memory(path, monkeypatch):
    config = LabelledText(path=path, fractions=(1.0, 0.0, 0.0))
    shape = EpisodeShape(ways=3, shots=2, queries=3)
    from_memory = config.open()
    monkeypatch.setattr(line_index, "INDEX_FROM", 1)
    indexed = config.open()
    assert type(indexed.texts["класс 0"]) is not list
    assert indexed.describe() == from_memory.describe()
    for step in range(20):
        address = TaskAddress("train", 0, step, 0)
        assert indexed.episode(address, shape) == from_memory.episode(address, shape)


def test_the_index_is_made_once_and_again_when_the_file_changes(path, cache, monkeypatch):
    built = []
    build = line_index._build
    monkeypatch.setattr(line_index, "_build", lambda *a: (built.append(1), build(*a)))
    for _ in range(3):
        indexed_texts(open_table(path, None, None))
    assert len(built) == 1
    with path.open("a", encoding="utf-8") as file:
        file.write('\n{"text": "neu", "label": "neu"}\n')
    assert list(indexed_texts(open_table(path, None, None)).texts["neu"]) == ["neu"]
    os.utime(path, ns=(1, 1))
    indexed_texts(open_table(path, None, None))
    indexed_texts(open_table(path, "label", "text"))
    assert len(built) == 4
    folders = list((cache / "metacl/line_index").iterdir())
    assert len(folders) == 4 and all({f.name for f in of.iterdir()} == {"index.json", "offsets.u8"} for of in folders)


def test_an_edited_file_with_its_old_time_is_indexed_anew(path):
    before, stat = indexed_texts(open_table(path, None, None)), path.stat()
    path.write_bytes(path.read_bytes().replace(b" 3 von 3", b" 9 von 3"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a copy that keeps times would
    assert path.stat().st_size == stat.st_size
    table = open_table(path, None, None)
    after, expected = indexed_texts(table), group_examples(table.examples())
    assert {name: list(texts) for name, texts in after.texts.items()} == expected.texts
    assert len(after.texts["класс 3"]) < len(before.texts["класс 3"])


def test_a_bad_line_is_named_and_nothing_is_left(path, cache):
    with path.open("a", encoding="utf-8") as file:
        file.write('\n{"text": "no label"}\n')
    with pytest.raises(DataError, match=r"data\.jsonl, line 320: no column 'label'"):
        indexed_texts(open_table(path, None, None))
    path.write_bytes(b'{"text": "a", "label": "x"}\n{"text": "caf\xe9", "label": "x"}\n')
    with pytest.raises(DataError, match=r"data\.jsonl, line 2: not UTF-8 \(byte 0xe9\)"):
        indexed_texts(open_table(path, None, None))
    assert list((cache / "metacl/line_index").iterdir()) == []


def test_a_file_that_changes_under_the_run_is_noticed(path):
    found = indexed_texts(open_table(path, None, None))
    path.write_text("x" * path.stat().st_size)
    with pytest.raises(DataError, match="the file changed during the run"):
        found.texts["класс 0"][3]


def test_no_place_for_the_index(path, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match=r"index of .* cannot be written .*XDG_CACHE_HOME"):
        indexed_texts(open_table(path, None, None))


def test_what_is_indexed(path, monkeypatch):
    assert not wants_index(path)
    monkeypatch.setattr(line_index, "INDEX_FROM", path.stat().st_size)
    assert wants_index(path)
    assert not wants_index(path.parent) and not wants_index(path.with_suffix(".csv"))


MEASURED = """
import resource, sys
from metacl.tasks import EpisodeShape, LabelledText, TaskAddress, line_index
line_index.INDEX_FROM, line_index.CHUNK = 1, 1 << 14
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source = LabelledText(path=sys.argv[1], fractions=(1.0, 0.0, 0.0)).open()
for step in range(200):
    source.episode(TaskAddress("train", 0, step, 0), EpisodeShape(ways=5, shots=5, queries=5))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_follow_the_size_of_the_file(tmp_path):
    """100 MB are indexed and sampled within 25 MB; in memory their texts alone would be four times that."""
    path, filler = tmp_path / "large.jsonl", "word " * 400
    with path.open("w") as file:
        for i in range(50_000):
            file.write(f'{{"text": "{i} {filler}", "label": "class {i % 50}"}}\n')
    assert path.stat().st_size > 100e6
    command = [sys.executable, "-c", MEASURED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
    assert int(done.stdout) < 25 * 1024


def test_offsets_are_of_the_lines(path):
    found = indexed_texts(open_table(path, None, None))
    raw = path.read_bytes()
    offsets = np.concatenate([texts._offsets for texts in found.texts.values()])
    assert all(raw[offset : offset + 1] == b"{" for offset in offsets) and len(set(offsets.tolist())) == 115
