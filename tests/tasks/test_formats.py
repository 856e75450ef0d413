"""Parquet, folders of texts, saved data sets, JSON: held against what other libraries wrote."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from metacl.errors import DataError
from metacl.tasks import LabelledText
from metacl.tasks.readers import Example, open_table, read_examples, read_rows

SAVED = Path(__file__).parent / "saved_by_datasets"
EXPECTED = [(f"text {i}", "yes" if i % 2 else "no", "a" if i < 3 else "b") for i in range(6)]


def triples(path, *columns):
    return [(e.text, e.label, e.domain) for e in open_table(path, *columns).examples()]


def test_table_saved_by_datasets_with_class_names():
    assert triples(SAVED / "table", None, None, "domain") == EXPECTED


def test_splits_saved_by_datasets():
    assert triples(SAVED / "splits", None, None, "domain") == EXPECTED
    assert [row.fields["split"] for row in read_rows(SAVED / "splits")] == ["train"] * 4 + ["test"] * 2


def test_parquet_in_several_row_groups(tmp_path):
    table = pyarrow.table({"sentence": ["a", "b", "c"], "intent": ["x", "y", "x"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    assert read_examples(tmp_path / "a.parquet") == [Example("a", "x", 1), Example("b", "y", 2), Example("c", "x", 3)]


def test_parquet_with_times_finer_than_pythons_beside_what_is_read(tmp_path):
    times = pyarrow.array([1, 2], pyarrow.timestamp("ns"))
    table = pyarrow.table({"time": times, "text": ["a", "b"], "label": ["x", "y"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert read_examples(tmp_path / "a.parquet") == [Example("a", "x", 1), Example("b", "y", 2)]


def test_parquet_with_an_empty_text_names_the_row(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", None], "label": ["x", "y"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet, row 2: 'text' is empty"):
        read_examples(tmp_path / "a.parquet")


def test_saved_table_that_was_cut(tmp_path):
    for file in (SAVED / "table").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = tmp_path / "data-00001-of-00002.arrow"
    shard.write_bytes(shard.read_bytes()[:300])
    with pytest.raises(DataError, match=r"data-00001-of-00002\.arrow: cannot be read as an Arrow stream after row 3"):
        read_examples(tmp_path)


def test_saved_table_that_lacks_a_shard(tmp_path):
    for file in (SAVED / "table").glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(DataError, match=r"data-00000-of-00002\.arrow: cannot be read"):
        read_examples(tmp_path)


def test_saved_table_with_a_class_that_has_no_name(tmp_path):
    for file in (SAVED / "table").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    info["features"]["label"]["names"] = ["no"]
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="row 2: 'label' is 1, which is none of its 1 classes"):
        read_examples(tmp_path)


def test_saved_selection_of_rows_is_refused(tmp_path):
    for file in (SAVED / "table").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "indices.arrow").write_bytes(b"")
    with pytest.raises(DataError, match="flatten_indices"):
        read_examples(tmp_path)


def folder_of(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def test_folder_per_class(tmp_path):
    texts = {"b/2.txt": "two\nlines\n", "b/1": "one", "a/x.md": "zero"}
    root = folder_of(tmp_path, {**texts, "LICENSE": "not read", "a/.DS_Store": b"\xff"})
    assert [(e.text, e.label) for e in read_examples(root)] == [("zero", "a"), ("one", "b"), ("two\nlines", "b")]
    assert read_examples(root)[2].place == str(root / "b/2.txt")


def test_file_per_domain_with_record_separators(tmp_path):
    root = folder_of(tmp_path, {"law.txt": "first\nof law\n\u241e\n\nsecond\n\u241e\n", "code.txt": "only"})
    found = [(e.text, e.label, e.line) for e in read_examples(root)]
    assert found == [("only", "code", 1), ("first\nof law", "law", 1), ("second", "law", 5)]


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ({"a/1.txt": "x", "a/2.txt": " \n"}, ["2.txt, line 1", "empty"]),
        ({"a/1.txt": b"ok\ncaf\xe9"}, ["1.txt, line 2", "not UTF-8"]),
        ({"a/b/1.txt": "x"}, ["a folder in the folder of a class"]),
        ({"LICENSE.md": "x"}, ["no texts there", ".txt"]),
        ({"a.txt": "\u241e\n"}, ["a.txt, line 1", "empty"]),
    ],
)
def test_bad_folder(tmp_path, files, parts):
    with pytest.raises(DataError) as caught:
        read_examples(folder_of(tmp_path, files))
    assert [part for part in parts if part not in str(caught.value)] == []


def test_json_arrays_under_keys(tmp_path):
    path = tmp_path / "clinc.json"
    path.write_text(json.dumps({"train": [["a", "x"]], "test": [["b", "y"], ["c", "x"]]}))
    assert read_examples(path, "0", "1") == [Example("a", "x", 1), Example("b", "y", 2), Example("c", "x", 3)]
    assert [row.place for row in read_rows(path)][1] == f"{path}, row 1 of 'test'"


def test_json_objects_under_keys_with_tokens(tmp_path):
    path = tmp_path / "fewrel.json"
    path.write_text(json.dumps({"P1": [{"tokens": ["a", "b"]}], "P2": [{"tokens": ["c"]}]}))
    assert read_examples(path, None, "key") == [Example("a b", "P1", 1), Example("c", "P2", 2)]


def test_json_list_of_objects(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "a", "label": 3}]))
    assert read_examples(path) == [Example("a", "3", 1)]


def one_row(tmp_path, **fields) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(fields) + "\n")
    return path


def test_obvious_columns_are_taken_and_said(tmp_path):
    path = one_row(tmp_path, id="1", utterance="hello", Intent="greet")
    assert read_examples(path) == [Example("hello", "greet", 1)]
    assert open_table(path, None, None).columns.guessed == "guessed: text_column 'utterance', label_column 'Intent'"
    described = LabelledText(path=path).open().describe()
    assert described.startswith(f"{path} (guessed: text_column 'utterance', label_column 'Intent'), classes split")


def test_named_columns_and_text_and_label_are_no_guess(tmp_path):
    assert open_table(one_row(tmp_path, text="a", label="x", body="c"), None, None).columns.guessed == ""
    assert open_table(one_row(tmp_path, body="a", kind="x"), "body", "kind").columns.guessed == ""


def test_what_is_not_obvious_is_asked_for(tmp_path):
    with pytest.raises(DataError, match=r"line 1: which column is the text\? Several could be.*data\.text_column"):
        read_examples(one_row(tmp_path, sentence="a", body="b", label="x"))
    with pytest.raises(DataError, match=r"line 1: no column is obviously the label.*'kind'.*data\.label_column"):
        read_examples(one_row(tmp_path, text="a", kind="x"))
