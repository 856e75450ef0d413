"""What of a model adapts, and by which names: here all of it; `metacl.learners.adapter` has PEFT's adapters.

A parameter is known as ``model.`` and its name in the transformers model. Tied parameters are one, by the first of
their names. A pooler is no part of it: no learner asks for its output, and files may lack it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metacl.errors import ConfigError
from metacl.learners.base import MODEL, Params


class Adapted:
    """A model and the map between our names and its parameters. This one: every parameter adapts.

    Attributes
    ----------
    module_names : our name -> name in the model
    shapes : our name -> shape of the whole
        Of those of which a rank holds a part only.
    prompt_tokens : int
        Positions that come before those of a text in what the model puts out.
    """

    prompt_tokens = 0

    def __init__(self, model: nn.Module, module_names: Mapping[str, str]) -> None:
        self.model: Any = model
        self.module_names = module_names
        self.shapes: Mapping[str, torch.Size] = {}

    def initial(self) -> Params:
        """What adapts, as the model starts with it, by our names in sorted order. Tensors are the model's own."""
        held = dict(self.model.named_parameters())
        return {name: held[self.module_names[name]].detach().cpu() for name in sorted(self.module_names)}

    def bind(self, params: Params) -> Params:
        """Our named tensors under the names the module knows, for `torch.func.functional_call`."""
        return {module_name: params[name] for name, module_name in self.module_names.items()}

    def input_embeddings(self, bound: Params) -> Tensor:
        """The table of word embeddings, given what is bound."""
        table = self.model.get_input_embeddings().weight
        name = next(name for name, parameter in self.model.named_parameters() if parameter is table)
        return bound.get(name, table)

    def peft_config(self, base_model: str) -> dict[str, Any]:
        """Raises `ConfigError`: there is no adapter."""
        raise ConfigError(f"learner.adapter: {base_model} adapts as a whole and has no PEFT adapter.")


def adapting_names(model: nn.Module) -> list[str]:
    """Names in the model of the parameters that adapt where all do."""
    return [name for name, _ in model.named_parameters() if not is_pooler(name)]


def is_pooler(name: str) -> bool:
    """Whether this is a parameter of a pooler, which nothing here asks for."""
    return name.startswith("pooler.")


def whole_model(model: nn.Module) -> Adapted:
    """All of a model that this process holds whole."""
    names = adapting_names(model)
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return Adapted(model, {MODEL + name: name for name in sorted(names)})
