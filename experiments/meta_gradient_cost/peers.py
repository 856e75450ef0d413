"""The same gradient by the libraries one would otherwise take, each at its best.

learn2learn, Betty and `higher` differentiate through a module's own parameters, and cloning or patching a whole PEFT
model costs them time and memory (`higher` cannot do it at all). So they are given a bare module that holds nothing but
the parameters that adapt, and the model as a pure function: less than their users pay. `higher` itself stands in metacl
as the estimator `unrolled`, in just this way.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from models import Case
from torch import Tensor, nn

from metacl.learners import Params
from metacl.metagradients import InnerProblem

LEARN2LEARN_SOURCE = Path(sys.prefix) / "src" / "learn2learn"
"""Where run.sh unpacks learn2learn, which does not install (see README.md)."""


class Holder(nn.Module):
    """θ as the module's parameters; calling it returns θ by name."""

    def __init__(self, theta: Params) -> None:
        super().__init__()
        self.names = list(theta)
        self.values = nn.ParameterList([nn.Parameter(tensor.detach().clone()) for tensor in theta.values()])

    def forward(self) -> Params:
        """The parameters as they are now."""
        return dict(zip(self.names, self.values.parameters(), strict=True))


def learn2learn(problem: InnerProblem, rate: float) -> Params:
    """`MAML(...).clone()` and `.adapt(loss)`; the clone starts from θ_0 with its graph."""
    maml = _learn2learn_maml()
    start = problem.start(problem.meta)
    clone = maml(Holder(start), lr=rate).clone()
    for key, tensor in zip(list(clone.module.values._parameters), start.values(), strict=True):
        clone.module.values._parameters[key] = tensor.clone()
    for step in range(problem.loop.steps):
        clone.adapt(problem.support_loss(clone(), problem.meta, step))
    return _gradient(problem.query_loss(clone(), problem.meta), problem.meta)


def torchopt(problem: InnerProblem, rate: float) -> Params:
    """TorchOpt's functional optimizer on a tuple of tensors."""
    import torchopt as library

    start = problem.start(problem.meta)
    optimizer = library.FuncOptimizer(library.sgd(lr=rate))
    theta = tuple(tensor.clone() for tensor in start.values())
    for step in range(problem.loop.steps):
        loss = problem.support_loss(dict(zip(start, theta, strict=True)), problem.meta, step)
        theta = optimizer.step(loss, theta)
    return _gradient(problem.query_loss(dict(zip(start, theta, strict=True)), problem.meta), problem.meta)


def vmap(case: Case) -> Params:
    """`torch.func`: one task as a function, vmap over the tasks, one gradient of their mean."""
    batched = case.batched
    assert batched is not None, "this case has tasks of different shapes"

    def query_loss(phi: Params, support: tuple[Tensor, ...], query: tuple[Tensor, ...]) -> Tensor:
        theta = phi
        for _ in range(case.steps):
            grads = torch.func.grad(batched.loss)(theta, support)
            theta = {name: value - case.rate * grads[name] for name, value in theta.items()}
        return batched.loss(theta, query)

    def mean(phi: Params) -> Tensor:
        return torch.func.vmap(query_loss, in_dims=(None, 0, 0))(phi, batched.support, batched.query).mean()

    return torch.func.grad(mean)({name: tensor.detach() for name, tensor in case.meta.items()})


def betty(case: Case) -> Params:
    """Betty's engine: an unrolled lower problem that starts from the upper one's parameters, tasks accumulated."""
    from betty.configs import Config, EngineConfig
    from betty.engine import Engine
    from betty.problems import ImplicitProblem, IterativeProblem

    gradient: Params = {}
    tasks = iter(case.plain)

    class Upper(ImplicitProblem):
        def training_step(self, batch: Any) -> Tensor:
            return self.lower.problem.query_loss(self.lower.theta(), self.lower.phi)

        def get_batch(self) -> tuple[()]:
            return ()

        def optimizer_step(self) -> None:
            for name, parameter in self.module().items():
                gradient[name] = parameter.grad.detach().clone()

    class Lower(IterativeProblem):
        def on_inner_loop_start(self) -> None:
            self.problem, self.taken = next(tasks), 0
            self.phi = self.upper.module()
            self.start = self.problem.start(self.phi)
            self.params = tuple(tensor.clone() for tensor in self.start.values())
            # Betty's SGD keeps the last gradient with its graph, with momentum 0 too.
            self.optimizer.state = [{} for _ in self.params]

        def theta(self) -> Params:
            return dict(zip(self.start, self.params, strict=True))

        def training_step(self, batch: Any) -> Tensor:
            self.taken += 1
            return self.problem.support_loss(self.theta(), self.phi, self.taken - 1)

        def get_batch(self) -> tuple[()]:
            return ()

    outer = Holder(case.meta)
    inner = Holder(case.plain[0].start(case.meta))
    upper = Upper(
        name="upper",
        config=Config(first_order=False, gradient_accumulation=len(case.plain)),
        module=outer,
        optimizer=torch.optim.SGD(outer.parameters(), lr=0.0),
        device=next(iter(case.meta.values())).device,
    )
    lower = Lower(
        name="lower",
        config=Config(unroll_steps=case.steps, retain_graph=True),
        module=inner,
        optimizer=torch.optim.SGD(inner.parameters(), lr=case.rate),
        device=next(iter(case.meta.values())).device,
    )
    steps = case.steps * len(case.plain)
    engine = Engine(
        problems=[upper, lower],
        config=EngineConfig(train_iters=steps, valid_step=steps + 1),
        dependencies={"u2l": {upper: [lower]}, "l2u": {lower: [upper]}},
    )
    engine.run()
    return gradient


def available(library: str) -> None:
    """Raise whatever keeps a library from being imported."""
    _learn2learn_maml() if library == "learn2learn" else import_module(library)


def _gradient(loss: Tensor, meta: Params) -> Params:
    return dict(zip(meta, torch.autograd.grad(loss, list(meta.values())), strict=True))


def _learn2learn_maml() -> Any:
    """The class MAML without the packages' `__init__`, which import gym, torchvision and compiled data loaders."""
    if "learn2learn" not in sys.modules:
        for name in ("learn2learn", "learn2learn.algorithms"):
            package = ModuleType(name)
            package.__path__ = [str(LEARN2LEARN_SOURCE.joinpath(*name.split(".")[1:]))]
            sys.modules[name] = package
    from learn2learn.algorithms.maml import MAML

    return MAML
