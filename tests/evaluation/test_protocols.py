"""Named protocols, and results over several class splits, against the papers' figures and numpy."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from metacl import api
from metacl.api import class_splits
from metacl.cli import main
from metacl.errors import ConfigError
from metacl.evaluation import (
    PROTOCOLS,
    EpisodeScore,
    Row,
    Setting,
    bootstrap_interval,
    named_protocol,
    on_class_splits,
    table,
)
from metacl.initialization import write_initialization
from metacl.tasks import TASK_SOURCES, TaskAddress
from metacl.tasks.bundled import bundled_class_split
from tests.small_runs import save_tiny_bert, small_config

FIVE = ("01", "02", "03", "04", "05")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Initializations that were never trained, one on each class split of BANKING77."""
    folder = tmp_path_factory.mktemp("splits")
    model = save_tiny_bert(folder / "tiny")
    for split in FIVE:
        config = small_config(model, folder / split, name=split, data__class_split=split)
        learner, meta = api.starting_point(config)
        write_initialization(folder / split / "init", config, learner, meta, 0, "card")
    return folder


def config_on(runs, split):
    return small_config(runs / "tiny", runs / split, data__class_split=split)


def test_a_protocols_figures_are_its_papers():
    assert [str(setting) for setting in PROTOCOLS["intents"].settings] == ["5-way 1-shot", "5-way 5-shot"]
    assert (PROTOCOLS["intents"].episodes, PROTOCOLS["intents"].class_splits) == (600, FIVE)
    omniglot = PROTOCOLS["omniglot"]  # Finn et al. 2017, table 1
    assert {(one.ways, one.shots) for one in omniglot.settings} == {(5, 1), (5, 5), (20, 1), (20, 5)}
    assert all(setting.queries == setting.shots for setting in omniglot.settings)
    assert {(one.ways, one.shots) for one in PROTOCOLS["fewrel"].settings} == {(5, 1), (5, 5), (10, 1), (10, 5)}
    two_and_ten = PROTOCOLS["two_and_ten_shots"]
    assert two_and_ten.episodes == 500
    assert two_and_ten.chosen(7, None) == [Setting(7, 2, None), Setting(7, 10, None)]
    with pytest.raises(ConfigError, match="Did you mean 'omniglot'"):
        named_protocol("omniglott")


def test_settings_are_chosen_among_a_protocols_own():
    assert PROTOCOLS["omniglot"].chosen(20, [5]) == [Setting(20, 5, 5)]
    for ways, shots in ((15, None), (5, [1, 3])):
        with pytest.raises(ConfigError, match="it has 5-way 1-shot, 5-way 5-shot, 20-way"):
            PROTOCOLS["omniglot"].chosen(ways, shots)
    with pytest.raises(ConfigError, match="it is for data omniglot, and this is 'labelled_text'"):
        PROTOCOLS["omniglot"].check_data(TASK_SOURCES.build({"name": "labelled_text", "dataset": "oos"}))


def test_no_split_is_measured_by_a_run_that_was_trained_on_its_classes(runs):
    intents, configs = PROTOCOLS["intents"], [config_on(runs, split) for split in reversed(FIVE)]
    for place, data in on_class_splits(intents, configs, None):
        trained = bundled_class_split("banking77", configs[place].data.class_split)["train"]
        assert not set(trained) & set(bundled_class_split("banking77", data.class_split)["test"])
    other = TASK_SOURCES.build({"name": "labelled_text", "dataset": "hwu64"})
    placed = on_class_splits(intents, configs[:1], other)
    assert [(place, data.dataset, data.class_split) for place, data in placed] == [(0, "hwu64", s) for s in FIVE]
    parts = [{"source": {"name": "labelled_text", "dataset": name}} for name in ("hwu64", "banking77")]
    mixed = small_config(runs / "tiny", runs / "mixed", data={"name": "mixture", "sources": parts})
    for given, data, message in (
        ([mixed], other, "this run was trained on classes that other splits of hwu64 test with"),
        (configs[:1], None, "this run was trained on classes that other splits of banking77 test with"),
        (configs[:4], None, "it needs a run for each class split"),
        ([*configs[:4], configs[0]], None, "it needs a run for each class split"),
        (configs, TASK_SOURCES.build({"name": "labelled_text", "path": "x.jsonl"}), "published class splits"),
    ):
        with pytest.raises(ConfigError, match=message):
            on_class_splits(intents, given, data)


def test_over_splits_intervals_are_of_all_episodes_and_the_spread_of_the_splits():
    """Two methods, three splits of 20 episodes, four queries each."""
    random = np.random.default_rng(0)
    right = random.integers(0, 5, size=(2, 3, 20))

    def scores(split):
        def answer(row, count):
            predicted = (0,) * count + (1,) * (4 - count)
            return EpisodeScore(row, (0,) * 4, predicted, (0.5,) * 4, 0.0)

        return {
            TaskAddress("test", 1, 0, place): tuple(
                answer(Row(name, None), int(right[method, split, place]))
                for method, name in enumerate(("frozen prototypes", "nearest neighbour"))
            )
            for place in range(20)
        }

    rows = table(*(scores(split) for split in range(3)))
    for method, row in enumerate(rows):
        accuracies = right[method] / 4
        assert row.accuracy.mean == pytest.approx(accuracies.mean())
        half = 2.001 * accuracies.std(ddof=1) / np.sqrt(60)  # t(59), 97.5 %
        assert row.accuracy.high - row.accuracy.mean == pytest.approx(half, rel=1e-3)
        assert row.spread == pytest.approx(accuracies.mean(1).std(ddof=1))
        assert row.bootstrap == bootstrap_interval(accuracies.ravel().tolist(), resamples=1999)
    assert rows[1].versus["frozen prototypes"].mean == pytest.approx((right[1] - right[0]).mean() / 4)
    assert [row.spread for row in table(scores(0))] == [None, None]


def test_runs_on_their_own_splits(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PROTOCOLS, "intents", replace(PROTOCOLS["intents"], episodes=2, class_splits=("02", "03")))
    counted = []

    def worst(splits, row, *_):
        counted.append(([len(scores) for scores, _ in splits], row))
        return [{"true": "a", "predicted": "b", "times": 2, "of": len(splits)}]

    monkeypatch.setattr(class_splits, "worst_confusions", worst)
    asked = ("--protocol", "intents", "--shots", "1", "--steps", "0,1", "--report", str(tmp_path / "report"))
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate", str(runs / "03"), str(runs / "02"), *asked])
    said = capsys.readouterr()
    assert exit_.value.code == 0, said.err
    said = " ".join(said.out.split())
    assert "protocol intents: 5-way 1-shot" in said and "of the test classes on each of 2 class splits" in said
    found = json.loads((tmp_path / "report/5-way_1-shot.json").read_text())
    assert found["run"] == "02, 03" and found["protocol"]["splits"] == ["02", "03"]
    for place, row in enumerate(found["rows"]):
        own = [one["rows"][place]["accuracy"]["mean"] for one in found["by_split"]]
        assert row["accuracy"]["mean"] == pytest.approx(np.mean(own))
        assert row["spread"] == pytest.approx(np.std(own, ddof=1))
    learned = [row for row in found["rows"] if row["method"] == "meta-learned"]
    best = max(learned, key=lambda row: row["accuracy"]["mean"])
    assert counted[-1] == ([2, 2], Row("meta-learned", best["steps"]))
    assert [one["of"] for one in found["confusions"]] == [2]
    page = (tmp_path / "report/5-way_1-shot.html").read_text()
    assert "By class split" in page and "ProtAugment" in page
    with (tmp_path / "report/5-way_1-shot.csv").open() as file:
        assert [line["spread"] for line in csv.DictReader(file)] == [str(row["spread"]) for row in found["rows"]]


def test_one_run_on_another_data_set(runs, monkeypatch):
    seen = []

    def on_splits(parts, *_):
        seen.extend((stored.config.data.class_split, config.data, config.evaluation) for stored, config in parts)
        return {"protocol": {}}

    monkeypatch.setattr(api, "evaluate_on_splits", on_splits)
    monkeypatch.setattr("metacl.reporting.closing_table", lambda *_: None)
    with pytest.raises(SystemExit):
        main(["evaluate", str(runs / "04"), "--data", "oos", "--protocol", "intents", "--shots", "5"])
    assert [(own, data.dataset, data.class_split) for own, data, _ in seen] == [("04", "oos", split) for split in FIVE]
    assert all((asked.shape.shots, asked.episodes) == (5, 600) for _, _, asked in seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--episodes", "20"], "--episodes: protocol intents says 600"),
        (["--queries", "2"], "--queries: protocol intents says how many"),
        (["--class-split", "02"], "--class-split: protocol intents has 01, 02"),
        (["--ways", "7"], "it has 5-way 1-shot, 5-way 5-shot"),
    ],
)
def test_what_a_protocol_fixes_is_not_asked_for(runs, capsys, options, message):
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate", str(runs / "01"), "--data", "oos", "--protocol", "intents", *options])
    assert exit_.value.code == 2 and message in " ".join(capsys.readouterr().err.split())


def test_several_runs_need_a_protocol_over_splits(runs, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate", str(runs / "01"), str(runs / "02")])
    assert exit_.value.code == 2 and "metacl report" in capsys.readouterr().err


def test_an_open_protocol_takes_the_shape_that_is_asked_for(runs, monkeypatch):
    seen = []
    monkeypatch.setattr("metacl.reporting.closing_table", lambda *_: None)

    def evaluate(stored, config, *_):
        seen.append(config.evaluation)
        return {"protocol": {}}

    monkeypatch.setattr(api, "evaluate", evaluate)
    with pytest.raises(SystemExit):
        main(["evaluate", str(runs / "01"), "--protocol", "two_and_ten_shots", "--ways", "4", "--queries", "3"])
    shapes = [(one.shape.ways, one.shape.shots, one.shape.queries, one.episodes) for one in seen]
    assert shapes == [(4, 2, 3, 500), (4, 10, 3, 500)]
