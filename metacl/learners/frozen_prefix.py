"""The frozen prefix of a transformer, computed once per task.

Below the first adapted layer nothing changes during the inner loop, so the activations that enter that
layer are computed once and reused in every inner step and in the walk back. The model's own forward still
runs each time (it builds masks and positions); the layers below just hand the stored activations on.
The model is changed while that lasts: one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class _ReachedFirstAdaptedLayer(Exception):
    """Ends the prefix's forward early, carrying the activations."""

    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden


class FrozenPrefix:
    """Splits a model's forward at its first adapted layer.

    Parameters
    ----------
    model : nn.Module
        A transformer whose repeated layers stand in one `nn.ModuleList`, take the hidden states as first
        argument and return them as a tensor.
    adapted : iterable of str
        Names of the adapted parameters. If one lies outside the layers, there is no prefix.
    """

    def __init__(self, model: nn.Module, adapted: Iterable[str]) -> None:
        path, layers = transformer_layers(model)
        self._layers = layers
        self.first = _first_adapted(path, list(adapted)) if layers is not None else 0

    def compute(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor | None:
        """The activations (B, L, D) that enter the first adapted layer, or None if it is the lowest."""
        if self.first == 0 or self._layers is None:
            return None

        def stop(_module: nn.Module, args: tuple[Any, ...]) -> None:
            raise _ReachedFirstAdaptedLayer(args[0])

        handle = self._layers[self.first].register_forward_pre_hook(stop)
        try:
            with torch.no_grad():
                model(**inputs)
        except _ReachedFirstAdaptedLayer as reached:
            return reached.hidden.detach()
        finally:
            handle.remove()
        raise AssertionError("the model's forward never reached its first adapted layer")

    @contextmanager
    def reuse(self, prefix: Tensor | None) -> Iterator[None]:
        """Within this context the layers below the first adapted one return `prefix` without computing."""
        if prefix is None or self._layers is None:
            yield
            return
        below = list(self._layers)[: self.first]

        def stored(*_args: Any, **_kwargs: Any) -> Tensor:
            return prefix

        try:
            for layer in below:
                layer.forward = stored
            yield
        finally:
            for layer in below:
                layer.__dict__.pop("forward", None)  # the class's own forward shows again


def transformer_layers(model: nn.Module) -> tuple[str, nn.ModuleList | None]:
    """The list of repeated layers (the longest `ModuleList` of one class) and its dotted path."""
    best: tuple[str, nn.ModuleList | None] = ("", None)
    for path, module in model.named_modules():
        alike = isinstance(module, nn.ModuleList) and len({type(child) for child in module}) == 1
        if alike and (best[1] is None or len(module) > len(best[1])):
            best = (path, module)
    return best


def _first_adapted(path: str, adapted: list[str]) -> int:
    inside = [name.removeprefix(path + ".") for name in adapted if name.startswith(path + ".")]
    if not inside or len(inside) < len(adapted):
        return 0
    return min(int(name.split(".", 1)[0]) for name in inside)
