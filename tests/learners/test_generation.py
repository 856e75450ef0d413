"""Generation with adapted parameters, against transformers' `generate` on a model whose weights are those."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from metacl.errors import DataError
from metacl.learners import CausalLanguageModelConfig
from metacl.learners.adapter import AdapterConfig
from metacl.learners.generation import Generation, generate
from tests.small_models import save_family

PROMPTS = ["hello", "is it so? yes", "a"]
WAYS = {
    "greedy": ({"new_tokens": 12}, {"do_sample": False}),
    "beams": ({"new_tokens": 9, "beams": 3}, {"do_sample": False, "num_beams": 3}),
    "sampling": (
        {"new_tokens": 12, "temperature": 0.8, "top_p": 0.9, "seed": 5},
        {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "top_k": 0},
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_family("llama", tmp_path_factory.mktemp("llama"), causal=True)


def learner_of(folder, adapter):
    return CausalLanguageModelConfig(model=str(folder), adapter=adapter, max_length=32).build(0)


def moved(learner):
    """Parameters far enough from the model's own that it says something else."""
    torch.manual_seed(1)
    return {name: tensor + 0.3 * torch.randn(tensor.shape) for name, tensor in learner.initial.items()}


def said_by_transformers(model, folder, seed, options):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for place, prompt in enumerate(PROMPTS):
        ids = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        torch.manual_seed(seed + place)
        tokens = model.generate(**ids, **options)[0, ids["input_ids"].shape[1] :]
        found.append(tokenizer.decode(tokens, skip_special_tokens=True))
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("whole", [False, True], ids=["adapter", "whole model"])
def test_it_is_what_transformers_says_with_those_weights(folder, way, whole):
    adapter = None if whole else AdapterConfig(rank=2, targets=("q_proj", "v_proj", "down_proj"))
    learner = learner_of(folder, adapter)
    params = moved(learner)
    chosen, options = WAYS[way]
    how = Generation(**chosen)
    before = generate(learner, learner.initial, PROMPTS, how)
    found = generate(learner, params, PROMPTS, how)
    assert found != before == generate(learner, learner.initial, PROMPTS, how)  # the module is as it was

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if not whole:
        model = PeftModel(model, learner.adapted.model.peft_config["default"]).eval()
    names = learner.adapted.module_names
    with torch.no_grad():
        held = dict(model.named_parameters())
        for name, tensor in params.items():
            held[names[name]].copy_(tensor)
    assert found == said_by_transformers(model, folder, how.seed, {"max_new_tokens": how.new_tokens, **options})


def test_the_module_is_restored_and_the_numbers_of_others_are_left_alone(folder):
    learner = learner_of(folder, None)
    held = {name: tensor.clone() for name, tensor in learner.adapted.model.named_parameters()}
    params = moved(learner)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    generate(learner, params, PROMPTS, Generation(new_tokens=3, temperature=1.0))
    with pytest.raises(DataError, match=r"prompt 2: 61 tokens and 9 new ones, but the model has 64 positions"):
        generate(learner, params, ["a", 61 * "a"], Generation(new_tokens=9))
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(tensor, held[name]) for name, tensor in learner.adapted.model.named_parameters())


def test_seeds_draw_differently(folder):
    learner = learner_of(folder, None)
    one, two, same = (
        generate(learner, learner.initial, PROMPTS, Generation(new_tokens=20, temperature=2.0, seed=seed))
        for seed in (1, 2, 1)
    )
    assert one == same != two


@pytest.mark.parametrize(
    ("options", "message"),
    [({"beams": 2, "temperature": 1.0}, "beam search is not sampled"), ({"top_p": 0.5}, "Set temperature")],
)
def test_ways_that_exclude_each_other(options, message):
    with pytest.raises(ValueError, match=message):
        Generation(**options)
