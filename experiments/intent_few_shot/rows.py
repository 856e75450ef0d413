"""The rows of the table, in groups that are measured together: what one costs decides on how many episodes.

Those of frozen features without class names are measured by frozen.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from frozen import REGRESSION_C
from pydantic import PositiveFloat
from safetensors.torch import load_file
from starts import FROM_ZERO, INTENTS, ONE, TOGETHER

from metacl.coordination.flat import Flat
from metacl.coordination.worker import Worker
from metacl.evaluation.frozen_features import FrozenFeatures
from metacl.evaluation.methods import (
    AdaptationMethod,
    FineTuning,
    FrozenPrototypes,
    LogisticRegression,
    MetaLearned,
    MetaLearnedLogisticRegression,
    NearestNeighbour,
    Pretrained,
    Row,
    Scene,
)
from metacl.evaluation.methods.inner_steps import OneStart
from metacl.learners.base import STEP_SIZE, Params

NAMES = " names"
"""Ends a cell whose supports have the names of the classes."""
STEPS = 1
"""Inner steps of config.yaml, in training and measuring."""
STEPS_OF_ONE = 3
"""Those of steps.yaml."""
RATES = (0.1, 0.3)
"""What the jointly trained start's inner loop is tried with on validation classes."""
FINE_TUNING_RATES = (3e-4, 3e-3)
JOINT = "joint training"
OWN = "one data set's start"
CROSS = "CLINC150's start"
ZERO = ", head from zero"


@cache
def joint_start(worker: Worker, adapter: Path, rate: float) -> Flat:
    """A jointly trained adapter, with a rate in the place of learned step sizes."""
    start = {**worker.initial, **load_file(adapter)}
    for name, tensor in start.items():
        if name.startswith(STEP_SIZE):
            start[name] = torch.full_like(tensor, rate)
    return worker.layout.flatten(start)


@cache
def joint_features(worker: Worker, adapter: Path) -> FrozenFeatures:
    """Of a jointly trained adapter; features depend on no rate."""
    return FrozenFeatures.learned(worker, joint_start(worker, adapter, RATES[0]))


class JointStart(OneStart):
    """The run's inner loop from a jointly trained adapter, at one rate."""

    adapter: Path
    rate: PositiveFloat = RATES[0]

    @property
    def label(self) -> str:
        """How it was trained."""
        return JOINT

    def candidates(self) -> list[AdaptationMethod]:
        """One a rate."""
        return [self.model_copy(update={"rate": rate}) for rate in RATES]

    def chosen_option(self) -> tuple[str, float]:
        """The rate."""
        return "learning rate", self.rate

    def start(self, scene: Scene) -> Params:
        """The adapter and its rate."""
        return scene.worker.parameters(joint_start(scene.worker, self.adapter, self.rate))


class JointRegression(LogisticRegression):
    """Logistic regression on the features of a jointly trained adapter."""

    adapter: Path

    def rows(self) -> list[Row]:
        """One."""
        return [Row(f"{JOINT}, logistic regression", None)]

    def features(self, scene: Scene) -> FrozenFeatures:
        """The adapter's."""
        return joint_features(scene.worker, self.adapter)


class OtherStart(MetaLearned):
    """What was meta-learned by steps.yaml. name : the row's."""

    name: str

    @property
    def label(self) -> str:
        """Which start it is."""
        return self.name


OF_ONE = {"own": OWN, "own_zero": OWN + ZERO, "cross": CROSS, "zero": CROSS + ZERO}
"""The groups of steps.yaml, and what their start is called."""


@dataclass(frozen=True)
class Group:
    """Rows measured together on the first `episodes` of a split's 600. validation : on how many rates are chosen."""

    name: str
    episodes: int
    validation: int = 6

    @property
    def kind(self) -> str:
        """Of its start."""
        if self.name not in OF_ONE:
            return TOGETHER
        return FROM_ZERO if "zero" in self.name else ONE

    def cell(self, dataset: str, shape: str) -> str:
        """Where its answers are kept."""
        named = self.kind == TOGETHER and dataset in INTENTS and self.name != "unnamed"
        return f"{dataset} {shape}{NAMES if named else ''}"

    def methods(self, joint_adapter: Path) -> list[AdaptationMethod]:
        """Before any rate is chosen."""
        if self.name == "frozen_names":
            return [FrozenPrototypes(), NearestNeighbour(), LogisticRegression(c=REGRESSION_C)]
        if self.name == "starts":
            joint = JointStart(steps=(0, STEPS), adapter=joint_adapter)
            return [Pretrained(steps=(STEPS,)), MetaLearned(steps=(0, STEPS)), joint]
        if self.name == "regression":
            joint_regression = JointRegression(c=REGRESSION_C, adapter=joint_adapter)
            return [MetaLearnedLogisticRegression(c=REGRESSION_C), joint_regression]
        if self.name == "unnamed":
            return [MetaLearned(steps=(0, STEPS))]
        if self.name in OF_ONE:
            return [OtherStart(steps=(0, STEPS_OF_ONE), name=OF_ONE[self.name])]
        return [FineTuning.model_validate({"what": self.name, "steps": (10,), "learning_rates": FINE_TUNING_RATES})]


COMPARED = (
    Group("frozen_names", 600),
    Group("regression", 600),
    Group("starts", 24),
    Group("lora", 6, validation=3),
    Group("last_layers", 6, validation=3),
    Group("unnamed", 12),
    Group("ia3", 6, validation=3),
    Group("full", 6, validation=3),
)
ABOUT_STEPS = (Group("cross", 15), Group("zero", 15), Group("own", 15), Group("own_zero", 15))
