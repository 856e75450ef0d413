"""A small smooth problem in float64 that has every dependence a task can have, for all estimators."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from metacl.adaptation import SGD, Adam, AdamW, InnerLoop, InnerOptimizer
from metacl.learners.base import Params
from metacl.metagradients import InnerProblem

EXAMPLES = 7
"""No other tensor has this many rows, so network activations can be told by it."""

INNER = {
    "adapter.0.w": torch.Size((5, 4)),
    "adapter.0.b": torch.Size((5,)),
    "head.weight": torch.Size((3, 5)),
    "head.bias": torch.Size((3,)),
}

LEARN = ["none", "scalar", "layer", "layer_and_step", "tensor", "tensor_and_step", "parameter"]
"""What can share a learned step size."""

RULES: dict[str, tuple[InnerOptimizer, Any, dict[str, Any]]] = {
    "sgd": (SGD(), torch.optim.SGD, {}),
    "momentum": (SGD(momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (SGD(momentum=0.9, nesterov=True), torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (Adam(), torch.optim.Adam, {}),
    "adamw": (AdamW(weight_decay=0.125), torch.optim.AdamW, {"weight_decay": 0.125}),
}


def loop_of(rule: str, steps: int, learn: str) -> InnerLoop:
    # Values that float32 holds exactly (products with the weight decay, too), and smaller ones where a step is
    # about η whatever the gradient.
    value, head = (0.03125, 0.0625) if rule.startswith("adam") else (0.125, 0.25)
    return InnerLoop(steps=steps, optimizer=RULES[rule][0], step_size={"value": value, "head": head, "learn": learn})


def problem_of(loop: InnerLoop, dtype: torch.dtype = torch.float64) -> InnerProblem:
    """Three classes; a tanh layer that adapts, a head started from class means, and a temperature that does not adapt.

    The support loss pulls θ towards φ and differs from step to step; the query loss looks at φ directly, too.
    """
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)

    support, query = normal(EXAMPLES, 4), normal(EXAMPLES, 4)
    targets = torch.tensor([0, 1, 2, 0, 1, 2, 2])
    members = F.one_hot(targets, 3).to(dtype)
    meta: Params = {"adapter.0.w": 0.5 * normal(5, 4), "adapter.0.b": 0.1 * normal(5), "temperature": 0.3 * normal()}
    meta.update({name: size.double() for name, size in loop.step_size.initial(INNER, loop.steps).items()})
    for name in meta:  # away from the equal initial values, so that mixing up steps or tensors shows
        if name.startswith("step_size."):
            meta[name] = meta[name] * (1 + 0.2 * torch.rand(meta[name].shape, dtype=torch.float64, generator=generator))
    meta = {name: tensor.to(dtype).requires_grad_() for name, tensor in meta.items()}

    def features(params: Params, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(F.linear(x, params["adapter.0.w"], params["adapter.0.b"]))

    def error(theta: Params, phi: Params, x: torch.Tensor) -> torch.Tensor:
        logits = F.linear(features(theta, x), theta["head.weight"], theta["head.bias"])
        return F.cross_entropy(phi["temperature"].exp() * logits, targets)

    def start(phi: Params) -> Params:
        means = members.T @ features(phi, support) / members.sum(0).unsqueeze(-1)
        return {
            "adapter.0.w": phi["adapter.0.w"],
            "adapter.0.b": phi["adapter.0.b"],
            "head.weight": 2 * means,
            "head.bias": -(means * means).sum(-1),
        }

    def support_loss(theta: Params, phi: Params, step: int) -> torch.Tensor:
        pull = ((theta["adapter.0.w"] - phi["adapter.0.w"]) ** 2).sum()
        return (1 + 0.1 * step) * error(theta, phi, support) + 0.2 * pull

    def query_loss(theta: Params, phi: Params) -> torch.Tensor:
        return error(theta, phi, query) + 0.05 * (phi["adapter.0.w"] ** 2).sum()

    return InnerProblem(meta, start, support_loss, query_loss, loop)


def rate_by_hand(loop: InnerLoop, meta: Params, name: str, step: int) -> torch.Tensor:
    """The step size of a tensor, read from the meta-parameters without `StepSizes.at`."""
    value = loop.step_size.head if name.startswith("head.") else loop.step_size.value
    layer = "head" if name.startswith("head.") else "adapter.0"
    rate = {
        "none": lambda: torch.tensor(value, dtype=torch.float64),
        "scalar": lambda: value * meta["step_size.factor"],
        "layer": lambda: meta[f"step_size.{layer}"],
        "layer_and_step": lambda: meta[f"step_size.{layer}"][step],
        "tensor": lambda: meta[f"step_size.{name}"],
        "tensor_and_step": lambda: meta[f"step_size.{name}"][step],
        "parameter": lambda: meta[f"step_size.{name}"],
    }[loop.step_size.learn]()
    return rate.detach()


def adapted_query_loss(problem: InnerProblem, rule: str, meta: Params) -> float:
    """L_Q(θ_K) with torch's own optimizer doing the steps.

    It steps with size 1 and the displacement is scaled, because its own step sizes are one number a tensor.
    """
    _, kind, options = RULES[rule]
    meta = {name: tensor.detach() for name, tensor in meta.items()}
    theta = {name: tensor.detach().clone().requires_grad_() for name, tensor in problem.start(meta).items()}
    optimizer = kind([{"params": [leaf], "lr": 1.0} for leaf in theta.values()], **options)
    for step in range(problem.loop.steps):
        before = {name: leaf.detach().clone() for name, leaf in theta.items()}
        optimizer.zero_grad()
        problem.support_loss(theta, meta, step).backward()
        optimizer.step()
        for name, leaf in theta.items():
            rate = rate_by_hand(problem.loop, meta, name, step)
            leaf.data = before[name] + rate * (leaf.data - before[name])
    return float(problem.query_loss(theta, meta).detach())


def relative_error(found: Params, expected: Params) -> float:
    """Largest difference, relative to the largest number expected of the same tensor's family."""
    assert list(found) == list(expected)
    errors = []
    for family in ("step_size.", ""):
        names = [name for name in expected if name.startswith("step_size.") == (family != "")]
        if names:
            scale = max(float(expected[name].abs().max()) for name in names)
            difference = max(float((found[name] - expected[name]).abs().max()) for name in names)
            errors.append(difference / scale if scale else difference)
    return max(errors)


def scalar_problem(loop: InnerLoop, support: Any, query: Any, start: float) -> InnerProblem:
    """One number x as θ and φ. `support` and `query` are functions of it."""
    meta = {"x": torch.tensor(start, dtype=torch.float64)}
    sizes = loop.step_size.initial({"x": torch.Size(())}, loop.steps)
    meta.update({name: size.double() for name, size in sizes.items()})
    return InnerProblem(
        meta={name: tensor.requires_grad_() for name, tensor in meta.items()},
        start=lambda phi: {"x": phi["x"]},
        support_loss=lambda theta, phi, k: support(theta["x"]),
        query_loss=lambda theta, phi: query(theta["x"]),
        loop=loop,
    )
