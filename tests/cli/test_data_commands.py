"""`metacl data check` and `metacl data split`: at least 25 kinds of bad input, each with its message and exit code."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from tests.small_models import save_family
from tests.small_runs import save_tiny_bert, small_tree


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return save_tiny_bert(folder / "bert"), save_family("llama", folder / "llama", causal=True)


def written(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def jsonl(classes=8, each=4, **more):
    rows = [{"text": f"text {i} of {c}", "label": f"class {c}", **more} for c in range(classes) for i in range(each)]
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(**columns):
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


LABELLED = {"name": "labelled_text", "fractions": [1.0, 0.0, 0.0]}
DOMAINS = {"name": "domain_text", "fractions": [1.0, 0.0, 0.0]}
PROMPTS = {"name": "prompt_completion", "fractions": [1.0, 0.0, 0.0]}
SHAPE = {"episodes": {"ways": 1, "shots": 1, "queries": 1}}
CAUSAL = {**SHAPE, "objective": "maml", "learner": {"name": "causal_lm", "max_length": 24}}
ANSWER = {**CAUSAL, "learner": {**CAUSAL["learner"], "completion_after": "\nAnswer: "}}
GOOD = jsonl()
PROMPT_ROWS = "".join(json.dumps({"prompt": f"what {i}", "completion": "that"}) + "\n" for i in range(9))

TWO = [{"source": {**LABELLED, "path": "a.jsonl"}}] * 2

# what it is: (files, data section, changes to the config, parts of the message); "path" defaults to the first file.
BAD = {
    "no such file": ({}, {**LABELLED, "path": "none.jsonl"}, {}, ["none.jsonl: no such file", "Paths are relative"]),
    "empty file": ({"a.jsonl": ""}, LABELLED, {}, ["a.jsonl", "no rows"]),
    "unknown ending": ({"a.xlsx": "x"}, LABELLED, {}, ["'xlsx'", ".parquet"]),
    "not JSON": ({"a.jsonl": GOOD + "{oops}\n"}, LABELLED, {}, ["a.jsonl, line 33", "not JSON"]),
    "not an object": ({"a.jsonl": GOOD + "[1]\n"}, LABELLED, {}, ["a.jsonl, line 33", "expected an object"]),
    "not UTF-8": ({"a.jsonl": GOOD.encode() + b'{"text": "\xe9"}'}, LABELLED, {}, ["a.jsonl, line 33", "iconv"]),
    "row without label": ({"a.jsonl": GOOD + '{"text": "x"}'}, LABELLED, {}, ["a.jsonl, line 33", "'label'"]),
    "empty text": ({"a.jsonl": GOOD + '{"text": "", "label": "x"}'}, LABELLED, {}, ["line 33", "'text' is empty"]),
    "label of a wrong type": ({"a.jsonl": GOOD + '{"text": "x", "label": {}}'}, LABELLED, {}, ["line 33", "dict"]),
    "CSV with a comma too many": ({"a.csv": "text,label\na,b,c\n"}, LABELLED, {}, ["a.csv, line 2", "quote"]),
    "CSV with a name twice": ({"a.csv": "text,text,label\na,b,c\n"}, LABELLED, {}, ["a.csv, line 1", "'text'"]),
    "UTF-16": ({"a.jsonl": GOOD.encode("utf-16")}, LABELLED, {}, ["a.jsonl, line 1", "iconv -f UTF-16"]),
    "half a character": (
        {"a.jsonl": GOOD + '{"text": "a \\ud83d", "label": "x"}'},
        LABELLED,
        {},
        ["a.jsonl, line 33", "half a character"],
    ),
    "a number of thousands of digits": (
        {"a.jsonl": GOOD + '{"text": "a", "label": ' + 5000 * "9" + "}"},
        LABELLED,
        {},
        ["a.jsonl, line 33", "digits"],
    ),
    "CSV quote without end": ({"a.csv": 'text,label\n"a,b\n'}, LABELLED, {}, ["a.csv, line 2", "not CSV"]),
    "broken xz": ({"a.jsonl.xz": "x"}, LABELLED, {}, ["cannot be decompressed"]),
    "broken Parquet": ({"a.parquet": "PAR1"}, LABELLED, {}, ["a.parquet", "Parquet"]),
    "null in Parquet": (
        {"a.parquet": parquet(text=["a", None], label=["x", "y"])},
        LABELLED,
        {},
        ["a.parquet, row 2", "'text' is empty"],
    ),
    "not UTF-8 in Parquet": (
        {"a.parquet": parquet(text=pyarrow.array([b"\xe9", b"a"]).view(pyarrow.string()), label=["x", "y"])},
        LABELLED,
        {},
        ["a.parquet", "utf-8"],
    ),
    "JSON of a wrong shape": ({"a.json": '{"train": 3}'}, LABELLED, {}, ["a.json", "array of rows under 'train'"]),
    "JSON cut off": ({"a.json": '[{"text": "a"},\n'}, LABELLED, {}, ["a.json, line 2", "not JSON"]),
    "empty folder": ({"d/.keep": ""}, {**LABELLED, "path": "d"}, {}, ["d: no texts there"]),
    "empty text in a folder": ({"d/x/1.txt": " "}, {**LABELLED, "path": "d"}, {}, ["d/x/1.txt, line 1", "empty"]),
    "folders too deep": ({"d/x/y/1.txt": "a"}, {**LABELLED, "path": "d"}, {}, ["d/x/y", "<class>/<file>"]),
    "saved data set that lacks a file": (
        {"d/state.json": '{"_data_files": [{"filename": "data.arrow"}]}'},
        {**LABELLED, "path": "d"},
        {},
        ["d/data.arrow", "Arrow"],
    ),
    "saved data set whose state is something else": (
        {"d/state.json": "{}"},
        {**LABELLED, "path": "d"},
        {},
        ["d/state.json", "'_data_files'"],
    ),
    "no obvious label": ({"a.csv": "text,kind\na,b\n"}, LABELLED, {}, ["a.csv, line 2", "data.label_column", "'kind'"]),
    "two obvious texts": ({"a.csv": "body,sentence,label\na,b,c\n"}, LABELLED, {}, ["data.text_column", "Several"]),
    "named column that is not there": (
        {"a.csv": "text,label\na,b\n"},
        {**LABELLED, "text_column": "txt"},
        {},
        ["a.csv, line 2", "no column 'txt'"],
    ),
    "fractions that are none": (
        {"a.jsonl": GOOD},
        {**LABELLED, "fractions": [0.5, 0.1, 0.1]},
        {},
        ["data.fractions", "three parts of 1"],
    ),
    "split by domains that are not there": (
        {"a.jsonl": GOOD},
        {**LABELLED, "split_by": "domain"},
        {},
        ["data.split_by", "data.domain_column"],
    ),
    "domain column that is not there": (
        {"a.jsonl": GOOD},
        {**LABELLED, "domain_column": "area"},
        {},
        ["a.jsonl, line 1", "no column 'area'"],
    ),
    "domains of something else than names": (
        {"a.jsonl": GOOD, "domains.json": '{"d": [1, ["x"]]}'},
        {**LABELLED, "domains": "domains.json"},
        {},
        ["domains.json", "expected {domain: [class"],
    ),
    "splits of domains where examples are split": (
        {"a.jsonl": PROMPT_ROWS, "s.json": "{}"},
        {**PROMPTS, "splits": "s.json"},
        ANSWER,
        ["data.splits", "data.split_by=domain"],
    ),
    "class without a domain": (
        {"a.jsonl": GOOD, "domains.json": '{"d": ["class 0"]}'},
        {**LABELLED, "domains": "domains.json"},
        {},
        ["domains.json", "no domain lists 'class 1'"],
    ),
    "class in two domains": (
        {"a.jsonl": GOOD, "domains.json": '{"d": ["class 0"], "e": ["class 0"]}'},
        {**LABELLED, "domains": "domains.json"},
        {},
        ["domains.json", "'class 0' stands in two domains"],
    ),
    "out-of-scope class that is not there": (
        {"a.jsonl": GOOD},
        {**LABELLED, "out_of_scope": "oos"},
        {},
        ["data.out_of_scope", "'oos'"],
    ),
    "splits that share a class": (
        {"a.jsonl": GOOD, "s.json": '{"train": ["class 0"], "valid": [], "test": ["class 0"]}'},
        {**LABELLED, "splits": "s.json"},
        {},
        ["s.json", "'class 0' stands in train and test"],
    ),
    "splits that name an unknown class": (
        {"a.jsonl": GOOD, "s.json": '{"train": ["class 99"], "valid": [], "test": []}'},
        {**LABELLED, "splits": "s.json"},
        {},
        ["s.json", "'class 99'", "does not occur"],
    ),
    "splits by something else": (
        {"a.jsonl": GOOD, "s.json": '{"by": "domain", "train": [], "valid": [], "test": []}'},
        {**LABELLED, "splits": "s.json"},
        {},
        ["s.json", "data.split_by=domain"],
    ),
    "too few classes": ({"a.jsonl": GOOD}, LABELLED, {"episodes": {"ways": 9}}, ["9-way", "has 8", "episodes.ways"]),
    "too few examples": ({"a.jsonl": GOOD}, LABELLED, {"episodes": {"ways": 2}}, ["6 different examples", "(4)"]),
    "range upside down": (
        {"a.jsonl": GOOD},
        LABELLED,
        {"episodes": {"ways": {"min": 4, "max": 2}}},
        ["episodes", "min 4 is more than max 2"],
    ),
    "range for a fixed head": (
        {"a.jsonl": GOOD},
        LABELLED,
        {"objective": "maml", "episodes": {"ways": {"min": 2, "max": 4}}},
        ["episodes.ways: a range", "objective=proto_maml"],
    ),
    "imbalance without a range": (
        {"a.jsonl": GOOD},
        LABELLED,
        {"episodes": {"imbalanced": True}},
        ["imbalanced", "shots: {min: 1, max: 5}"],
    ),
    "several domains a task": ({"d/x.txt": "a"}, {**DOMAINS, "path": "d"}, {**CAUSAL, "episodes": {}}, ["ways=1"]),
    "too few documents": ({"d/x.txt": "only one"}, {**DOMAINS, "path": "d"}, CAUSAL, ["2 different documents", "(1)"]),
    "no domain left": (
        {"d/x.txt": "a\n\u241e\nb"},
        {**DOMAINS, "path": "d", "fractions": [0.0, 0.0, 1.0]},
        CAUSAL,
        ["split 'train' has no domain"],
    ),
    "another marker than the learner's": ({"a.jsonl": PROMPT_ROWS}, PROMPTS, CAUSAL, ["learner.completion_after"]),
    "marker in a prompt": (
        {"a.jsonl": PROMPT_ROWS + json.dumps({"prompt": "a\nAnswer: b", "completion": "c"})},
        PROMPTS,
        ANSWER,
        ["a.jsonl, line 10", "data.marker"],
    ),
    "prompt that leaves no room": (
        {"a.jsonl": PROMPT_ROWS + json.dumps({"prompt": "long " * 9, "completion": "c"})},
        PROMPTS,
        ANSWER,
        ["a.jsonl, line 10", "tokens before the completion", "learner.max_length"],
    ),
    "mixture of one": ({"a.jsonl": GOOD}, {"name": "mixture", "sources": []}, {}, ["data.sources", "at least 2"]),
    "mixture in a mixture": (
        {"a.jsonl": GOOD},
        {"name": "mixture", "sources": [{"source": {"name": "mixture", "sources": TWO}}] * 2},
        {},
        ["data.sources", "a mixture in a mixture"],
    ),
    "mixture of sources with nothing to train on": (
        {"a.jsonl": GOOD},
        {
            "name": "mixture",
            "sources": [{"source": {**LABELLED, "path": "a.jsonl", "fractions": [0.0, 0.0, 1.0]}}] * 2,
        },
        {},
        ["data.sources", "weight"],
    ),
    "mixture with a source that is never drawn": (
        {"a.jsonl": GOOD},
        {"name": "mixture", "sources": [*TWO, {**TWO[0], "weight": 0}]},
        {},
        ["data.sources: source 3 is never drawn"],
    ),
    "curriculum without an end": (
        {"a.jsonl": GOOD},
        {"name": "mixture", "sources": TWO * 2, "curriculum_steps": 9},
        {},
        ["data.curriculum_steps", "final_weight"],
    ),
    "curriculum that ends in nothing": (
        {"a.jsonl": GOOD},
        {"name": "mixture", "sources": [{**TWO[0], "final_weight": 0}] * 2, "curriculum_steps": 9},
        {},
        ["data.sources", "final_weight above 0"],
    ),
    "mixture with a negative weight": (
        {"a.jsonl": GOOD},
        {"name": "mixture", "sources": [{"source": {**LABELLED, "path": "a.jsonl"}, "weight": -1}] * 2},
        {},
        ["weight", "greater than or equal to 0"],
    ),
}


def config_of(models, tmp_path, files, data, changes):
    """The config's path; the model is the causal one where the learner is."""
    for name, content in files.items():
        written(tmp_path / name, content)
    tree = small_tree(models[0], tmp_path / "out", **SHAPE)
    tree.update(changes)
    if "learner" in changes:
        tree["learner"] = {**changes["learner"], "model": str(models[1]), "adapter": {"targets": ["q_proj"]}}
    tree["data"] = dict(data)
    if data["name"] != "mixture" and "path" not in data:
        tree["data"]["path"] = next(iter(files))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "run.yaml"


@pytest.mark.parametrize("case", BAD)
def test_bad_input(run, models, tmp_path, case):
    files, data, changes, parts = BAD[case]
    code, message = run("data", "check", config_of(models, tmp_path, files, data, changes))
    assert code == 2, message
    assert [part for part in parts if " ".join(part.split()) not in message] == [], message
    assert not (tmp_path / "out").exists()


def test_there_are_enough_kinds():
    assert len(BAD) >= 25


def test_check_of_sound_data_says_what_is_there(run, models, tmp_path):
    config = config_of(models, tmp_path, {"a.csv": "utterance,intent\n" + "hi,a\nho,a\nhe,b\nhu,b\n"}, LABELLED, {})
    code, message = run("data", "check", config)
    assert code == 0
    for part in (
        "guessed: text_column 'utterance'",
        "train: 2 classes",
        "leakage: none",
        "train/seed=0/step=0/index=4",
    ):
        assert part in message


def test_split_keeps_classes_apart_and_a_run_takes_it(run, models, tmp_path):
    config = config_of(models, tmp_path, {"a.jsonl": GOOD}, LABELLED, {})
    code, message = run("data", "split", config, "--output", "s.json", "--fractions", "0.5,0.25,0.25", "--seed", 3)
    assert code == 0 and "4 train, 2 valid, 2 test written to s.json" in message
    found = json.loads(Path("s.json").read_text())
    every = found["train"] + found["valid"] + found["test"]
    assert sorted(every) == [f"class {c}" for c in range(8)]
    again = json.loads(Path("s.json").read_text())
    code, message = run("data", "split", config, "--output", "t.json", "--fractions", "0.5,0.25,0.25", "--seed", 3)
    assert json.loads(Path("t.json").read_text()) == again
    code, message = run("data", "check", config, "data.splits=s.json")
    assert code == 0 and "4 train, 2 valid, 2 test" in message
    code, message = run("data", "split", config, "--output", "s.json")
    assert code == 2 and "exists already" in message


def test_split_by_domain(run, models, tmp_path):
    rows = "".join(jsonl(4, 2, area=f"d{d}").replace("class ", f"{d}-") for d in range(4))
    config = config_of(models, tmp_path, {"a.jsonl": rows}, {**LABELLED, "domain_column": "area"}, {})
    code, _ = run("data", "split", config, "--by", "domain", "--output", "s.json", "--fractions", "0.5,0,0.5")
    assert code == 0
    code, message = run("data", "check", config, "data.splits=s.json", "data.split_by=domain")
    assert code == 0 and "train: 8 classes of 2 domains" in message and "test: 8 classes of 2 domains" in message


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--by", "colour"], ["--by colour", "class or domain"]),
        (["--by", "domain"], ["--by domain", "data.domain_column"]),
        (["--fractions", "half"], ["--fractions half", "0.6,0.2,0.2"]),
        (["--fractions", "0.9,0.2,0.1"], ["--fractions", "three parts of 1"]),
        (["--fractions", "nan,nan,nan"], ["--fractions", "three parts of 1"]),
        (["data.path=other.jsonl"], ["other.jsonl: no such file"]),
        (["--fractions", "0.98,0.01,0.01"], ["leave none for valid"]),
        (["--output", "no/such/s.json"], ["--output", "does not exist"]),
    ],
)
def test_split_mistakes(run, models, tmp_path, options, parts):
    config = config_of(models, tmp_path, {"a.jsonl": GOOD}, LABELLED, {})
    code, message = run("data", "split", config, "--output", "s.json", *options)
    assert code == 2, message
    assert [part for part in parts if part not in message] == [], message
    assert not Path("s.json").exists()


def test_data_are_looked_at_without_a_model(run, models, tmp_path):
    config = config_of(models, tmp_path, {"d/x.txt": "a b\n\u241e\nc d\n\u241e\ne f"}, {**DOMAINS, "path": "d"}, CAUSAL)
    code, message = run("data", "check", config, "learner.model=not/there")
    assert code == 0, message
    for part in ("train: 1 domains", "not counted, for want of a tokenizer", "not/there"):
        assert part in message


def test_evaluation_of_domains_names_what_measures_them(run, models, tmp_path):
    evaluation = {"evaluation": {"shape": {"ways": 1, "shots": 1, "queries": 1}, "episodes": 2}}
    files = {"d/x.txt": "a b\n\u241e\nc d"}
    config = config_of(models, tmp_path, files, {**DOMAINS, "path": "d"}, {**CAUSAL, **evaluation})
    code, message = run("data", "check", config)
    assert code == 2 and "Set evaluation=null" in message and f"metacl evaluate {tmp_path / 'out'}" in message
