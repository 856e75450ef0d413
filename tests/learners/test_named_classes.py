"""A language model as a classifier by names holds texts as they are."""

import pytest
import torch

from metacl.learners import LEARNERS
from metacl.learners.named_classes import NamedClasses
from tests.small_models import save_family


@pytest.fixture(scope="module")
def learner(tmp_path_factory):
    model = save_family("llama", tmp_path_factory.mktemp("named") / "llama", causal=True)
    config = LEARNERS.build({"name": "causal_lm", "model": str(model), "adapter": {"targets": ["q_proj"]}})
    return NamedClasses(config.build(0), ["red_hat", "sea"])


def test_a_batch_holds_any_text(learner):
    texts = ["a", "snow ☃ é", "", "ab\ncd"]
    batch = learner.encode(texts, [0, 1, 1, 0])
    assert learner.texts(batch) == texts and batch.targets.tolist() == [0, 1, 1, 0]
    assert learner.texts(batch.select([3, 1])) == ["ab\ncd", "snow ☃ é"]


def test_scores_are_those_of_the_names_and_the_loss_is_theirs(learner):
    batch = learner.encode(["old thing", "a boat"], [1, 0])
    scores = learner.outputs(learner.initial, batch)
    alone = [
        learner.model.class_scores(learner.initial, [text], ["red_hat", "sea"]) for text in ("old thing", "a boat")
    ]
    assert torch.allclose(scores, torch.cat(alone), atol=1e-4)
    chances = scores.softmax(-1)
    assert float(learner.loss(learner.initial, batch)) == pytest.approx(
        -float(chances[[0, 1], [1, 0]].log().mean()), 1e-4
    )
