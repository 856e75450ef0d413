"""The protocol: methods against scikit-learn and torch, and the table that is made of their scores."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import normalize

from metacl.config import Evaluation
from metacl.coordination.executor import LocalExecutor
from metacl.coordination.worker import Done, Worker
from metacl.evaluation import FrozenPrototypes, InnerSteps, as_dict, default_methods, evaluate
from metacl.evaluation.few_shot import CompareMethods, EpisodeScore
from metacl.evaluation.methods import Row
from metacl.tasks import EpisodeShape, TaskAddress
from tests.helpers import tiny_config

ADDRESS = TaskAddress("test", 1, 0, 0)


@pytest.fixture
def worker(tmp_path):
    return Worker(tiny_config(tmp_path, inner={"step_size": {"value": 0.1, "head": 0.3, "learn": "none"}}))


@pytest.fixture
def task(worker):
    return worker.learner.prepare(worker.source.episode(ADDRESS, EpisodeShape(ways=3, shots=3, queries=4)))


def arrays(worker, task, params):
    features = [worker.learner.features(params, batch).detach().numpy() for batch in (task.support, task.query)]
    return *features, task.support.targets.numpy()


def test_frozen_prototypes_go_by_the_cosine_to_the_class_means(worker, task):
    support, query, targets = arrays(worker, task, worker.initial)
    means = [normalize(support)[targets == label].mean(0) for label in range(3)]
    expected = cosine_similarity(query, means).argmax(-1)
    moved = worker.layout.flatten(worker.initial) + 1.0  # frozen: what was learned does not matter
    (answer,) = FrozenPrototypes().answers(worker, task, moved)
    assert answer.row == Row("frozen prototypes", None)
    np.testing.assert_array_equal(answer.scores.argmax(-1).numpy(), expected)


def test_zero_steps_of_proto_maml_are_scikit_learns_nearest_centroids(worker, task):
    support, query, targets = arrays(worker, task, worker.initial)
    expected = NearestCentroid().fit(support, targets).predict(query)
    (answer,) = InnerSteps("meta-learned", False, (0,)).answers(worker, task, worker.layout.flatten(worker.initial))
    np.testing.assert_array_equal(answer.scores.argmax(-1).numpy(), expected)


def test_inner_steps_are_torchs_sgd(worker, task):
    learner = worker.learner
    answers = list(InnerSteps("m", False, (3, 0, 1)).answers(worker, task, worker.layout.flatten(worker.initial)))
    assert [answer.row for answer in answers] == [Row("m", 0), Row("m", 1), Row("m", 3)]
    assert [answer.row for answer in answers] == InnerSteps("m", False, (3, 0, 1)).rows()
    start = worker.config.objective.start(learner, worker.initial, task)
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in start.items()}
    optimizer = torch.optim.SGD(
        [{"params": [leaf], "lr": 0.3 if name.startswith("head.") else 0.1} for name, leaf in leaves.items()]
    )
    expected = {}
    for step in range(4):
        expected[step] = learner.outputs(leaves, task.query).detach()
        optimizer.zero_grad()
        learner.loss(leaves, task.support).backward()
        optimizer.step()
    for answer in answers:
        torch.testing.assert_close(answer.scores, expected[answer.row.steps], rtol=1e-5, atol=1e-6)
    seconds = [answer.seconds for answer in answers]
    assert seconds == sorted(seconds)
    assert seconds[0] >= 0


def test_pretrained_start_ignores_what_was_learned(worker, task):
    initial = worker.layout.flatten(worker.initial)
    (from_initial,) = InnerSteps("p", True, (2,)).answers(worker, task, initial)
    (from_other,) = InnerSteps("p", True, (2,)).answers(worker, task, initial + 0.5)
    (learned,) = InnerSteps("m", False, (2,)).answers(worker, task, initial + 0.5)
    assert torch.equal(from_initial.scores, from_other.scores)
    assert not torch.equal(learned.scores, from_other.scores)


def test_default_methods():
    rows = [row for method in default_methods((0, 2)) for row in method.rows()]
    learned = [Row("meta-learned", 0), Row("meta-learned", 2)]
    assert rows == [Row("frozen prototypes", None), Row("pretrained", 2), *learned]
    assert [method.name for method in default_methods((0,))] == ["frozen prototypes", "meta-learned"]


def test_scores_are_accuracies_on_the_query(worker):
    class Always:
        def rows(self):
            return [Row("always 1", None)]

        def answers(self, worker, task, meta):
            scores = torch.zeros(len(task.query.targets), task.ways)
            scores[:, 1] = 1.0
            yield SimpleNamespace(row=Row("always 1", None), scores=scores, seconds=0.25)

    shape = EpisodeShape(ways=3, shots=1, queries=2)
    (score,) = CompareMethods((Always(),), shape)(worker, ADDRESS, worker.layout.flatten(worker.initial))
    assert score == EpisodeScore(Row("always 1", None), 1 / 3, 0.25)


def test_what_is_not_finite_counts_as_wrong_and_does_not_stop_the_others(worker):
    work = CompareMethods((InnerSteps("m", False, (0, 5)), FrozenPrototypes()), worker.config.episodes)
    zero, five, frozen = work(worker, ADDRESS, np.full(worker.layout.size, np.nan, np.float32))
    assert zero == EpisodeScore(Row("m", 0), 0.0, 0.0, diverged=True)
    assert five == EpisodeScore(Row("m", 5), 0.0, 0.0, diverged=True)
    assert not frozen.diverged and frozen.accuracy > 0


ACCURACIES = {
    Row("frozen prototypes", None): [0.2, 0.4, 0.9, 0.5],
    Row("pretrained", 1): [0.5, 0.5, 0.7, 0.1],
    Row("pretrained", 2): [0.3, 0.4, 0.7, 0.2],
    Row("meta-learned", 0): [0.4, 0.8, 0.9, 0.6],
    Row("meta-learned", 2): [0.6, 0.9, 1.0, 0.2],
}


class Scripted:
    """Returns accuracies that are written down, the last episode first."""

    def __init__(self, accuracies, order=reversed):
        self.accuracies, self.order = accuracies, order

    def map(self, work, addresses, meta):
        self.asked = addresses
        for address in self.order(addresses):
            index = address.index
            scores = [EpisodeScore(row, values[index], 0.5 * index) for row, values in self.accuracies.items()]
            yield Done(address, tuple(scores))


def test_table():
    seen, executor = [], Scripted(ACCURACIES)
    rows = evaluate(
        executor,
        np.zeros(1, np.float32),
        [],
        Evaluation(shape={}, episodes=4, split="valid", seed=9),
        lambda done, of: seen.append((done, of)),
    )
    assert executor.asked == [TaskAddress("valid", 9, 0, index) for index in range(4)]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [Row(row.method, row.steps) for row in rows] == list(ACCURACIES)
    frozen, best = ("frozen prototypes", Row("frozen prototypes", None)), ("pretrained, best row", Row("pretrained", 1))
    opponents = {
        Row("frozen prototypes", None): [],
        Row("pretrained", 1): [frozen],
        Row("pretrained", 2): [frozen],
        Row("meta-learned", 0): [frozen, best],
        Row("meta-learned", 2): [
            frozen,
            best,
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
            interval = stats.ttest_rel(values, ACCURACIES[opponent]).confidence_interval(0.95)
            assert (row.versus[name].low, row.versus[name].high) == pytest.approx((interval.low, interval.high))
    assert as_dict(rows)[0]["accuracy"] == {
        "mean": rows[0].accuracy.mean,
        "low": rows[0].accuracy.low,
        "high": rows[0].accuracy.high,
    }


def test_table_does_not_depend_on_the_order_of_answers():
    # Added up in another order, these have another sum.
    accuracies = {Row("a", None): [1e16, 1.0, -1e16, 1.0]}
    evaluation = Evaluation(shape={}, episodes=4)
    forward, backward, mixed = (
        evaluate(Scripted(accuracies, order), np.zeros(1, np.float32), [], evaluation, lambda done, of: None)
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
        evaluate(executor, meta, default_methods((0, 1)), evaluation, lambda done, of: None) for _ in range(2)
    )
    assert [row.accuracy for row in first] == [row.accuracy for row in second]
    # Before any training, the learned start is the pretrained one.
    by_row = {Row(row.method, row.steps): row.accuracy for row in first}
    assert by_row[Row("pretrained", 1)] == by_row[Row("meta-learned", 1)]
