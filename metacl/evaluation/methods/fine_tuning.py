"""Fine-tuning the pretrained model on the support set, as one would without any meta-learning."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from metacl.adaptation import InnerLoop
from metacl.config import RunConfig
from metacl.errors import ConfigError
from metacl.evaluation.methods.base import METHODS, AdaptationMethod, Examples, Predictor, Row, Scene
from metacl.evaluation.methods.inner_steps import check_starts, stored_start
from metacl.learners import LEARNERS
from metacl.learners.base import CPU, HEAD, Learner, LearnerConfig, Params, Task
from metacl.learners.loading import load_config_and_tokenizer
from metacl.learners.pretrained import find_pretrained
from metacl.learners.transformer import TransformerConfig
from metacl.metagradients import plain_gradient, trajectory
from metacl.objectives import ProtoMAML

ADAPTERS: dict[str, Any] = {
    "full": None,
    "last_layers": None,
    "lora": {"kind": "lora", "rank": 8, "alpha": 16},
    "ia3": {"kind": "ia3"},
    "prompt": {"kind": "prompt", "tokens": 10},
}
"""What is tuned -> the learner's adapter; null for all parameters. It targets what the run's own adapter does."""
IN_WORDS = {"full": "all parameters", "last_layers": "last layers", "lora": "LoRA", "ia3": "IA3", "prompt": "prompt"}
RATES = (1e-4, 3e-4, 1e-3, 3e-3)
PROMPT_RATES = (3e-3, 1e-2, 3e-2, 1e-1)
"""A prompt takes rates some thirty times as high (Lester et al. 2021, sec. 3)."""


class _FromTheTop(ProtoMAML):
    """Adapts the head and the transformer's last layers. depth : the first layer that adapts; None for everything."""

    depth: int | None = None

    def adaptable(self, name: str) -> bool:
        """Everything, or what stands in a layer from `depth` on."""
        return self.depth is None or name.startswith(HEAD) or (_layer(name) or 0) >= self.depth

    def start(self, learner: Learner, meta: Params, task: Task) -> Params:
        """As without `depth`, except for what does not adapt."""
        return {name: tensor for name, tensor in super().start(learner, meta, task).items() if self.adaptable(name)}


class Tuned(AdaptationMethod):
    """Adam (Kingma & Ba 2015) on the support loss from some weights, the head from the class means.

    steps : after how many it is asked. learning_rate : null for that of `learning_rates` which does best on episodes of
    the validation classes.
    """

    steps: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (10,)
    learning_rate: PositiveFloat | None = None
    learning_rates: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] | None = None
    needs_features: ClassVar[bool] = True

    @property
    @abstractmethod
    def label(self) -> str:
        """The rows' method."""

    @property
    def usual_rates(self) -> tuple[float, ...]:
        """The rates that are tried if none are given."""
        return RATES

    @abstractmethod
    def learner_and_start(self, scene: Scene) -> tuple[Learner, Params]:
        """What is tuned, and where it begins."""

    def depth(self, learner: Learner) -> int | None:
        """The first layer that is tuned; None for all that adapts. Default: all."""
        return None

    def candidates(self) -> list[AdaptationMethod]:
        """One a learning rate, if none is given."""
        if self.learning_rate is not None:
            return [self]
        rates = self.learning_rates or self.usual_rates
        return [self.model_copy(update={"learning_rate": rate}) for rate in rates]

    def chosen_option(self) -> tuple[str, float] | None:
        """The learning rate."""
        return None if self.learning_rate is None else ("learning rate", self.learning_rate)

    def obstacle(self, config: RunConfig) -> str | None:
        """It needs a transformer."""
        if not isinstance(config.learner, TransformerConfig):
            return f"it tunes a transformer, and learner {config.learner.registered_name!r} is none."
        return super().obstacle(config)

    def rows(self) -> list[Row]:
        """One a number of steps."""
        return [Row(self.label, step) for step in sorted(set(self.steps))]

    def prepare(self, scene: Scene) -> None:
        """Load the model."""
        self.learner_and_start(scene)

    def adapt(self, scene: Scene) -> Iterator[tuple[Row, Predictor]]:
        """A predictor after every number of steps asked for; its scores are logits."""
        assert self.learning_rate is not None, "one of the candidates adapts"
        learner, start = self.learner_and_start(scene)
        support = learner.encode(list(scene.support.inputs), scene.targets.tolist())
        task = Task(scene.ways, support, support, scene.address)  # it asks nothing of a query
        objective = _FromTheTop(depth=self.depth(learner))
        rates = {"value": self.learning_rate, "head": self.learning_rate, "learn": "none"}
        loop = InnerLoop.model_validate({"steps": max(self.steps), "optimizer": "adam", "step_size": rates})
        params = {name: tensor.to(learner.device) for name, tensor in start.items()}
        problem = objective.problem(learner, params, task, loop)
        with torch.no_grad():
            theta = problem.start(params)
        rows = {row.steps: row for row in self.rows()}
        for step, state in enumerate(trajectory(problem, plain_gradient(problem), theta)):
            if step in rows:
                yield rows[step], partial(_outputs, learner, objective.bind(state.theta, params))


@METHODS.register("fine_tuning")
class FineTuning(Tuned):
    """Adam (Kingma & Ba 2015) on the support loss from the pretrained weights, the head from the class means.

    what : "full" (all parameters), "last_layers" (those of the top `layers`, or of as many as there are), or through
    PEFT "lora" or "ia3" on the modules that the run's own adapter targets, in all layers, or "prompt", ten embeddings
    before every text. steps : after how many it is asked.
    learning_rate : null for that of `learning_rates` which does best on episodes of the validation classes; null for
    four that are usual for what is tuned.
    """

    what: Literal["full", "last_layers", "lora", "ia3", "prompt"] = "lora"
    layers: PositiveInt = 2

    @property
    def label(self) -> str:
        """With what is tuned."""
        return f"fine-tuning, {IN_WORDS[self.what]}"

    @property
    def usual_rates(self) -> tuple[float, ...]:
        """A prompt's are higher."""
        return PROMPT_RATES if self.what == "prompt" else RATES

    def obstacle(self, config: RunConfig) -> str | None:
        """A prompt must fit in before the longest text."""
        found = super().obstacle(config)
        if found is not None or self.what != "prompt":
            return found
        learner = LEARNERS.build(_tunable_config(config.learner, self._changes(config.learner)))
        assert isinstance(learner, TransformerConfig), "checked before"
        try:
            learner.check_positions(load_config_and_tokenizer(find_pretrained(learner.model).folder)[0])
        except ConfigError as error:
            return f"its prompt has no place. {error} Name what is tuned: --method-option fine_tuning.what=lora."
        return None

    def learner_and_start(self, scene: Scene) -> tuple[Learner, Params]:
        """The pretrained model with an adapter of its own kind."""
        learner = _tunable(scene, self._changes(scene.worker.config.learner))
        return learner, learner.initial

    def _changes(self, learner: LearnerConfig) -> dict[str, Any]:
        assert isinstance(learner, TransformerConfig), "checked before"
        adapter = ADAPTERS[self.what]
        if adapter is not None and learner.adapter is not None:
            adapter = {**adapter, "targets": learner.adapter.targets}
        return {"adapter": adapter}

    def depth(self, learner: Learner) -> int | None:
        """That of the last layers."""
        if self.what != "last_layers":
            return None
        depth = 1 + max(_layer(name) or 0 for name in learner.initial)
        return max(depth - self.layers, 0)


@METHODS.register("fine_tuned_start")
class FineTunedStart(Tuned):
    """The same Adam from what another run learned, of joint training above all; its own adapter is tuned.

    start : the folder of a run, or of an initialization, on the same pretrained model with the same adapter; of it
    everything but the head is taken. The rest as of fine_tuning.
    """

    start: Annotated[Path, Field(examples=["runs/a"])]

    @property
    def label(self) -> str:
        """With where it begins."""
        return f"fine-tuning from {self.start}"

    def obstacle(self, config: RunConfig) -> str | None:
        """The start must fit the model. Raises `DataError` if it cannot be read."""
        check_starts(self, (self.start,), config)
        return super().obstacle(config)

    def learner_and_start(self, scene: Scene) -> tuple[Learner, Params]:
        """The run's own kind of model, with the start's adapter."""
        learner, stored = _tunable(scene, {}), stored_start(self.start)
        return learner, {name: stored.meta[name] for name in learner.initial}


def _tunable(scene: Scene, changes: dict[str, Any]) -> Learner:
    """The run's learner with these changes, in float32 and in batches of any shape."""
    described = json.dumps(_tunable_config(scene.worker.config.learner, changes), sort_keys=True, default=str)
    return _learner(described, scene.worker.config.seed, scene.worker.learner.device)


def _tunable_config(learner: LearnerConfig, changes: dict[str, Any]) -> dict[str, Any]:
    return {**learner.to_dict(), **changes, "padding": "groups", "base_dtype": "float32"}


def _outputs(learner: Learner, bound: Params, examples: Examples) -> Tensor:
    return learner.outputs(bound, learner.encode(list(examples.inputs), None))


def _layer(name: str) -> int | None:
    found = re.search(r"\.(\d+)\.", name)
    return int(found.group(1)) if found else None


@lru_cache(maxsize=len(ADAPTERS) + 1)
def _learner(config: str, seed: int, device: torch.device = CPU) -> Learner:
    """Loaded once a process: what each way of fine-tuning tunes, and the run's own, are all asked in every episode."""
    return LEARNERS.build(json.loads(config)).build(seed, device)
