"""The sentences, against figures worked out by hand."""

import pytest

from metacl.reporting import verdict


def test_best_row_is_compared_with_both_baselines_and_its_gain_is_split(results):
    frozen, pretrained, origin = verdict(results)
    assert frozen == (
        "The best meta-learned row (5 inner steps, 88.00±0.80 %) is better than frozen prototypes (81.00±0.80 %): "
        "difference +7.00 points (95 % interval +6.30 to +7.70)."
    )
    assert pretrained == (
        "It is better than the best pretrained row (5 inner steps, 83.00±0.80 %): "
        "difference +5.00 points (95 % interval +4.60 to +5.40)."
    )
    assert origin == (
        "Of the +7.00 against frozen prototypes, +5.00 points (95 % interval +4.40 to +5.60) are there at step 0, "
        "before any inner step; taking 5 inner steps adds +2.00 points (95 % interval +1.70 to +2.30)."
    )


@pytest.mark.parametrize(
    ("low", "mean", "high", "said"),
    [
        (0.001, 0.01, 0.02, "is better than frozen"),
        (0.0, 0.01, 0.02, "is not distinguishable from frozen"),
        (-0.01, 0.01, 0.03, "is not distinguishable from frozen"),
        (-0.02, -0.01, 0.0, "is not distinguishable from frozen"),
        (-0.03, -0.02, -0.01, "is worse than frozen"),
    ],
)
def test_only_an_interval_without_zero_tells_two_methods_apart(results, low, mean, high, said):
    results["rows"][-1]["versus"]["frozen prototypes"] = {"mean": mean, "low": low, "high": high}
    assert said in verdict(results)[0]


def test_inner_steps_that_may_add_nothing_are_said_to(results):
    results["rows"][-1]["versus"]["same start, 0 steps"] = {"mean": 0.002, "low": -0.001, "high": 0.005}
    assert verdict(results)[2].endswith(
        "taking 5 inner steps adds +0.20 points (95 % interval -0.10 to +0.50), not distinguishable from 0."
    )


def test_the_best_pretrained_row_may_have_taken_other_steps(results):
    results["rows"].append({**results["rows"][1], "steps": 10, "accuracy": {"mean": 0.84, "low": 0.83, "high": 0.85}})
    results["rows"][-2]["versus"]["pretrained, best row"] = {"mean": 0.04, "low": 0.03, "high": 0.05}
    assert verdict(results)[1] == (
        "It is better than the best pretrained row (10 inner steps, 84.00±1.00 %): "
        "difference +4.00 points (95 % interval +3.00 to +5.00)."
    )


def test_best_without_inner_steps_says_what_steps_change(results):
    results["rows"][-1]["accuracy"] = {"mean": 0.85, "low": 0.84, "high": 0.86}
    results["rows"][-1]["versus"]["same start, 0 steps"] = {"mean": -0.01, "low": -0.02, "high": -0.005}
    frozen, _, origin = verdict(results)
    assert frozen.startswith("The best meta-learned row (0 inner steps, 86.00±0.80 %)")
    assert origin == (
        "The whole difference to frozen prototypes is there at step 0, before any inner step; "
        "taking 5 inner steps adds -1.00 points (95 % interval -2.00 to -0.50)."
    )


def test_of_equal_rows_the_one_with_fewer_steps_is_the_best(results):
    results["rows"][-1]["accuracy"] = results["rows"][-2]["accuracy"]
    assert "(0 inner steps" in verdict(results)[0]


def test_no_inner_steps_evaluated_at_all(results):
    results["rows"] = [row for row in results["rows"] if row["steps"] in (None, 0)]
    _, pretrained, origin = verdict(results)
    assert pretrained.startswith("The pretrained start was not evaluated")
    assert origin.endswith("what inner steps would add was not evaluated.")


def test_no_step_zero(results):
    del results["rows"][2]
    del results["rows"][-1]["versus"]["same start, 0 steps"]
    assert verdict(results)[2].startswith("What inner steps add is not known")


def test_no_frozen_prototypes(results):
    del results["rows"][0]
    for row in results["rows"]:
        row["versus"].pop("frozen prototypes", None)
    frozen, _, origin = verdict(results)
    assert frozen.endswith("they were not evaluated.")
    assert origin == (
        "From the meta-learned start, taking 5 inner steps adds +2.00 points (95 % interval +1.70 to +2.30)."
    )


def test_no_meta_learned_row(results):
    results["rows"] = results["rows"][:2]
    assert verdict(results) == ["No meta-learned row was evaluated, so there is nothing to compare."]


def test_the_best_baseline_is_named_whichever_it_is(results):
    """Logistic regression above the meta-learned rows is said, not only what they beat."""
    strong = {**results["rows"][0], "method": "logistic regression", "versus": {}}
    strong["accuracy"] = {"mean": 0.9, "low": 0.89, "high": 0.91}
    results["rows"].insert(1, strong)
    for row in results["rows"][-2:]:
        row["versus"]["best baseline"] = {"mean": -0.02, "low": -0.03, "high": -0.01}
    assert verdict(results)[2] == (
        "The best of all baselines on these episodes is logistic regression (90.00±1.00 %); the best meta-learned row "
        "is worse than that: difference -2.00 points (95 % interval -3.00 to -1.00)."
    )
