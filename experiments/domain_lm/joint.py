"""Joint pre-training: the next token, on windows of all training domains in equal parts.

The first half ends at a constant learning rate and is where both starts come from; the second goes on down to zero.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from metacl.tasks import EpisodeShape, TaskAddress
from metacl.tasks.domain_source import DomainEpisodes

SHAPE = EpisodeShape(ways=1, shots=8, queries=8)
TASKS = 4
"""Domains a step, each with the windows of one `SHAPE`: 64 windows."""
SEED = 2**62
LEARNING_RATE, WARMUP = 3e-3, 100
VOCABULARY = 512


def train_tokenizer(source: DomainEpisodes) -> PreTrainedTokenizerFast:
    """Byte-level BPE of the training domains: any text has tokens, those of other languages just more of them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<end>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for texts in source.documents["train"].values() for text in texts), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<end>", eos_token="<end>")


def new_model(vocabulary: int, length: int) -> LlamaForCausalLM:
    """A Llama of half a million parameters, at its random start."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=length,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=0,
            attn_implementation="eager",
        )
    )


def loss_of(model: LlamaForCausalLM, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Nats per token."""
    return model(**batch, labels=batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)).loss


def batches(
    source: DomainEpisodes, tokenizer: PreTrainedTokenizerFast, length: int, steps: range
) -> Iterator[dict[str, torch.Tensor]]:
    """64 windows of `length` tokens a step, a function of the step."""
    for step in steps:
        drawn = [source.episode(TaskAddress("train", SEED, step, index), SHAPE) for index in range(TASKS)]
        texts = [text for episode in drawn for text in (*episode.support_texts, *episode.query_texts)]
        found = tokenizer(texts, truncation=True, max_length=length, padding="max_length", return_tensors="pt")
        yield {name: found[name] for name in ("input_ids", "attention_mask")}


def learning_rate(step: int, half: int) -> float:
    """Warm-up, constant to the end of the first half, then linearly to zero at the end of the second."""
    return LEARNING_RATE * min(1.0, (step + 1) / WARMUP, max(0.0, 2 - step / half))


def train(source: DomainEpisodes, length: int, half: int, half_way: Path, end: Path) -> tuple[float, float]:
    """Train 2 × `half` steps; write the model after the first half and at the end. Returns the seconds of each half."""
    tokenizer = train_tokenizer(source)
    model = new_model(len(tokenizer), length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    seconds, begun = [], time.perf_counter()
    for step, batch in enumerate(batches(source, tokenizer, length, range(2 * half))):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, half)
        loss = loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 200 == 0:
            print(f"joint step {step + 1} of {2 * half}: {loss.item():.3f} nats a token", flush=True)
        if step + 1 in (half, 2 * half):
            folder = half_way if step + 1 == half else end
            tokenizer.save_pretrained(folder)
            model.save_pretrained(folder)
            seconds.append(time.perf_counter() - begun)
            begun = time.perf_counter()
    return seconds[0], seconds[1]
