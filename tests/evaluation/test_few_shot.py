"""The protocol: what is asked of every method, and the table that is made of their answers."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import f1_score

from metacl.config import Evaluation
from metacl.coordination.executor import LocalExecutor
from metacl.coordination.worker import Done, Worker
from metacl.evaluation import as_dict, default_methods, evaluate, table
from metacl.evaluation.few_shot import CompareMethods, EpisodeScore
from metacl.evaluation.methods import AdaptationMethod, FrozenPrototypes, MetaLearned, Row
from metacl.tasks import EpisodeShape, TaskAddress
from tests.helpers import tiny_config

ADDRESS = TaskAddress("test", 1, 0, 0)


@pytest.fixture
def worker(tmp_path):
    return Worker(tiny_config(tmp_path, inner={"step_size": {"value": 0.1, "head": 0.3, "learn": "none"}}))


def test_default_methods():
    rows = [row for method in default_methods((0, 2)) for row in method.rows()]
    learned = [Row("meta-learned", 0), Row("meta-learned", 2)]
    assert rows == [Row("frozen prototypes", None), Row("pretrained", 2), *learned]
    assert [row for method in default_methods((0,)) for row in method.rows()] == [rows[0], rows[2]]


class Always(AdaptationMethod):
    """Says class 1 to everything, with three times the weight of each other class."""

    def rows(self):
        return [Row("always 1", None)]

    def adapt(self, scene):
        assert scene.task.query.targets is None  # nobody can look
        (row,) = self.rows()
        yield row, lambda examples: torch.tensor([0.0, math.log(3.0), 0.0]).expand(len(examples.inputs), 3)


def test_answers_to_the_query(worker):
    shape = EpisodeShape(ways=3, shots=1, queries=2)
    (score,) = CompareMethods((Always(),), shape)(worker, ADDRESS, worker.layout.flatten(worker.initial))
    assert (score.row, score.targets, score.predicted) == (Row("always 1", None), (0, 0, 1, 1, 2, 2), (1,) * 6)
    assert score.confidences == pytest.approx([0.6] * 6)
    assert score.accuracy == pytest.approx(1 / 3) and not score.diverged


def test_what_is_not_finite_counts_as_wrong_and_does_not_stop_the_others(worker):
    work = CompareMethods((MetaLearned(steps=(0, 5)), FrozenPrototypes()), worker.config.episodes)
    zero, five, frozen = work(worker, ADDRESS, np.full(worker.layout.size, np.nan, np.float32))
    assert zero.diverged and five.diverged and zero.accuracy == five.accuracy == 0
    assert (zero.row, five.row) == (Row("meta-learned", 0), Row("meta-learned", 5))
    assert not frozen.diverged and frozen.accuracy > 0
    (bad, good) = (table({index: (one,) for index in range(2)})[0] for one in (zero, frozen))
    assert (bad.diverged, bad.metrics, bad.accuracy.mean) == (2, {}, 0.0)
    assert good.diverged == 0 and good.metrics["macro_recall"] == pytest.approx(frozen.accuracy)


ACCURACIES = {
    Row("frozen prototypes", None): [0.2, 0.4, 0.9, 0.5],
    Row("pretrained", 1): [0.5, 0.5, 0.7, 0.1],
    Row("pretrained", 2): [0.3, 0.4, 0.7, 0.2],
    Row("meta-learned", 0): [0.4, 0.8, 0.9, 0.6],
    Row("meta-learned", 2): [0.6, 0.9, 1.0, 0.2],
}


def answering(row, accuracy, seconds):
    """Ten answers, as many of them right as `accuracy` says."""
    right = round(10 * accuracy)
    return EpisodeScore(row, (0,) * 5 + (1,) * 5, *_answers(right), seconds)


def _answers(right):
    targets = [0] * 5 + [1] * 5
    predicted = [target if place < right else 1 - target for place, target in enumerate(targets)]
    return tuple(predicted), tuple(0.55 + 0.04 * place for place in range(10))


class Scripted:
    """Gives as many right answers as are written down, the last episode first."""

    def __init__(self, accuracies, order=reversed):
        self.accuracies, self.order = accuracies, order

    def map(self, work, addresses, meta):
        self.asked = addresses
        for address in self.order(addresses):
            index = address.index
            scores = [answering(row, values[index], 0.5 * index) for row, values in self.accuracies.items()]
            yield Done(address, tuple(scores))


def test_table():
    seen, executor = [], Scripted(ACCURACIES)
    rows = table(
        evaluate(
            executor,
            np.zeros(1, np.float32),
            [],
            Evaluation(shape={}, episodes=4, split="valid", seed=9),
            lambda done, of: seen.append((done, of)),
        )
    )
    assert executor.asked == [TaskAddress("valid", 9, 0, index) for index in range(4)]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [Row(row.method, row.steps) for row in rows] == list(ACCURACIES)
    frozen, best = ("frozen prototypes", Row("frozen prototypes", None)), ("pretrained, best row", Row("pretrained", 1))
    baseline = ("best baseline", Row("frozen prototypes", None))
    opponents = {
        Row("frozen prototypes", None): [],
        Row("pretrained", 1): [frozen],
        Row("pretrained", 2): [frozen],
        Row("meta-learned", 0): [frozen, best, baseline],
        Row("meta-learned", 2): [
            frozen,
            best,
            baseline,
            ("pretrained, same steps", Row("pretrained", 2)),
            ("same start, 0 steps", Row("meta-learned", 0)),
        ],
    }
    for row in rows:
        values = ACCURACIES[Row(row.method, row.steps)]
        assert row.accuracy.mean == pytest.approx(np.mean(values))
        assert row.seconds == pytest.approx(0.75)
        expected = dict(opponents[Row(row.method, row.steps)])
        assert set(row.versus) == set(expected)
        for name, opponent in expected.items():
            test = stats.ttest_rel(values, ACCURACIES[opponent])
            interval = test.confidence_interval(0.95)
            assert (row.versus[name].low, row.versus[name].high) == pytest.approx((interval.low, interval.high))
            assert row.versus[name].p_value == pytest.approx(test.pvalue)
        answers = [_answers(round(10 * value))[0] for value in values]
        f1 = [f1_score([0] * 5 + [1] * 5, answer, average="macro") for answer in answers]
        assert row.metrics["macro_f1"] == pytest.approx(np.mean(f1))
    assert as_dict(rows)[0]["accuracy"] == {
        "mean": rows[0].accuracy.mean,
        "low": rows[0].accuracy.low,
        "high": rows[0].accuracy.high,
    }


def test_table_does_not_depend_on_the_order_of_answers():
    # Added up in another order, these have another sum.
    accuracies = {Row("a", None): [0.1, 0.7, 0.3, 0.9]}
    evaluation = Evaluation(shape={}, episodes=4)
    forward, backward, mixed = (
        table(evaluate(Scripted(accuracies, order), np.zeros(1, np.float32), [], evaluation, lambda done, of: None))
        for order in (iter, reversed, lambda addresses: [addresses[index] for index in (0, 2, 1, 3)])
    )
    assert forward == backward == mixed


def test_evaluation_in_this_process(tmp_path):
    evaluation = Evaluation(shape={"ways": 3, "shots": 2, "queries": 3}, episodes=3, steps=(0, 1))
    executor = LocalExecutor(tiny_config(tmp_path), lambda text: None)
    executor.start()
    worker = Worker(tiny_config(tmp_path))
    meta = worker.layout.flatten(worker.initial)
    first, second = (
        table(evaluate(executor, meta, default_methods((0, 1)), evaluation, lambda done, of: None)) for _ in range(2)
    )
    assert [row.accuracy for row in first] == [row.accuracy for row in second]
    # Before any training, the learned start is the pretrained one.
    by_row = {Row(row.method, row.steps): row.accuracy for row in first}
    assert by_row[Row("pretrained", 1)] == by_row[Row("meta-learned", 1)]
