"""Adapting from unlabelled text: masked tokens against the plain model, and that descending on them helps."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel

from metacl.adaptation import InnerLoop
from metacl.learners import Task, TextClassifierConfig
from metacl.learners.adapter import AdapterConfig
from metacl.learners.base import as_leaves
from metacl.learners.masking import masked_places
from metacl.metagradients import Reverse
from metacl.objectives import Unlabelled
from tests.small_runs import save_tiny_bert

TEXTS = ["where is my card", "I would like to know why my transfer has not arrived yet please", "pin?", "top up"]


@pytest.fixture(scope="module")
def learner(tmp_path_factory):
    model = str(save_tiny_bert(tmp_path_factory.mktemp("model") / "tiny"))
    return TextClassifierConfig(model=model, adapter=AdapterConfig(rank=2, last_layers=2)).build(seed=0)


def test_about_a_seventh_is_masked_and_every_text_has_one():
    ids = torch.randint(1000, 30000, (200, 32), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, -1] = 101, 102
    attention = torch.ones_like(ids)
    attention[:100, 3:] = 0
    places = masked_places(ids, attention, [101, 102])
    assert bool(places.any(1).all())
    assert not bool((places & ~attention.bool()).any())
    assert not bool((places & ((ids == 101) | (ids == 102))).any())
    assert float(places[100:].float().mean()) == pytest.approx(0.15 * 30 / 32, abs=0.02)
    assert torch.equal(places, masked_places(ids, attention, [101, 102]))


def test_loss_is_that_of_the_plain_model(learner):
    batch = learner.encode(TEXTS, None)
    found = learner.self_supervised_loss(learner.initial, batch)  # B = 0: the adapter does nothing yet
    plain = AutoModel.from_pretrained(learner.config.model).eval()
    losses = []
    for text in TEXTS:  # one by one: no padding
        tokens = learner.tokenizer(text, return_tensors="pt")
        ids, attention = tokens["input_ids"], tokens["attention_mask"]
        places = masked_places(ids, attention, learner.tokenizer.all_special_ids)
        hidden = plain(input_ids=ids.masked_fill(places, learner.tokenizer.mask_token_id), attention_mask=attention)
        scores = hidden.last_hidden_state[places] @ plain.embeddings.word_embeddings.weight.T
        losses += F.cross_entropy(scores, ids[places], reduction="none").tolist()
    assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_steps_on_unlabelled_text_lower_it_and_the_meta_gradient_runs_through_them(learner):
    loop = InnerLoop(steps=3, step_size={"value": 5.0, "head": 0.5, "learn": "none"})
    objective = Unlabelled(by="self_supervised")
    meta = as_leaves(objective.meta_parameters(learner, loop, 2))
    task = Task(2, learner.encode(TEXTS, None), learner.encode(TEXTS, [0, 1, 0, 1]))
    result = Reverse().estimate(objective.problem(learner, meta, task, loop))
    assert result.support_losses[2] < result.support_losses[0]
    assert all(result.gradient[name].abs().max() > 0 for name in meta if "lora_B" in name)
