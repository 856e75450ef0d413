"""Fine-tuning the pretrained model on the support set, as one would without any meta-learning."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from metacl.adaptation import InnerLoop
from metacl.errors import ConfigError
from metacl.evaluation.methods.base import METHODS, AdaptationMethod, Examples, Predictor, Row, Scene
from metacl.learners import LEARNERS
from metacl.learners.base import CPU, HEAD, Learner, Params, Task
from metacl.learners.transformer import TransformerConfig
from metacl.metagradients import plain_gradient, trajectory
from metacl.objectives import ProtoMAML

ADAPTERS: dict[str, Any] = {
    "full": None,
    "last_layers": None,
    "lora": {"kind": "lora", "rank": 8, "alpha": 16},
    "ia3": {"kind": "ia3"},
}
"""What is tuned -> the learner's adapter; null for all parameters. It targets what the run's own adapter does."""
IN_WORDS = {"full": "all parameters", "last_layers": "last layers", "lora": "LoRA", "ia3": "IA3"}


class _FromTheTop(ProtoMAML):
    """Adapts the head and the transformer's last layers. depth : the first layer that adapts; None for everything."""

    depth: int | None = None

    def adaptable(self, name: str) -> bool:
        """Everything, or what stands in a layer from `depth` on."""
        return self.depth is None or name.startswith(HEAD) or (_layer(name) or 0) >= self.depth

    def start(self, learner: Learner, meta: Params, task: Task) -> Params:
        """As without `depth`, except for what does not adapt."""
        return {name: tensor for name, tensor in super().start(learner, meta, task).items() if self.adaptable(name)}


@METHODS.register("fine_tuning")
class FineTuning(AdaptationMethod):
    """Adam (Kingma & Ba 2015) on the support loss from the pretrained weights, the head from the class means.

    what : "full" (all parameters), "last_layers" (those of the top `layers`, or of as many as there are), or through
    PEFT "lora" or "ia3" on the modules that the run's own adapter targets, in all layers. steps : after how many it is
    asked.
    learning_rate : null for that of `learning_rates` which does best on episodes of the validation classes.
    """

    what: Literal["full", "last_layers", "lora", "ia3"] = "lora"
    layers: PositiveInt = 2
    steps: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (10,)
    learning_rate: PositiveFloat | None = None
    learning_rates: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1e-4, 3e-4, 1e-3, 3e-3)
    needs_features: ClassVar[bool] = True

    def candidates(self) -> list[AdaptationMethod]:
        """One a learning rate, if none is given."""
        if self.learning_rate is not None:
            return [self]
        return [self.model_copy(update={"learning_rate": rate}) for rate in self.learning_rates]

    def chosen_option(self) -> tuple[str, float] | None:
        """The learning rate."""
        return None if self.learning_rate is None else ("learning rate", self.learning_rate)

    def rows(self) -> list[Row]:
        """One a number of steps."""
        return [Row(f"fine-tuning, {IN_WORDS[self.what]}", step) for step in sorted(set(self.steps))]

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """A predictor after every number of steps asked for; its scores are logits."""
        assert self.learning_rate is not None, "one of the candidates adapts"
        learner = _learner(self._learner_config(scene), scene.worker.config.seed, scene.worker.learner.device)
        support = learner.encode(list(scene.support.inputs), scene.targets.tolist())
        task = Task(scene.ways, support, support, scene.address)  # it asks nothing of a query
        objective = _FromTheTop(depth=self._depth(learner))
        rates = {"value": self.learning_rate, "head": self.learning_rate, "learn": "none"}
        loop = InnerLoop.model_validate({"steps": max(self.steps), "optimizer": "adam", "step_size": rates})
        params = {name: tensor.to(learner.device) for name, tensor in learner.initial.items()}
        problem = objective.problem(learner, params, task, loop)
        with torch.no_grad():
            theta = problem.start(params)
        rows = {row.steps: row for row in self.rows()}
        for step, state in enumerate(trajectory(problem, plain_gradient(problem), theta)):
            if step in rows:
                yield rows[step], partial(_outputs, learner, objective.bind(state.theta, params))

    def _learner_config(self, scene: Scene) -> str:
        config = scene.worker.config.learner
        if not isinstance(config, TransformerConfig):
            raise ConfigError(
                f"--methods fine_tuning: it tunes a transformer, and learner {config.registered_name!r} is none. "
                f"Leave it out."
            )
        adapter = ADAPTERS[self.what]
        if adapter is not None and config.adapter is not None:
            adapter = {**adapter, "targets": config.adapter.targets}
        changed = {"adapter": adapter, "padding": "groups", "base_dtype": "float32"}
        return json.dumps({**config.to_dict(), **changed}, sort_keys=True, default=str)

    def _depth(self, learner: Learner) -> int | None:
        if self.what != "last_layers":
            return None
        depth = 1 + max(_layer(name) or 0 for name in learner.initial)
        return max(depth - self.layers, 0)


def _outputs(learner: Learner, bound: Params, examples: Examples) -> Tensor:
    return learner.outputs(bound, learner.encode(list(examples.inputs), None))


def _layer(name: str) -> int | None:
    found = re.search(r"\.(\d+)\.", name)
    return int(found.group(1)) if found else None


@lru_cache(maxsize=4)
def _learner(config: str, seed: int, device: torch.device = CPU) -> Learner:
    """Loaded once a process."""
    return LEARNERS.build(json.loads(config)).build(seed, device)
