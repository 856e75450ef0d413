"""Invented but plausible results: what `api.train` writes, and what it is made of."""

import pytest


def estimate(mean, half):
    return {"mean": mean, "low": mean - half, "high": mean + half}


def row(method, steps, accuracy, versus=None):
    return {
        "method": method,
        "steps": steps,
        "accuracy": estimate(accuracy, 0.008),
        "metrics": {
            "macro_precision": accuracy - 0.005,
            "macro_recall": accuracy,
            "macro_f1": accuracy - 0.01,
            "calibration_error": 0.0325,
        },
        "diverged": 0,
        "bootstrap": {"mean": accuracy, "low": accuracy - 0.009, "high": accuracy + 0.007},
        "seconds": 0.0031 if steps is None else 0.002 + 0.021 * steps,
        "tokens": 310.5 * (1 + (steps or 0)),
        "memory_bytes": 270000.0 if steps is None else 5.25e6 + 30e6 * steps,
        "versus": {name: estimate(*figures) for name, figures in (versus or {}).items()},
    }


FROZEN = "frozen prototypes"
PRETRAINED = "pretrained, same steps"
BEST_PRETRAINED = "pretrained, best row"
START = "same start, 0 steps"


@pytest.fixture
def rows():
    """0 and 5 inner steps: the meta-learned row with 5 is the best of all, by more than its intervals."""
    return [
        row("frozen prototypes", None, 0.81),
        row("pretrained", 5, 0.83, {FROZEN: (0.02, 0.005)}),
        row("meta-learned", 0, 0.86, {FROZEN: (0.05, 0.006), BEST_PRETRAINED: (0.03, 0.005)}),
        row(
            "meta-learned",
            5,
            0.88,
            {
                FROZEN: (0.07, 0.007),
                PRETRAINED: (0.05, 0.004),
                BEST_PRETRAINED: (0.05, 0.004),
                START: (0.02, 0.003),
            },
        ),
    ]


@pytest.fixture
def results(rows):
    return {
        "run": "demo",
        "metacl": "0.1.0",
        "protocol": {
            "data": "banking77, class split 01",
            "split": "test",
            "ways": 5,
            "shots": 1,
            "queries": 4,
            "episodes": 300,
            "seed": 7,
            "interval": "95 %, Student's t over episodes; differences are paired by episode",
        },
        "rows": rows,
        "curves": [
            {
                "method": "meta-learned",
                "first": 0,
                "last": 5,
                "area": estimate(0.87, 0.005),
                "versus_pretrained": None,
                "steps_to_baseline": 0,
            }
        ],
        "robustness": [
            {"start": start, "factor": factor, "steps": 5, "accuracy": estimate(mean, 0.01), "diverged": diverged}
            for start, factor, mean, diverged in (
                ("pretrained", 0.1, 0.8, 0),
                ("pretrained", 10.0, 0.2, 7),
                ("meta-learned", 0.1, 0.87, 0),
                ("meta-learned", 10.0, 0.6, 3),
            )
        ],
        "confusions": [{"true": "card arrival", "predicted": "card delivery", "times": 3, "of": 12}],
        "examples": [
            {
                "address": "test/seed=7/step=0/index=0",
                "classes": ["card arrival", "card delivery"],
                "support": [{"text": "has my card come", "true": "card arrival"}],
                "query": [
                    {
                        "text": "where is it",
                        "true": "card delivery",
                        "predicted": "card arrival",
                        "confidence": 0.61,
                        "wrong": True,
                        "why": {
                            "tokens": [["where", 0.5], ["is", -0.25], ["it", 0.0]],
                            "examples": [{"text": "has my card come", "label": "card arrival", "similarity": 0.83}],
                        },
                    }
                ],
            }
        ],
        "chosen": [
            {
                "method": "fine-tuning, LoRA",
                "option": "learning rate",
                "chosen": 0.001,
                "validation_accuracies": {"0.001": 0.8, "0.1": 0.2},
            }
        ],
        "cost": {
            "evaluation_seconds": 412.0,
            "groups": 2,
            "training_seconds_this_session": 3711.0,
            "training": {"steps": 3, "tasks": 12, "seconds": 7302.0, "coordinator_seconds": 73.02},
            "base_parameters": 22713216,
            "learned_parameters": 73728,
        },
    }


@pytest.fixture
def metrics():
    return [
        {
            "step": step,
            "query_loss": 1.0 / step,
            "support_loss_first": 1.2 / step,
            "support_loss_last": 0.4 / step,
            "gradient_norm": 1.0,
            "tasks": 4,
            "seconds": 2434.0,
            "coordinator_seconds": 24.34,
        }
        for step in (1, 2, 3)
    ]


@pytest.fixture
def language_results():
    """Of two starts after 0 and 5 steps; the meta-learned one says more like the data."""
    nats = {("pretrained", 0): 2.0, ("pretrained", 5): 1.8, ("meta-learned", 0): 1.9, ("meta-learned", 5): 1.5}
    return {
        "run": "words",
        "metacl": "0.1.0",
        "protocol": {
            "data": "texts, domains",
            "split": "test",
            "ways": 1,
            "shots": 3,
            "queries": 2,
            "episodes": 8,
            "seed": 1,
            "generation": {"new_tokens": 40},
            "interval": "95 %, Student's t over tasks; gains are paired by task",
        },
        "rows": [
            {
                "method": method,
                "steps": steps,
                "log_perplexity": estimate(mean, 0.1),
                "gain": None if (method, steps) == ("pretrained", 0) else estimate(2.0 - mean, 0.05),
            }
            for (method, steps), mean in nats.items()
        ],
        "completions": [
            {
                "method": method,
                "steps": steps,
                "metrics": {"bleu": estimate(60 - 20 * mean, 3.0), "exact_match": estimate(0.25, 0.125)},
                "corpus_bleu": 61 - 20 * mean,
                "gains": {} if (method, steps) == ("pretrained", 0) else {"bleu": estimate(40 - 20 * mean, 2.0)},
            }
            for (method, steps), mean in nats.items()
        ],
        "examples": [{"prompt": "inform(name=<x>)", "reference": "it is x", "said": "it is y"}],
        "cost": {"evaluation_seconds": 61.0, "groups": 1},
    }
