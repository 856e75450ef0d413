"""Reading labelled text: what is accepted, and that every refusal names the file, the line and the mend."""

import lzma

import pytest

from metacl.errors import DataError
from metacl.tasks.readers import Example, read_examples

GOOD_LINE = '{"text": "a", "label": "x"}\n'


def read(folder, name, content, columns=("text", "label")):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_examples(path, *columns)


def test_jsonl_with_line_numbers(tmp_path):
    content = '\n{"text": " first ", "label": "x", "more": [1]}\n\n{"label": 7, "text": "second"}'
    assert read(tmp_path, "a.jsonl", content) == [Example("first", "x", 2), Example("second", "7", 4)]


def test_csv_with_quoted_fields(tmp_path):
    content = 'label,text\nx,"one, two"\ny,"he said ""no"""\n'
    assert read(tmp_path, "a.csv", content) == [Example("one, two", "x", 2), Example('he said "no"', "y", 3)]


def test_csv_field_over_two_lines_shifts_the_following_ones(tmp_path):
    rows = read(tmp_path, "a.csv", 'text,label\n"one\ntwo",x\nthree,y\n')
    assert [(row.text, row.line) for row in rows] == [("one\ntwo", 3), ("three", 4)]


def test_columns_by_name(tmp_path):
    assert read(tmp_path, "a.csv", "intent,utterance\nx,hello\n", ("utterance", "intent")) == [Example("hello", "x", 2)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL", "a.jsonl.xz"])
def test_endings(tmp_path, name):
    content = lzma.compress(GOOD_LINE.encode()) if name.endswith(".xz") else GOOD_LINE.encode()
    assert read(tmp_path, name, content) == [Example("a", "x", 1)]


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    assert read(tmp_path, "a.csv", b"\xef\xbb\xbftext,label\r\na,x\r\n") == [Example("a", "x", 2)]


def test_line_separator_inside_a_json_string_is_no_line_end(tmp_path):
    rows = read(tmp_path, "a.jsonl", '{"text": "a\u2028b", "label": "x"}\n{"text": "c", "label": "x"}\n')
    assert [(row.text, row.line) for row in rows] == [("a\u2028b", 1), ("c", 2)]


BAD = {
    "empty jsonl": ("a.jsonl", "", ["no rows", "one example a line"]),
    "blank lines only": ("a.jsonl", "\n \n", ["no rows"]),
    "csv with a header only": ("a.csv", "text,label\n", ["no rows"]),
    "latin-1": ("a.csv", b"text,label\nok,x\ncaf\xe9,x\n", ["line 3", "0xe9", "iconv"]),
    "latin-1 in line 1": ("a.jsonl", b'{"text": "\xfc"}\n', ["line 1", "0xfc", "iconv"]),
    "utf-16": ("a.jsonl", GOOD_LINE.encode("utf-16"), ["line 1", "not UTF-8"]),
    "malformed json": ("a.jsonl", GOOD_LINE + '{"text": "b", "label"}\n', ["line 2", "not JSON", "column 22"]),
    "json that is no object": ("a.jsonl", GOOD_LINE + GOOD_LINE + '["b", "x"]\n', ["line 3", "object", "list"]),
    "json row without label": ("a.jsonl", GOOD_LINE + '{"text": "b"}\n', ["line 2", "'label'", "data.label_column"]),
    "empty label": ("a.jsonl", GOOD_LINE + '{"text": "b", "label": "  "}', ["line 2", "'label' is empty", "Fill"]),
    "null text": ("a.jsonl", GOOD_LINE + '{"text": null, "label": "x"}', ["line 2", "'text' is empty"]),
    "label that is a list": ("a.jsonl", '{"text": "b", "label": ["x"]}', ["line 1", "list", "expected text"]),
    "label that is a bool": ("a.jsonl", '{"text": "b", "label": true}', ["line 1", "bool", "expected text"]),
    "label that is a float": ("a.jsonl", '{"text": "b", "label": 1.5}', ["line 1", "float", "expected text"]),
    "csv without the column": ("a.csv", "text,intent\na,x\n", ["line 2", "'label'", "'intent'", "data.label_column"]),
    "csv row that is too short": ("a.csv", "text,label\na,x\nb\n", ["line 3", "'label' is empty"]),
    "csv row that is too long": ("a.csv", "text,label\na,x\nb, c,x\n", ["line 3", "more fields", "quote"]),
    "csv quote that never ends": ("a.csv", 'text,label\na,x\n"b,x\n', ["line 3", "not CSV"]),
    "csv quote that never ends, header": ("a.csv", '"text,label\na,x\n', ["line 1", "not CSV"]),
    "text after a csv quote": ("a.csv", 'text,label\n"a"b,x\n', ["line 2", "not CSV"]),
    "unknown ending": ("a.tsv", "text\tlabel\n", ["'tsv'", ".jsonl, .json or .csv"]),
    "unknown ending in .xz": ("a.tsv.xz", lzma.compress(b"a"), ["'tsv'", ".jsonl, .json or .csv"]),
    "text in .xz": ("a.txt.xz", lzma.compress(b"a"), ["'txt.xz'", ".jsonl, .json or .csv"]),
    "not parquet": ("a.parquet", "text,label\n", ["cannot be read as Parquet"]),
    "json of numbers": ("a.json", "[1]", ["row 1", "object or an array", "int"]),
    "json of a number": ("a.json", "3", ["array of rows", "int"]),
    "json of objects of numbers": ("a.json", '{"x": 3}', ["array of rows under 'x'", "int"]),
    "malformed json file": ("a.json", '[\n{"text"}]', ["line 2", "not JSON"]),
    "not xz": ("a.jsonl.xz", GOOD_LINE, [".xz", "decompressed"]),
    "cut xz": ("a.jsonl.xz", lzma.compress(GOOD_LINE.encode())[:-9], [".xz", "decompressed"]),
    "empty xz": ("a.jsonl.xz", b"", [".xz", "decompressed"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file(tmp_path, case):
    name, content, parts = BAD[case]
    with pytest.raises(DataError) as caught:
        read(tmp_path, name, content)
    path, message = str(tmp_path / name), str(caught.value)
    assert message.startswith(path)
    message = message.removeprefix(path)  # a test's folder is named after the test
    assert [part for part in parts if part not in message] == [], message
    assert caught.value.exit_code == 2


def test_missing_file_says_where_paths_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no\.csv: no such file.*" + str(tmp_path)):
        read_examples((tmp_path / "no.csv").relative_to(tmp_path), "text", "label")


def test_folder_instead_of_a_file(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(DataError, match=r"a\.csv: no texts there\. Expected a folder per class"):
        read_examples(tmp_path / "a.csv", "text", "label")


def test_unreadable_file_is_a_data_error(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,x\n")

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "read_bytes", refuse)  # root may read everything, so chmod would not do
    with pytest.raises(DataError, match=r"a\.csv.*Permission denied"):
        read_examples(path, "text", "label")


def test_line_of_a_bad_byte_after_a_byte_order_mark(tmp_path):
    with pytest.raises(DataError, match=r"line 2: not UTF-8 \(byte 0xe9\)"):
        read(tmp_path, "a.jsonl", b"\xef\xbb\xbf" + GOOD_LINE.encode() + b"\xe9\n")


def test_mend_for_a_compressed_file_is_not_to_convert_compressed_bytes(tmp_path):
    with pytest.raises(DataError, match="line 1: not UTF-8") as caught:
        read(tmp_path, "a.jsonl.xz", lzma.compress(b'{"text": "\xe9"}\n'))
    assert "iconv -f LATIN1 -t UTF-8 a.jsonl.xz" not in str(caught.value)


def test_json_that_is_nested_too_deeply(tmp_path):
    with pytest.raises(DataError, match="line 2: JSON that is nested too deeply"):
        read(tmp_path, "a.jsonl", GOOD_LINE + "[" * 200_000 + "\n")


def test_csv_field_of_more_than_the_default_limit(tmp_path):
    text = "a" * 200_000
    assert read(tmp_path, "a.csv", f"text,label\n{text},x\n") == [Example(text, "x", 2)]
