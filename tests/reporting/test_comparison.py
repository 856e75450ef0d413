"""Several runs in one table: every figure in its column, what is missing said, and LaTeX that compiles by eye."""

import copy
import json

import pytest

from metacl.cli import main
from metacl.errors import DataError
from metacl.reporting import as_latex, compare, costs, reaching, read_results


@pytest.fixture
def two(results):
    other = copy.deepcopy(results)
    other["run"] = "50 % of_it"
    other["rows"] = [{**row, "accuracy": {"mean": 0.5, "low": 0.4, "high": 0.6}} for row in other["rows"][1:]]
    return [results, other]


def test_every_figure_is_in_its_column(two):
    found = compare(two)
    assert found.headers == ["method", "inner steps", "demo", "50 % of_it"]
    assert found.lines == [
        ["frozen prototypes", "–", "81.00±0.80", "–"],
        ["pretrained", "5", "83.00±0.80", "50.00±10.00"],
        ["meta-learned", "0", "86.00±0.80", "50.00±10.00"],
        ["meta-learned", "5", "88.00±0.80", "50.00±10.00"],
    ]
    assert found.same
    two[1]["protocol"] = {**two[1]["protocol"], "seed": 8}
    assert not compare(two).same


def test_the_fewest_steps_and_shots_to_a_threshold(results, tmp_path, capsys):
    """Frozen 81, pretrained 83 after 5 steps, meta-learned 86 at 0 and 88 after 5; with 5 shots all of it 4 higher."""
    more = copy.deepcopy(results)
    more["protocol"]["shots"] = 5
    for row in more["rows"]:
        row["accuracy"]["mean"] += 0.04
    found = reaching([results, more], 0.87)
    assert found.headers[1:] == [
        "steps to 87 %, demo, 5-way 1-shot",
        "steps to 87 %, demo, 5-way 5-shot",
        "shots to 87 %",
    ]
    assert found.lines == [
        ["frozen prototypes", "–", "–", "–"],
        ["pretrained", "–", "5", "5"],
        ["meta-learned", "5", "0", "1"],
    ]
    assert reaching([results], 0.81).lines[0] == ["frozen prototypes", "reached"]
    assert found.same
    as_many = [copy.deepcopy(one) for one in (results, more)]
    for one in as_many:
        one["protocol"]["queries"] = one["protocol"]["shots"]
    assert reaching(as_many, 0.87).lines == found.lines
    for other in ({"run": "stronger"}, {"protocol": {**more["protocol"], "seed": 8}}):
        apart = reaching([results, {**more, **other}], 0.87)
        assert apart.headers[-1] != "shots to 87 %" and not apart.same
    (tmp_path / "found.json").write_text(json.dumps([results]))
    with pytest.raises(SystemExit) as exit_:
        main(["report", str(tmp_path / "found.json"), "--threshold", "87"])
    assert exit_.value.code == 0 and "steps to 87 %" in " ".join(capsys.readouterr().out.split())


def test_what_adapting_took_side_by_side(two, tmp_path, capsys):
    for row in two[1]["rows"]:
        del row["tokens"], row["memory_bytes"]  # from before they were measured
    found = costs(two)
    assert found.headers == ["method", "inner steps", *(f"{what}, demo" for what in ("ms", "tokens", "MB"))] + [
        f"{what}, 50 % of_it" for what in ("ms", "tokens", "MB")
    ]
    assert found.lines == [
        ["frozen prototypes", "–", "3.1", "310", "0.27", "–", "–", "–"],
        ["pretrained", "5", "107", "1,863", "155", "107", "–", "–"],
        ["meta-learned", "0", "2.0", "310", "5.2", "2.0", "–", "–"],
        ["meta-learned", "5", "107", "1,863", "155", "107", "–", "–"],
    ]
    (tmp_path / "found.json").write_text(json.dumps(two))
    for options, code in ((["--cost"], 0), (["--cost", "--latex"], 0), (["--cost", "--threshold", "9"], 2)):
        with pytest.raises(SystemExit) as exit_:
            main(["report", str(tmp_path / "found.json"), *options])
        assert exit_.value.code == code
    said = capsys.readouterr()
    assert "1,863" in said.out and "tables of their own" in " ".join(said.err.split())


def test_latex(two):
    lines = as_latex(compare(two)).splitlines()
    assert lines[0].startswith("% demo: 5-way 1-shot")
    assert lines[2:6] == [
        r"\begin{tabular}{lrcc}",
        r"\toprule",
        r"method & inner steps & demo & 50 \% of\_it \\",
        r"\midrule",
    ]
    assert lines[6] == r"frozen prototypes & -- & 81.00 $\pm$ 0.80 & -- \\"
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]


def test_from_folders_and_files(two, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(json.dumps(two[0]))
    (tmp_path / "both.json").write_text(json.dumps(two))
    assert read_results(tmp_path / "run") == two[:1]
    assert read_results(tmp_path / "both.json") == two
    with pytest.raises(SystemExit) as exit_:
        main(["report", str(tmp_path / "run"), str(tmp_path / "both.json")])
    assert exit_.value.code == 0
    said = capsys.readouterr().out
    assert said.count("88.00±0.80") == 2 and "not the same episodes" not in said


@pytest.mark.parametrize(
    ("content", "part"),
    [(None, "not there"), ("{", "no JSON"), ("[1]", "holds no accuracies"), ('{"rows": []}', "holds no accuracies")],
)
def test_what_is_no_evaluation_is_named(tmp_path, content, part):
    file = tmp_path / "found.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(DataError, match=part):
        read_results(file)
