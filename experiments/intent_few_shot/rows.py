"""The rows that train something, in groups that are measured together: what one costs decides on how many episodes.

Those of frozen features are measured by frozen.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import PositiveFloat
from safetensors.torch import load_file

from metacl.evaluation.methods import AdaptationMethod, FineTuning, MetaLearned, Pretrained, Scene
from metacl.evaluation.methods.inner_steps import OneStart
from metacl.learners.base import STEP_SIZE, Params

STEPS = 3
"""Inner steps, in training and measuring."""
RATES = (0.1, 0.3)
"""What the jointly trained start's inner loop is tried with on validation classes."""
FINE_TUNING_RATES = (3e-4, 3e-3)
JOINT = "joint training"
OTHER_DATA = "meta-learned on CLINC150"
FROM_ZERO = "meta-learned on CLINC150, head from zero"
OWN_FROM_ZERO = "meta-learned, head from zero"


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
        """The adapter, with the rate in the place of learned step sizes."""
        start = {**scene.worker.initial, **load_file(self.adapter)}
        for name, tensor in start.items():
            if name.startswith(STEP_SIZE):
                start[name] = torch.full_like(tensor, self.rate)
        return scene.worker.parameters(scene.worker.layout.flatten(start))


class OtherStart(MetaLearned):
    """What was meta-learned on CLINC150's domains, or with a head from zero. name : the row's."""

    name: str

    @property
    def label(self) -> str:
        """Which start it is."""
        return self.name


OTHER_STARTS = {"cross": OTHER_DATA, "zero": FROM_ZERO, "own_zero": OWN_FROM_ZERO}
"""The groups with a start of their own, and its name."""


@dataclass(frozen=True)
class Group:
    """Rows measured together on the first `episodes` of a split's 600."""

    name: str
    episodes: int
    validation: int = 6
    """Episodes on which its rates are chosen."""

    def methods(self, joint_adapter: Path) -> list[AdaptationMethod]:
        """Before any rate is chosen."""
        if self.name == "starts":
            joint = JointStart(steps=(0, STEPS), adapter=joint_adapter)
            return [Pretrained(steps=(STEPS,)), MetaLearned(steps=(0, STEPS)), joint]
        if self.name == "more":
            return [MetaLearned(steps=(0, STEPS))]
        if self.name in OTHER_STARTS:
            return [OtherStart(steps=(0, STEPS), name=OTHER_STARTS[self.name])]
        return [FineTuning.model_validate({"what": self.name, "steps": (10,), "learning_rates": FINE_TUNING_RATES})]


STARTS = (Group("starts", 15), Group("cross", 15), Group("zero", 15), Group("own_zero", 15))
MORE = Group("more", 60)
FINE_TUNING = tuple(Group(what, 6, validation=3) for what in ("lora", "last_layers", "ia3", "full"))
