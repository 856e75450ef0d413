"""Metrics against scikit-learn, sacrebleu, rouge-score, and hand arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from metacl.evaluation.classification import (
    confusion,
    expected_calibration_error,
    precision_recall_f1,
)
from metacl.evaluation.generation import bleu, exact_match, rouge

answers = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@pytest.mark.parametrize("average", ["macro", "micro"])
@given(answers)
def test_classification_is_scikit_learns(average, pairs):
    targets, predicted = np.array(pairs).T
    counts = confusion(targets, predicted, 5)
    np.testing.assert_array_equal(counts, confusion_matrix(targets, predicted, labels=range(5)))
    expected = precision_recall_fscore_support(targets, predicted, average=average, zero_division=0)[:3]
    found = precision_recall_f1(counts, average)
    assert (found.precision, found.recall, found.f1) == pytest.approx(expected)


def test_calibration_error_by_hand():
    # Two of confidence .95, one right: gap .45; two of .65, both right: gap .35; halves of the answers each.
    confidences, right = np.array([0.95, 0.95, 0.65, 0.65]), np.array([True, False, True, True])
    assert expected_calibration_error(confidences, right) == pytest.approx(0.5 * 0.45 + 0.5 * 0.35)
    assert expected_calibration_error(np.array([0.3, 0.3]), np.array([True, False])) == pytest.approx(0.2)
    # An edge belongs to the bin below it: apart, these two cancel nothing.
    assert expected_calibration_error(np.array([0.5, 0.51]), np.array([True, False])) == pytest.approx(0.505)


def test_calibration_error_by_scikit_learns_curve():
    random = np.random.default_rng(1)
    confidences = random.uniform(0, 1, 500)
    right = random.uniform(0, 1, 500) < confidences**2
    share, confidence = calibration_curve(right, confidences, n_bins=10)
    sizes = np.histogram(confidences, np.linspace(0, 1, 11))[0]
    assert expected_calibration_error(confidences, right) == pytest.approx(
        float(np.sum(sizes / 500 * np.abs(share - confidence)))
    )


TEXTS = ["the cat sat on the mat", "there is a restaurant in the north .", "yes"]
REFERENCES = [["the cat is on the mat", "a cat sat on a mat"], ["there are restaurants in the north ."], ["No!"]]


def test_bleu_is_sacrebleus():
    padded = [[own[min(place, len(own) - 1)] for own in REFERENCES] for place in range(2)]
    # A reference given twice changes nothing, so padding by repeating is what leaving out means.
    assert bleu(TEXTS, REFERENCES) == pytest.approx(BLEU().corpus_score(TEXTS, padded).score)
    assert bleu(TEXTS[:1], [[TEXTS[0]]]) == pytest.approx(100.0)


def test_rouge_is_rouge_scores():
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    found = rouge(TEXTS, REFERENCES)
    for kind in ("rouge1", "rouge2", "rougeL"):
        best = [
            max(scorer.score(reference, text)[kind].fmeasure for reference in own)
            for text, own in zip(TEXTS, REFERENCES, strict=True)
        ]
        assert found[kind] == pytest.approx(np.mean(best))


def test_exact_match():
    assert exact_match(["  Yes. ", "no", "42"], [["yes"], ["yes", "No!"], ["43"]]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", [bleu, rouge, exact_match])
@pytest.mark.parametrize(("texts", "references"), [([], []), (["a"], []), (["a"], [[]])])
def test_each_text_needs_a_reference(metric, texts, references):
    with pytest.raises(ValueError, match="each text needs a reference"):
        metric(texts, references)
