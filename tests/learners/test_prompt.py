"""Prompt tuning: embeddings before every text, against plain transformers and against PEFT alone."""

import json

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from metacl.config import config_from_dict
from metacl.errors import ConfigError
from metacl.learners import CausalLanguageModelConfig
from metacl.learners.adapter import AdapterConfig
from metacl.learners.generation import Generation, generate
from metacl.learners.text_classifier import TextClassifierConfig
from tests.small_models import save_family
from tests.small_runs import small_tree

TEXTS = ["hello there", "is it so? yes", "a b", "where is my card. it is lost"]
PROMPT = AdapterConfig(kind="prompt", tokens=3)
NAME = "adapter.prompt_embeddings"


@pytest.fixture(scope="module", params=["bert", "llama", "gpt2"])
def built(request, tmp_path_factory):
    """The learner, other embeddings than it starts with, the folder of its model."""
    family = request.param
    folder = save_family(family, tmp_path_factory.mktemp(family), causal=family != "bert")
    kind = TextClassifierConfig if family == "bert" else CausalLanguageModelConfig
    learner = kind(model=str(folder), adapter=PROMPT, max_length=40).build(0)
    assert list(learner.initial) == [NAME] and learner.initial[NAME].shape == (3, 32)
    torch.manual_seed(1)
    return learner, {NAME: learner.initial[NAME] + 0.3 * torch.randn(3, 32)}, folder


def plain(folder, kind, prompt, text):
    """What transformers puts out at the places of the text, and its tokens."""
    model = kind.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    words = model.get_input_embeddings()(ids)
    with torch.no_grad():
        return model(inputs_embeds=torch.cat([prompt.unsqueeze(0), words], 1)), ids[0]


def test_it_begins_as_words_of_the_vocabulary(built):
    learner, _, folder = built
    words = AutoModel.from_pretrained(folder).get_input_embeddings().weight.detach()
    assert all((words == token).all(1).any() for token in learner.initial[NAME])


def test_the_text_is_read_after_the_prompt(built):
    learner, params, folder = built
    batch = learner.encode(TEXTS, None)
    classifies = isinstance(learner.config, TextClassifierConfig)
    of = learner.features if classifies else learner.outputs
    with torch.no_grad():
        found = of(params, batch)
        assert not torch.allclose(found, of(learner.initial, batch), rtol=1e-3)
        if classifies:
            outputs = [plain(folder, AutoModel, params[NAME], text)[0].last_hidden_state[0, 3:] for text in TEXTS]
            expected = torch.stack([F.normalize(hidden.mean(0), dim=-1) for hidden in outputs])
        else:
            parts = [plain(folder, AutoModelForCausalLM, params[NAME], text) for text in TEXTS]
            expected = torch.stack([F.cross_entropy(o.logits[0, 3:-1], ids[1:], reduction="sum") for o, ids in parts])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_peft_reads_what_is_stored(built, tmp_path):
    learner, params, folder = built
    (tmp_path / "adapter_config.json").write_text(json.dumps(learner.peft_config()))
    stored = {name.removeprefix("adapter."): tensor for name, tensor in params.items()}
    save_file(stored, tmp_path / "adapter_model.safetensors")
    classifies = isinstance(learner.config, TextClassifierConfig)
    base = (AutoModel if classifies else AutoModelForCausalLM).from_pretrained(folder, attn_implementation="eager")
    model = PeftModel.from_pretrained(base, tmp_path).eval()
    ids = learner.tokenizer(TEXTS[1], return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        output = model(**ids)
        if classifies:
            expected = F.normalize(output.last_hidden_state[0, 3:].mean(0), dim=-1)
            torch.testing.assert_close(learner.features(params, learner.encode([TEXTS[1]], None))[0], expected)
            return
        tokens = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    said = learner.tokenizer.decode(tokens, skip_special_tokens=True)
    assert generate(learner, params, [TEXTS[1]], Generation(new_tokens=8)) == [said]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learner__padding": "packed"}, "packed puts several texts into a row"),
        ({"workers": {"executor": "ray", "zero_stage": 3}}, "a prompt comes before the embeddings"),
        ({"learner__adapter": {"kind": "prompt", "last_layers": 1}}, "a prompt goes through all layers"),
        ({"learner__name": "seq2seq_lm", "learner__logit_scale": None}, "prompt is for text_classifier and causal_lm"),
    ],
)
def test_what_does_not_go_together(changes, message, tmp_path):
    tree = small_tree("model", tmp_path, **{"learner__adapter": {"kind": "prompt"}, **changes})
    tree["learner"] = {key: value for key, value in tree["learner"].items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        config_from_dict(tree)


def test_the_prompt_needs_positions(built):
    learner, _, _ = built
    limit = learner.adapted.model.config.max_position_embeddings
    with pytest.raises(ConfigError, match=rf"{limit - 2} tokens and 3 of the prompt before them, but .* has {limit}"):
        learner.config.model_copy(update={"max_length": limit - 2}).build(0)
