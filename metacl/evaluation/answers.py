"""What a row answered, for people: the classes it takes for each other, and a few episodes as they were.

Episodes are made again from their addresses; only answers are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from metacl.evaluation.few_shot import EpisodeScore, Scores
from metacl.evaluation.methods import Row
from metacl.tasks import Episode, EpisodeShape, EpisodeSource


def worst_confusions(
    splits: Sequence[tuple[Scores, EpisodeSource]], row: Row, shape: EpisodeShape, count: int = 10
) -> list[dict[str, Any]]:
    """The pairs of classes that a row confused most, as a share of the times that both could have been said.

    Parameters
    ----------
    splits : the answers of each class split, or of the one there is, with what its episodes are drawn from

    Returns
    -------
    list of dict
        ``true``, ``predicted`` (names), ``times`` and ``of`` (answers to the true class where the other was in the
        episode), by times / of, then by times. None for arrays, whose classes have no names.
    """
    times: Counter[tuple[str, str]] = Counter()
    asked: Counter[tuple[str, str]] = Counter()
    for scores, source in splits:
        for address, of_episode in scores.items():
            episode = source.episode(address, shape)
            score = _of(row, of_episode)
            if not isinstance(episode, Episode) or score.diverged:
                continue
            names = episode.class_names
            for target, predicted in zip(score.targets, score.predicted, strict=True):
                asked.update((names[target], other) for other in names if other != names[target])
                if target != predicted:
                    times[names[target], names[predicted]] += 1
    # Once seen and once wrong is no pattern: a pair counts from its second mistake on.
    pairs = sorted((p for p in times if times[p] > 1), key=lambda p: (-times[p] / asked[p], -times[p], p))
    return [{"true": t, "predicted": p, "times": times[t, p], "of": asked[t, p]} for t, p in pairs[:count]]


def example_episodes(
    scores: Scores, row: Row, source: EpisodeSource, shape: EpisodeShape, count: int = 2
) -> list[dict[str, Any]]:
    """The first episodes with what a row answered.

    Returns
    -------
    list of dict
        ``address``, ``classes`` (names), ``support`` and ``query``: lists of ``text``, ``true`` and, in the query,
        ``predicted``, ``confidence`` and ``wrong``. None for arrays.
    """
    shown = []
    for address, of_episode in list(scores.items())[:count]:
        episode = source.episode(address, shape)
        score = _of(row, of_episode)
        if not isinstance(episode, Episode) or score.diverged:
            continue
        names = episode.class_names
        answers = zip(episode.query_texts, score.targets, score.predicted, score.confidences, strict=True)
        shown.append(
            {
                "address": str(address),
                "classes": list(names),
                "support": [
                    {"text": text, "true": names[label]}
                    for text, label in zip(episode.support_texts, episode.support_labels, strict=True)
                ],
                "query": [
                    {
                        "text": text,
                        "true": names[target],
                        "predicted": names[answer],
                        "confidence": confidence,
                        "wrong": answer != target,
                    }
                    for text, target, answer, confidence in answers
                ],
            }
        )
    return shown


def _of(row: Row, scores: tuple[EpisodeScore, ...]) -> EpisodeScore:
    return next(score for score in scores if score.row == row)
