"""`metacl adapt` and `metacl predict` for a language model: it says what PEFT and transformers say."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import metacl
from metacl.config import config_from_dict
from metacl.errors import ConfigError, DataError
from tests.small_models import save_family

ROWS = [{"prompt": 3 * a, "completion": 4 * b} for a in "abcdef" for b in "gh"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The model's folder, the run's and a file of prompts with completions."""
    folder = tmp_path_factory.mktemp("language")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    model = save_family("llama", folder / "llama", causal=True)
    tree = {
        "name": "prompts",
        "output": str(folder / "run"),
        "learner": {
            "name": "causal_lm",
            "model": str(model),
            "max_length": 16,
            "completion_after": ". ",
            "adapter": {"rank": 4, "targets": ["q_proj", "v_proj", "down_proj"]},
        },
        "data": {"name": "prompt_completion", "path": str(folder / "rows.jsonl"), "marker": ". "},
        "episodes": {"ways": 1, "shots": 3, "queries": 2},
        "objective": "maml",
        "inner": {"steps": 3, "step_size": {"value": 0.5}},
        "outer": {"steps": 2, "tasks_per_step": 1},
        "workers": {"executor": "local"},
    }
    metacl.train(config_from_dict(tree))
    return model, folder / "run", folder / "rows.jsonl"


def test_adapted_it_says_what_peft_and_transformers_say(run, trained, tmp_path):
    model, initialization, rows = trained
    code, message = run("adapt", initialization, "--data", rows, "--steps", "5", "--output", tmp_path / "m")
    assert code == 0 and "adapted to 12 texts" in message, message
    code, message = run("predict", tmp_path / "m", "--text", "ccc", "--text", "a", "--new-tokens", "6", "--json")
    assert code == 0, message

    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), tmp_path / "m").eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    for line, text in zip(message.strip().replace("} {", "}\n{").splitlines(), ("ccc", "a"), strict=True):
        ids = tokenizer(f"{text}. ", return_tensors="pt", return_token_type_ids=False)
        tokens = adapted.generate(**ids, max_new_tokens=6, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert json.loads(line) == {"text": text, "said": tokenizer.decode(tokens, skip_special_tokens=True)}


def test_adapting_lowers_the_loss(trained):
    _, initialization, _ = trained
    start = metacl.load_initialization(initialization)
    losses = start.adapt_to_texts(["aaa. gggg", "bbb. gggg"], steps=6).support_losses
    assert losses[-1] < losses[0] - 0.1
    assert torch.isfinite(torch.tensor(losses)).all()


def test_mistakes(run, trained, tmp_path):
    _, initialization, rows = trained
    code, message = run("adapt", initialization, "--data", rows, "--label-column", "x", "--output", tmp_path / "m")
    assert code == 2 and "read as in its training" in message
    code, message = run("adapt", initialization, "--data", tmp_path / "none.jsonl", "--output", tmp_path / "m")
    assert code == 2 and "no such file" in message
    assert not (tmp_path / "m").exists()
    assert run("adapt", initialization, "--data", rows, "--output", tmp_path / "m")[0] == 0
    code, message = run("predict", tmp_path / "m", "--text", "a", "--beams", "0")
    assert code == 2 and "--beams" in message and "greater than 0" in message
    code, message = run("predict", tmp_path / "m", "--text", "a", "--new-tokens", "99")
    assert code == 2 and "prompt 1: 3 tokens and 99 new ones" in message
    start = metacl.load_initialization(initialization)
    with pytest.raises(ConfigError, match="Use adapt_to_texts"):
        start.adapt(["a. b", "b. a"], ["x", "y"])
    with pytest.raises(DataError, match="no texts to adapt to"):
        start.adapt_to_texts([])
