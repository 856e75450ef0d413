"""Completions of a causal language model: their probabilities against transformers, their draws against those."""

from itertools import product

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from metacl.errors import ConfigError, DataError
from metacl.learners import CausalLanguageModelConfig
from metacl.learners.adapter import AdapterConfig
from metacl.learners.ranks import RankGroup
from metacl.learners.samples import Samples
from tests.small_models import FAMILIES, SYMBOLS, VOCABULARY, save_family

TEXTS = ["is it? yes", "a? no", "where is my card? lost"]
PROMPTS = ["is it?", "a?", "where is my card?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_family("llama", tmp_path_factory.mktemp("llama"), causal=True)


def learner_of(folder, tokens, **changes):
    adapter = AdapterConfig(rank=2, targets=FAMILIES["llama"][1])
    options = {"adapter": adapter, "max_length": 32, "completion_after": "?", "completion_tokens": tokens, **changes}
    return CausalLanguageModelConfig(model=str(folder), **options).build(0)


def moved(learner):
    """An adapter that changes something: LoRA starts as no change at all."""
    generator = torch.Generator().manual_seed(0)
    return {name: t + 0.1 * torch.randn(t.shape, generator=generator) for name, t in learner.initial.items()}


@pytest.mark.parametrize("layers", [None, 1], ids=["all layers", "the upper layer"])
def test_probabilities_are_those_of_transformers_one_text_at_a_time(folder, layers):
    adapter = AdapterConfig(rank=2, targets=FAMILIES["llama"][1], last_layers=layers)
    learner = learner_of(folder, 3, adapter=adapter)
    answers = torch.tensor([[[5, 2, 9], [7, 7, 1]], [[4, 3, 8], [28, 0, 2]], [[1, 1, 1], [30, 29, 28]]])
    found = learner.log_probabilities(
        learner.initial, learner.encode(TEXTS, None), Samples(answers, torch.ones_like(answers))
    )
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for prompt, answer in product(range(3), range(2)):
        ids = tokenizer(PROMPTS[prompt])["input_ids"] + answers[prompt, answer].tolist()
        scores = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = [scores[place - 1, ids[place]] for place in range(len(ids) - 3, len(ids))]
        torch.testing.assert_close(found[prompt, answer], torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_probabilities_of_all_completions_sum_to_one(folder):
    learner = learner_of(folder, 2)
    every = torch.tensor(list(product(range(VOCABULARY), repeat=2))).unsqueeze(0)  # (1, V², 2)
    logs = learner.log_probabilities(
        moved(learner), learner.encode(TEXTS[:1], None), Samples(every, torch.ones_like(every))
    )
    assert float(logs.double().sum(-1).exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_draws_follow_the_probabilities(folder):
    """The second token of a completion, whose distribution depends on the first."""
    learner, count = learner_of(folder, 2), 4000
    params, batch = moved(learner), learner.encode(TEXTS[1:2], None)
    drawn = learner.sample(params, batch, count, seed=1)
    every = torch.tensor(list(product(range(VOCABULARY), repeat=2))).unsqueeze(0)
    logs = learner.log_probabilities(params, batch, Samples(every, torch.ones_like(every))).sum(-1)
    expected = logs.exp().view(VOCABULARY, VOCABULARY).sum(0).detach().numpy()
    found = np.bincount(drawn.actions[0, :, 1].numpy(), minlength=VOCABULARY) / count
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(expected.max() / count))
    assert expected.max() > 2 * expected.min()


def test_draws_depend_on_the_seed_and_the_parameters_alone(folder):
    learner = learner_of(folder, 4)
    batch = learner.encode(TEXTS, None)
    drawn = learner.sample(learner.initial, batch, 5, seed=3)
    assert drawn.actions.shape == drawn.mask.shape == (3, 5, 4)
    assert torch.equal(learner.sample(learner.initial, batch, 5, seed=3).actions, drawn.actions)
    assert not torch.equal(learner.sample(learner.initial, batch, 5, seed=4).actions, drawn.actions)
    changed = learner.sample({n: t + 1 for n, t in learner.initial.items()}, batch, 5, seed=3)
    assert not torch.equal(changed.actions, drawn.actions)


def test_texts_end_where_the_model_ends_them(folder):
    learner = learner_of(folder, 12)
    learner.tokenizer.eos_token = "e"
    end = SYMBOLS.index("e")
    drawn = learner.sample(learner.initial, learner.encode(TEXTS, None), 40, seed=0)
    assert [reference.split() for reference in drawn.references] == [list("yes"), list("no"), list("lost")]
    ended = 0
    for prompt, answer in product(range(3), range(40)):
        tokens, mask = drawn.actions[prompt, answer].tolist(), drawn.mask[prompt, answer].tolist()
        stop = tokens.index(end) if end in tokens else len(tokens)
        assert mask == [1] * min(stop + 1, len(tokens)) + [0] * (len(tokens) - stop - 1)
        assert drawn.texts[prompt][answer] == learner.tokenizer.decode(tokens[:stop])
        ended += end in tokens
    assert 0 < ended < 120


def test_what_does_not_fit_or_is_shared_by_ranks_is_refused(folder):
    learner = learner_of(folder, 20)
    batch = learner.encode(TEXTS, None)
    with pytest.raises(DataError, match="32 tokens, but a prompt of 17 and a completion of 20 do not fit"):
        learner.sample(learner.initial, batch, 2, 0)
    learner.ranks = RankGroup(0, 2)
    with pytest.raises(ConfigError, match=r"workers\.ranks_per_group=1"):
        learner.sample(learner.initial, batch, 2, 0)
