"""What is shown of answers: pairs of classes counted by hand, and episodes as their addresses make them."""

import pytest

from metacl.evaluation import example_episodes, worst_confusions
from metacl.evaluation.few_shot import EpisodeScore
from metacl.evaluation.methods import Row
from metacl.tasks import EpisodeShape, TaskAddress
from tests.helpers import tiny_config

ROW, SHAPE = Row("meta-learned", 1), EpisodeShape(ways=3, shots=1, queries=2)


@pytest.fixture
def source(tmp_path):
    return tiny_config(tmp_path).data.open()


def scored(source, wrong, episodes=6):
    """Answers that are right but where `wrong` says what a class is taken for; another row that is always wrong."""
    scores = {}
    for index in range(episodes):
        address = TaskAddress("test", 1, 0, index)
        episode = source.episode(address, SHAPE)
        names = episode.class_names
        said = [names.index(wrong[n]) if wrong.get(n) in names else names.index(n) for n in names for _ in range(2)]
        right = tuple(episode.query_labels)
        confidences = (0.5,) * 6
        other = EpisodeScore(Row("other", None), right, tuple((label + 1) % 3 for label in right), confidences, 0.0)
        scores[address] = (other, EpisodeScore(ROW, right, tuple(said), confidences, 0.0))
    return scores


def test_a_pair_is_counted_where_both_could_be_said(source):
    first, second, *_ = source.classes["test"]
    scores = scored(source, {first: second})
    together = [a for a in scores if {first, second} <= set(source.episode(a, SHAPE).class_names)]
    assert together  # else this test would say nothing
    expected = {"true": first, "predicted": second, "times": 2 * len(together), "of": 2 * len(together)}
    assert worst_confusions([(scores, source)], ROW, SHAPE) == [expected]
    assert worst_confusions([(scored(source, {}), source)], ROW, SHAPE) == []


def test_one_mistake_is_no_pattern_and_divergence_no_answer(source):
    address, scores = next(iter(scored(source, {}).items()))
    targets = scores[1].targets
    once = EpisodeScore(ROW, targets, (1, *targets[1:]), (0.5,) * 6, 0.0)
    assert worst_confusions([({address: (once,)}, source)], ROW, SHAPE) == []
    (twice,) = worst_confusions(2 * [({address: (once,)}, source)], ROW, SHAPE)  # once in each of two splits
    assert (twice["times"], twice["of"]) == (2, 4)
    diverged = EpisodeScore(ROW, targets, (), (), 0.0)
    assert worst_confusions([({address: (diverged,)}, source)], ROW, SHAPE) == []
    assert example_episodes({address: (diverged,)}, ROW, source, SHAPE) == []


def test_episodes_are_shown_as_they_were(source):
    scores = scored(source, {})
    shown = example_episodes(scores, ROW, source, SHAPE)
    assert [one["address"] for one in shown] == [str(address) for address in list(scores)[:2]]
    episode = source.episode(next(iter(scores)), SHAPE)
    assert [one["text"] for one in shown[0]["support"]] == list(episode.support_texts)
    assert [(one["text"], one["wrong"]) for one in shown[0]["query"]] == [(text, False) for text in episode.query_texts]
