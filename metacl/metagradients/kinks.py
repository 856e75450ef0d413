"""The parts of a network whose gradient jumps, so that a difference of gradients across the jump means nothing.

Measured: finite-difference Hessian products through ReLU or max pooling are off by more than 0.66 relative, in
float64 too. What is called as a function inside a forward (`torch.relu(x)`) leaves no trace here and is not found.
"""

from __future__ import annotations

from torch import nn

KINKED = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.SELU,
    nn.Threshold,
    nn.Hardtanh,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardshrink,
    nn.Softshrink,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
)
"""torch's modules with a jump in the first derivative. ELU is one only where its alpha is not 1."""

KINKED_NAMES = frozenset({"relu", "relu6", "leaky_relu", "prelu", "rrelu", "selu", "hardtanh", "hardswish"})
"""Activations as transformers configs name them; "relu2" has a continuous gradient and is not one."""

ACTIVATION_KEYS = ("hidden_act", "hidden_activation", "activation_function", "activation", "dense_act_fn")


def kinks(module: nn.Module) -> list[str]:
    """What has kinks in `module`, in words and without repetition: "ReLU (at features.1, features.4)"."""
    places: dict[str, list[str]] = {}
    for path, part in module.named_modules():
        if isinstance(part, KINKED) or (isinstance(part, nn.ELU) and part.alpha != 1.0):
            places.setdefault(type(part).__name__, []).append(path or "the module itself")
        config = getattr(part, "config", None)
        for key in ACTIVATION_KEYS:
            name = getattr(config, key, None)
            if isinstance(name, str) and name in KINKED_NAMES:
                where = places.setdefault(name, [])
                where += [f"config.{key}"] if f"config.{key}" not in where else []
    return [f"{kind} (at {_shortened(where)})" for kind, where in places.items()]


def _shortened(places: list[str], most: int = 3) -> str:
    more = len(places) - most
    return ", ".join(places[:most]) + (f" and {more} more" if more > 0 else "")
