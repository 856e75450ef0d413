"""The encoder-decoder against transformers' own loss, and a training on prompts and completions from a config."""

import json

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BartConfig, T5Config

import metacl
from metacl.api import evaluate_perplexity
from metacl.config import Evaluation, config_from_dict
from metacl.errors import ConfigError, DataError
from metacl.initialization import read_initialization
from metacl.learners import SequenceToSequenceConfig
from metacl.learners.adapter import AdapterConfig
from metacl.learners.generation import Generation, generate
from metacl.learners.token_count import TokenCount, counting
from metacl.tasks import EpisodeShape
from tests.small_models import VOCABULARY, save_tokenizer

MARKER = ". "
TEXTS = ["hello there. bye", "is it so?. yes it is", "a. b", "where is my card. it is lost"]
SHAPES = {
    "t5": T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_decoder_layers=1,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
        dropout_rate=0.1,
    ),
    "bart": BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
    ),
}
TARGETS = {"t5": ("q", "v", "wo"), "bart": ("q_proj", "v_proj", "fc2")}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folders = {}
    for family, shape in SHAPES.items():
        folders[family] = tmp_path_factory.mktemp(family)
        torch.manual_seed(0)
        model = AutoModelForSeq2SeqLM.from_config(shape, attn_implementation="eager")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn(parameter.shape)
        model.generation_config.eos_token_id = None  # random models would end at once
        model.save_pretrained(folders[family])
        save_tokenizer(folders[family])
    return folders


def config_of(models, family, **changes):
    adapter = AdapterConfig(rank=2, targets=TARGETS[family])
    options = {"adapter": adapter, "max_length": 32, "completion_after": MARKER, **changes}
    return SequenceToSequenceConfig(model=str(models[family]), **options)


def transformers_losses(folder, texts):
    """Nats of each completion and its tokens, from transformers' loss of one text at a time."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for text in texts:
        prompt, completion = (tokenizer(part, return_tensors="pt")["input_ids"] for part in text.split(MARKER))
        count = completion.shape[1]
        found.append((float(model(input_ids=prompt, labels=completion).loss.detach()) * count, count))
    return found


@pytest.mark.parametrize("family", SHAPES)
def test_loss_is_that_of_transformers(models, family):
    """Adapters as attached change nothing; padding and grouping by length must not, either."""
    expected = transformers_losses(models[family], TEXTS)
    for options in ({}, {"padding": "max_length"}, {"adapter": None}):
        learner = config_of(models, family, **options).build(0)
        batch = learner.encode(TEXTS, None)
        assert batch.targets.tolist() == [count for _, count in expected]
        found = learner.outputs(learner.initial, batch)
        torch.testing.assert_close(found, torch.tensor([nats for nats, _ in expected]), rtol=1e-5, atol=1e-5)
        mean = sum(nats for nats, _ in expected) / sum(count for _, count in expected)
        assert float(learner.loss(learner.initial, batch)) == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("family", SHAPES)
def test_it_says_what_transformers_says(models, family):
    """All weights moved; greedy, and by beams."""
    learner = config_of(models, family, adapter=None).build(0)
    torch.manual_seed(1)
    params = {name: tensor + 0.5 * torch.randn(tensor.shape) for name, tensor in learner.initial.items()}
    model = AutoModelForSeq2SeqLM.from_pretrained(models[family], dtype=torch.float32).eval()
    held = dict(model.named_parameters())
    with torch.no_grad():
        for name, inside in learner.adapted.module_names.items():
            held[inside].copy_(params[name])
    for beams in (1, 3):
        said = generate(learner, params, ["hello", "a b"], Generation(new_tokens=6, beams=beams))
        for prompt, found in zip(["hello", "a b"], said, strict=True):
            ids = learner.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
            tokens = model.generate(**ids, max_new_tokens=6, num_beams=beams, do_sample=False)[0]
            assert found == learner.tokenizer.decode(tokens, skip_special_tokens=True)
        assert any(said)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no marker here", r"'\. ' does not occur in the text 'no marker here'"),
        (". b", r"a part of the text '\. b' has no token"),
    ],
)
def test_texts_without_two_parts(models, text, message):
    with pytest.raises(DataError, match=message):
        config_of(models, "t5").build(0).encode([text], None)


def test_packed_rows_are_refused(models):
    with pytest.raises(ValueError, match="padding=groups"):
        config_of(models, "t5", padding="packed")


def test_training_lowers_the_perplexity_of_unseen_prompts(models, tmp_path):
    """Completions repeat the prompt's letter: trained from a config, stored, read again, measured."""
    rows = [{"prompt": f"{a}{b}", "completion": 3 * a} for a in "abcdef" for b in "ghijk"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = {
        "name": "prompts",
        "output": str(tmp_path / "run"),
        "learner": {
            "name": "seq2seq_lm",
            "model": str(models["t5"]),
            "max_length": 8,
            "completion_after": MARKER,
            "adapter": {"rank": 4, "targets": ["q", "v", "wi", "wo"]},
        },
        "data": {"name": "prompt_completion", "path": str(tmp_path / "rows.jsonl"), "marker": MARKER},
        "episodes": {"ways": 1, "shots": 3, "queries": 3},
        "objective": "maml",
        "inner": {"steps": 2, "step_size": {"value": 0.05}},
        "outer": {"steps": 12, "tasks_per_step": 2, "learning_rate": 0.02},
        "workers": {"executor": "local"},
    }
    run = metacl.train(config_from_dict(tree))
    asked = Evaluation(shape=EpisodeShape(ways=1, shots=2, queries=2), episodes=6, steps=(0, 2))
    found = evaluate_perplexity(read_initialization(run.initialization), asked, generation=Generation(new_tokens=4))
    assert all("bleu" in row["metrics"] for row in found["completions"])
    assert MARKER not in found["examples"][0]["prompt"]
    nats = {(row["method"], row["steps"]): row["log_perplexity"]["mean"] for row in found["rows"]}
    assert nats["meta-learned", 2] < nats["pretrained", 2] - 0.2


def test_another_marker_than_the_datas(models, tmp_path):
    learner = {"name": "seq2seq_lm", "model": str(models["t5"])}
    data = {"name": "prompt_completion", "path": "rows.jsonl", "marker": MARKER}
    with pytest.raises(ConfigError, match="Set learner"):
        config_from_dict({"name": "x", "learner": learner, "data": data, "objective": "maml"})


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_what_the_decoder_reads_counts_too(models, family):
    adapter = AdapterConfig(targets=TARGETS[family])
    config = SequenceToSequenceConfig(model=str(models[family]), adapter=adapter, completion_after=MARKER)
    learner = config.build(0)
    batch, tokenizer = learner.encode(TEXTS, None), AutoTokenizer.from_pretrained(models[family])
    with TokenCount() as count:
        learner.outputs(learner.initial, batch)
        assert count.total == sum(len(ids) for text in TEXTS for ids in tokenizer(text.split(MARKER))["input_ids"])
        with TokenCount() as inner:
            learner.outputs(learner.initial, batch)
        learner.outputs(learner.initial, batch)
    assert count.total == 2 * inner.total > 0
    learner.outputs(learner.initial, batch)
    assert count.total == 2 * inner.total and counting() is None
