"""Whole curves by numpy, and step sizes times a factor by configs that say them."""

import numpy as np
import pytest
import torch

from metacl import api
from metacl.adaptation import InnerLoop
from metacl.cli import main
from metacl.cli.asked import step_size_factors
from metacl.config import config_from_dict
from metacl.coordination.worker import Worker
from metacl.errors import ConfigError
from metacl.evaluation import EpisodeScore, Row, curves, robustness, scaled_steps
from metacl.evaluation.methods import MetaLearned, Pretrained, Scene
from metacl.initialization import read_initialization, write_initialization
from metacl.tasks import EpisodeShape, TaskAddress
from tests.small_runs import save_tiny_bert, small_config, small_tree

STEPS = (0, 2, 10)


def scores_of(right):
    """Row -> how many of 10 queries are right in each episode, as `evaluate` gives them."""
    episodes = len(next(iter(right.values())))

    def score(row, count):
        return EpisodeScore(row, (0,) * 10, (0,) * count + (1,) * (10 - count), (0.5,) * 10, 0.0)

    return {
        TaskAddress("test", 0, 0, place): tuple(score(row, int(counts[place])) for row, counts in right.items())
        for place in range(episodes)
    }


def test_areas_and_steps_to_the_best_baseline():
    random = np.random.default_rng(0)
    right = {Row("frozen prototypes", None): np.full(6, 6)}
    right |= {Row("pretrained", step): random.integers(0, 5, 6) for step in STEPS[1:]}
    right |= {Row("meta-learned", 0): np.full(6, 3), Row("meta-learned", 2): np.array([6, 6, 5, 7, 6, 6])}
    right |= {Row("meta-learned", 10): random.integers(5, 10, 6)}
    pretrained, learned = curves(scores_of(right))
    assert (pretrained.method, pretrained.first, pretrained.last) == ("pretrained", 2, 10)
    assert (learned.method, learned.first, learned.last) == ("meta-learned", 0, 10)
    by_hand = (2 * (3 + right[Row("meta-learned", 2)]) / 2) + 8 * (
        right[Row("meta-learned", 2)] + right[Row("meta-learned", 10)]
    ) / 2
    assert learned.area.mean == pytest.approx(by_hand.mean() / 100)
    from_two = [(right[Row(name, 2)] + right[Row(name, 10)]) / 20 for name in ("meta-learned", "pretrained")]
    assert learned.versus_pretrained.mean == pytest.approx((from_two[0] - from_two[1]).mean())
    assert (learned.steps_to_baseline, pretrained.steps_to_baseline) == (2, None)  # 6 of 10 is the best baseline
    assert pretrained.versus_pretrained is None
    both = curves(scores_of(right), scores_of(right))
    assert both[1].area.mean == pytest.approx(learned.area.mean)
    assert both[1].area.high < learned.area.high


def test_one_number_of_steps_is_no_curve():
    assert curves(scores_of({Row("pretrained", 5): np.array([1, 2]), Row("meta-learned", 5): np.array([3, 4])})) == []


@pytest.mark.parametrize("learn", ["none", "scalar", "tensor_and_step"])
def test_scaled_step_sizes_are_those_of_a_config_with_other_ones(tmp_path, learn):
    """Half the step sizes of a loop with 0.2 and 0.6 are those of a loop with 0.1 and 0.3."""
    model = save_tiny_bert(tmp_path / "tiny")

    def scene(value, head):
        sizes = {"value": value, "head": head, "learn": learn}
        worker = Worker(small_config(model, tmp_path / "out", inner={"steps": 3, "step_size": sizes}))
        episode = worker.source.episode(TaskAddress("test", 1, 0, 0), EpisodeShape(ways=3, shots=2, queries=3))
        return Scene(worker, worker.layout.flatten(worker.initial), episode)

    def answers(method, scene):
        ((_, predictor),) = method.adapt(scene)
        return predictor(scene.query).detach()

    whole, half = scene(0.2, 0.6), scene(0.1, 0.3)
    for scaled, own in zip(scaled_steps([0.5], 3), (Pretrained(steps=(3,)), MetaLearned(steps=(3,))), strict=True):
        torch.testing.assert_close(answers(scaled, whole), answers(own, half), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(answers(scaled, whole), answers(own, whole), atol=1e-3)


def test_a_learned_curvature_is_no_step_size():
    loop = InnerLoop.model_validate({"precondition": "meta_curvature", "step_size": {"learn": "tensor"}})
    meta = loop.initial({"layer.weight": torch.Size((2, 3))})
    _, scaled = loop.scaled(meta, 3.0)
    changed = [name for name in meta if not torch.equal(meta[name], scaled[name])]
    assert changed == ["step_size.layer.weight"] and len(meta) == 3


def test_in_an_evaluation_and_its_report(tmp_path, capsys):
    config = small_config(save_tiny_bert(tmp_path / "tiny"), tmp_path / "out")
    learner, meta = api.starting_point(config)
    write_initialization(tmp_path / "init", config, learner, meta, 0, "card")
    tree = small_tree(tmp_path / "tiny", tmp_path / "out")
    tree["evaluation"] = {"shape": {"ways": 3, "shots": 1, "queries": 2}, "episodes": 4, "steps": (0, 2)}
    stored = read_initialization(tmp_path / "init")
    results = api.evaluate(stored, config_from_dict(tree), factors=[10.0, 1.0])
    assert [curve["method"] for curve in results["curves"]] == ["meta-learned"]
    accuracy = {(row["method"], row["steps"]): row["accuracy"] for row in results["rows"]}
    found = {(one["start"], one["factor"]): one for one in results["robustness"]}
    assert set(found) == {(start, factor) for start in ("pretrained", "meta-learned") for factor in (1.0, 10.0)}
    for start in ("pretrained", "meta-learned"):
        assert found[start, 1.0]["accuracy"] == accuracy[start, 2]
        assert found[start, 1.0]["steps"] == 2
    for wrong in ("0,1", "x", "inf"):
        with pytest.raises(SystemExit) as exit_:
            main(["evaluate", str(tmp_path / "init"), "--step-size-factors", wrong])
        assert exit_.value.code == 2 and "expected numbers above 0" in capsys.readouterr().err


def test_factors_that_a_table_writes_alike_are_refused():
    assert step_size_factors("10,0.1,10") == [10, 0.1, 10]
    with pytest.raises(ConfigError, match="two of them are written 1 in the table"):
        step_size_factors("0.1,1,1.0000001")


def test_diverged_episodes_are_counted():
    methods = scaled_steps([2.0], 1)
    rows = [method.rows()[0] for method in methods]
    scores = {
        TaskAddress("test", 0, 0, place): (
            EpisodeScore(rows[0], (0, 1), (0, 1), (0.5, 0.5), 0.0),
            EpisodeScore(rows[1], (0, 1), () if place else (0, 0), () if place else (0.5, 0.5), 0.0),
        )
        for place in range(2)
    }
    pretrained, learned = robustness(methods, scores)
    assert (pretrained.start, pretrained.accuracy.mean, pretrained.diverged) == ("pretrained", 1.0, 0)
    assert (learned.start, learned.accuracy.mean, learned.diverged) == ("meta-learned", 0.25, 1)
