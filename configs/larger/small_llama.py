"""Makes the small language model that the configs here adapt: a byte-level Llama, trained jointly for a few minutes.

    python configs/larger/small_llama.py configs/larger/lm_domains.yaml

It is trained on the training split of the config's data and written to the config's learner.model. No weights can be
fetched without a network; with one, put a hub id there instead.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from metacl import load_config
from metacl.tasks import EpisodeShape, TaskAddress

LENGTH, BATCHES = 256, 4
"""Bytes of a text, and tasks a step whose texts are trained on together."""


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte, and one for padding and the end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: place for place, symbol in enumerate(["<end>", *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<end>", eos_token="<end>")


def main() -> None:
    """Writes the model where the config looks for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    folder = Path(config.learner.model)
    if folder.exists():
        sys.exit(f"{folder} is there already.")
    source, tokenizer = config.data.open(), byte_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=1024,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=0,
            tie_word_embeddings=True,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=arguments.steps)
    for step in range(arguments.steps):
        shape = EpisodeShape(ways=1, shots=2, queries=2)
        drawn = [source.episode(TaskAddress("train", 2**62, step, index), shape) for index in range(BATCHES)]
        texts = [text for episode in drawn for text in (*episode.support_texts, *episode.query_texts)]
        batch = tokenizer(texts, truncation=True, max_length=LENGTH, padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0 or step == arguments.steps - 1:
            print(f"step {step}: {loss.item():.3f} nats a byte", flush=True)
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
