"""What an adapted language model says after a prompt: transformers' own generation, with the adapted parameters.

The module generates as it stands, its adapted tensors exchanged for as long as that lasts, and put back whatever
happens; so every way of decoding, the cache included, is that of transformers. `metacl.learners.completions` draws
for rewards instead: many answers a prompt, each token's probability differentiable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.func import functional_call

from metacl.errors import ConfigError, DataError
from metacl.learners.base import Params
from metacl.learners.transformer import TransformerLearner
from metacl.registry import Component


class Generation(Component):
    """How text is generated.

    new_tokens : at most so many. beams : 1 for greedy decoding (or sampling), more for beam search.
    temperature : of sampling; null (default) for the likeliest token. top_p : sampled are the likeliest tokens that
    together have this probability (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", sec. 3.1).
    seed : of sampling.
    """

    new_tokens: PositiveInt = 64
    beams: PositiveInt = 1
    temperature: PositiveFloat | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _sampling_or_beams(self) -> Generation:
        if self.temperature is not None and self.beams > 1:
            raise ValueError("beams: beam search is not sampled. Leave out temperature, or set beams to 1")
        if self.temperature is None and self.top_p < 1:
            raise ValueError("top_p: it is for sampling. Set temperature, for example 1.0")
        return self

    def options(self) -> dict[str, Any]:
        """For transformers' `generate`."""
        chosen: dict[str, Any] = {"max_new_tokens": self.new_tokens, "num_beams": self.beams, "do_sample": False}
        if self.temperature is not None:
            chosen.update(do_sample=True, temperature=self.temperature, top_p=self.top_p, top_k=0)
        return chosen


class _Generating(nn.Module):
    """A model whose forward is its `generate`, so that `functional_call` exchanges parameters around it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, **options: Any) -> Tensor:
        return self.model.generate(**options)


def generate(learner: TransformerLearner, params: Params, prompts: Sequence[str], how: Generation) -> list[str]:
    """What a language model with these parameters says after each prompt, without the prompt and special tokens.

    Prompts go one by one, so that what follows one does not depend on the others (nor on padding).

    Raises
    ------
    ConfigError
        The learner shares its batches with other ranks.
    DataError
        A prompt has no token, or does not fit the model's positions together with the new tokens.
    """
    if learner.ranks.size > 1:
        raise ConfigError("learner: text is generated in one process. Set workers.ranks_per_group=1.")
    model = _Generating(learner.adapted.model)
    bound = {f"model.{name}": tensor for name, tensor in learner.bound(params).items()}
    shape = learner.adapted.model.config
    limit = None if shape.is_encoder_decoder else getattr(shape, "max_position_embeddings", None)
    said = []
    devices = [learner.device] if learner.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        for place, prompt in enumerate(prompts):
            read = learner.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False).to(learner.device)
            length = read["input_ids"].shape[1]
            if length == 0:
                raise DataError(f"prompt {place + 1}: it has no token.")
            if limit is not None and learner.adapted.prompt_tokens + length + how.new_tokens > limit:
                raise DataError(
                    f"prompt {place + 1}: {length} tokens and {how.new_tokens} new ones, but the model has {limit} "
                    f"positions. Shorten the prompt, or generate fewer."
                )
            torch.manual_seed(how.seed + place)
            tokens = functional_call(model, bound, (), {**read, **how.options()})[0]
            new = tokens if shape.is_encoder_decoder else tokens[length:]
            said.append(str(learner.tokenizer.decode(new, skip_special_tokens=True)))
    return said
