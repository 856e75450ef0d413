"""Attaching a PEFT adapter to a frozen model, and the names its tensors are known by.

PEFT stores ``…lora_A.weight`` and holds ``…lora_A.default.weight``; we use the stored names, with the family
prefix ``adapter.``, so that an exported initialization is what `peft` writes itself.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PromptTuningConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from pydantic import PositiveInt, field_validator, model_validator
from torch import nn

from metacl.errors import ConfigError
from metacl.learners.adapted import Adapted
from metacl.learners.base import ADAPTER
from metacl.learners.frozen_prefix import transformer_layers
from metacl.registry import Component

PROMPT = "prompt_encoder.default.embedding.weight"
"""The name by which PEFT holds a prompt's embeddings."""


class AdapterConfig(Component):
    """Which adapter is attached, and where.

    kind : "lora", two low-rank factors (Hu et al. 2021, "LoRA", eq. 3), or "ia3", a factor for every output of a module
    (Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper", sec. 3.3), or "prompt", `tokens`
    embeddings before every text, which begin as those of random words (Lester et al. 2021, "The Power of Scale for
    Parameter-Efficient Prompt Tuning", sec. 2.1).
    rank : r of LoRA's two factors. alpha : its update is scaled by alpha / rank.
    targets : names of the linear modules to adapt. last_layers : adapt the top ones only; null for all.
    """

    kind: Literal["lora", "ia3", "prompt"] = "lora"
    rank: PositiveInt = 8
    alpha: PositiveInt = 16
    tokens: PositiveInt = 10
    targets: tuple[str, ...] = ("query", "value")
    last_layers: PositiveInt | None = None

    @field_validator("kind", mode="before")
    @classmethod
    def _no_prefix(cls, kind: object) -> object:
        if kind in ("prefix", "prefix_tuning"):
            raise ValueError(
                f"{kind} does not adapt plain parameters: PEFT trains prompt_encoder's, stores prompt_embeddings made "
                f"from them, and hands them over as cached keys, which an encoder takes no gradient from. "
                f"Set learner.adapter.kind=lora, ia3, or prompt"
            )
        return kind

    @model_validator(mode="after")
    def _all_layers_but_for_lora(self) -> AdapterConfig:
        if self.kind != "lora" and self.last_layers is not None:
            what = "ia3 adapts all layers" if self.kind == "ia3" else "a prompt goes through all layers"
            raise ValueError(f"learner.adapter.last_layers: {what}; leave it out, or set kind=lora")
        return self

    @property
    def prompt_tokens(self) -> int:
        """How many positions of the model it takes before every text."""
        return self.tokens if self.kind == "prompt" else 0

    def attach(self, model: nn.Module, seed: int) -> AdaptedModel:
        """Freeze `model` and attach the adapter; its random numbers depend on `seed` alone."""
        model.requires_grad_(False)
        _, layers = transformer_layers(model)
        depth = len(layers) if layers is not None else 0
        if self.last_layers is not None and self.last_layers > depth:
            raise ConfigError(
                f"learner.adapter.last_layers: {self.last_layers} asked for, but the model has {depth} layers."
            )
        chosen = None if self.last_layers is None else list(range(depth - self.last_layers, depth))
        adapter: PeftConfig = IA3Config(target_modules=list(self.targets), feedforward_modules=[])
        if self.kind == "lora":
            adapter = LoraConfig(
                r=self.rank, lora_alpha=self.alpha, target_modules=list(self.targets), layers_to_transform=chosen
            )
        if self.kind == "prompt":
            # PEFT has a class of its own for each task, and by it knows how the prompt goes before the text.
            task = "CAUSAL_LM" if getattr(model, "can_generate", bool)() else "FEATURE_EXTRACTION"
            adapter = PromptTuningConfig(
                task_type=task, num_virtual_tokens=self.tokens, prompt_tuning_init="SAMPLE_VOCAB"
            )
        try:
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                # peft reads a property of the model that transformers has renamed; nothing of ours.
                warnings.simplefilter("ignore", FutureWarning)
                torch.manual_seed(seed)
                peft_model = get_peft_model(model, adapter)
        except ValueError as error:
            linears = sorted({name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)})
            raise ConfigError(
                f"learner.adapter.targets: {', '.join(self.targets)} cannot be adapted in this model "
                f"({str(error).splitlines()[0]}). Its linear modules: {', '.join(linears)}."
            ) from None
        return AdaptedModel(peft_model, self.prompt_tokens)


class AdaptedModel(Adapted):
    """A PEFT model and the map between our names and its parameters."""

    def __init__(self, model: PeftModel, prompt_tokens: int) -> None:
        stored = get_peft_model_state_dict(model)
        held = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        ours = {ADAPTER + name.replace(".default.", ".").removesuffix(".default"): name for name in sorted(held)}
        if prompt_tokens:  # stored under another name than held, and the same tensor
            ours = {f"{ADAPTER}prompt_embeddings": PROMPT}
        super().__init__(model, ours)
        self.prompt_tokens = prompt_tokens
        if set(self.module_names) != {ADAPTER + name for name in stored}:
            raise ConfigError(
                "learner.adapter: PEFT stores other tensors of this adapter than it trains; not supported."
            )

    def peft_config(self, base_model: str) -> dict[str, Any]:
        """adapter_config.json for inference, with `base_model` as the model it belongs to."""
        config = self.model.peft_config["default"].to_dict()
        plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
        plain.update(base_model_name_or_path=base_model, inference_mode=True)
        return {key: getattr(value, "value", value) for key, value in plain.items()}
