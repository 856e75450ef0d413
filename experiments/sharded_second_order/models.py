"""Random models of three families, saved to folders as the hub has them, and the one task they are measured on."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from torch import Tensor
from transformers import AutoModel, BertConfig, GPT2Config, LlamaConfig, PreTrainedTokenizerFast

from metacl.adaptation import InnerLoop
from metacl.config import RunConfig, config_from_dict
from metacl.learners import Task, TextClassifierConfig
from metacl.learners.adapter import AdapterConfig
from metacl.learners.base import ADAPTER, MODEL, Learner, Params, as_leaves
from metacl.metagradients import MetaGradient
from metacl.objectives import OBJECTIVES

SYMBOLS = ["[PAD]", "[UNK]", *string.ascii_lowercase, " "]
TARGETS = {"llama": ("q_proj", "v_proj"), "gpt2": ("c_attn",), "bert": ("query", "value")}
WORDS = ["card", "transfer", "pin", "account", "exchange rate", "top up", "refund", "limit"]
LENGTH = 32


def save_model(family: str, width: int, layers: int, folder: Path) -> Path:
    """The model's folder, made if it is not there."""
    if (folder / "tokenizer.json").exists():
        return folder
    size = len(SYMBOLS)
    shapes = {
        "llama": lambda: LlamaConfig(
            vocab_size=size, hidden_size=width, intermediate_size=11 * width // 4, num_hidden_layers=layers,
            num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=64, pad_token_id=0, bos_token_id=0,
            eos_token_id=0,
        ),
        "gpt2": lambda: GPT2Config(
            vocab_size=size, n_embd=width, n_layer=layers, n_head=8, n_positions=64, bos_token_id=0, eos_token_id=0
        ),
        "bert": lambda: BertConfig(
            vocab_size=size, hidden_size=width, num_hidden_layers=layers, num_attention_heads=8,
            intermediate_size=4 * width, max_position_embeddings=64,
        ),
    }  # fmt: skip
    torch.manual_seed(0)
    # In bfloat16, as models from the hub are: what is loaded in float32 then lies in memory, not in the mapped file.
    AutoModel.from_config(shapes[family]()).to(torch.bfloat16).save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({symbol: place for place, symbol in enumerate(SYMBOLS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Split(Regex("."), "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return folder


def learner_config(family: str, folder: Path, all_parameters: bool = False) -> TextClassifierConfig:
    """LoRA of rank 4 in all layers, or every parameter of the model."""
    adapter = None if all_parameters else AdapterConfig(rank=4, targets=TARGETS[family])
    return TextClassifierConfig(model=str(folder), max_length=LENGTH, adapter=adapter, logit_scale=3.0)


def run_config(family: str, folder: Path, ranks: int, all_parameters: bool = False) -> RunConfig:
    """A run of MAML on BANKING77 with the same learner, for groups at ZeRO-3; tiny matrices are sharded, too."""
    zero = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
    return config_from_dict(
        {
            "name": "planned",
            "learner": learner_config(family, folder, all_parameters).to_dict(),
            "data": {"name": "labelled_text", "dataset": "banking77"},
            "episodes": {"ways": 5, "shots": 5, "queries": 2},
            "objective": "maml",
            "estimator": "first_order" if all_parameters else "reverse",
            "inner": {"steps": 3, "step_size": {"value": 0.002}},
            "outer": {"tasks_per_step": 1},
            "workers": {"executor": "ray", "ranks_per_group": ranks, "zero_stage": 3, "deepspeed": zero},
        }
    )


def meta_gradient(learner: Learner, steps: int, estimator: MetaGradient) -> Params:
    """The meta-gradient of a 4-way task with 8 support and 8 query texts of about 20 tokens."""
    every = any(name.startswith(MODEL) for name in learner.initial)
    loop = InnerLoop(steps=steps, step_size={"value": 0.002 if every else 0.01, "head": 0.05})
    objective = OBJECTIVES.build({"name": "proto_maml"})
    generator = torch.Generator().manual_seed(0)
    meta = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator) if name.startswith(ADAPTER) else tensor
        for name, tensor in objective.meta_parameters(learner, loop, 4).items()
    }
    texts = [f"about the {word} of mine {'x' * (place % 5)}" for place, word in enumerate(WORDS)]
    support = learner.encode(texts, [place % 4 for place in range(8)])
    query = learner.encode([text + " please" for text in texts], [place % 4 for place in range(8)])
    problem = objective.problem(learner, as_leaves(meta), Task(4, support, query), loop)
    return estimator.estimate(problem).gradient


def whole(learner: Learner, gradient: Params) -> Tensor:
    """All of it as one vector (P,), also of what lies in parts on the ranks."""
    partition = learner.partition
    joined = {name: partition.ranks.gather(gradient[name])[: s.numel()] for name, s in partition.shapes.items()}
    return torch.cat([tensor.double().flatten() for tensor in {**gradient, **joined}.values()])
