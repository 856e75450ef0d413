"""The tree of a run: all its sections, whatever their values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from metacl.adaptation import InnerLoop
from metacl.config.evaluation import Evaluation
from metacl.config.faults import Fault
from metacl.config.outer import OuterLoop
from metacl.config.workers import Workers
from metacl.learners import LEARNERS, LearnerConfig
from metacl.metagradients import ESTIMATORS, MetaGradient
from metacl.objectives import OBJECTIVES, MetaObjective
from metacl.plugins import import_plugins
from metacl.presets import with_preset
from metacl.registry import Component, chosen_from
from metacl.tasks import TASK_SOURCES, EpisodeShape, TaskSource


class Checkpoints(Component):
    """When the state of training is saved, and how many of the newest are kept."""

    every: PositiveInt = 10
    keep: PositiveInt = 2


class Sections(Component):
    """Everything a run depends on. `output` defaults to ``runs/<name>``.

    preset : a published algorithm (``metacl list``); what it chooses lies under the sections given here.
    plugins : modules of your own that register objectives, estimators, …; imported in every worker, too.
    faults : what is to go wrong, as a drill; none of it changes a bit of what is trained.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    output: Path | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    plugins: Annotated[tuple[str, ...], BeforeValidator(import_plugins)] = ()
    preset: str | None = None
    learner: Annotated[LearnerConfig, chosen_from(LEARNERS)]
    data: Annotated[TaskSource, chosen_from(TASK_SOURCES)]
    episodes: EpisodeShape = EpisodeShape()
    objective: Annotated[MetaObjective, chosen_from(OBJECTIVES)] = OBJECTIVES.build({"name": "proto_maml"})
    inner: InnerLoop = InnerLoop()
    estimator: Annotated[MetaGradient, chosen_from(ESTIMATORS)] = ESTIMATORS.build({"name": "reverse"})
    outer: OuterLoop = OuterLoop()
    workers: Workers = Workers()
    checkpoints: Checkpoints = Checkpoints()
    evaluation: Evaluation | None = None
    faults: tuple[Fault, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _preset_lies_below(cls, tree: Any) -> Any:
        return with_preset(tree) if isinstance(tree, dict) else tree

    @property
    def compiles(self) -> bool:
        """Whether workers compile."""
        return self.estimator.wants_few_shapes

    @property
    def less_memory(self) -> str:
        """What a user can do whose tasks do not fit, a sentence."""
        return (
            "Lower episodes.ways, episodes.shots or episodes.queries, learner.max_length, or keep fewer inner graphs "
            "(estimator.allowance=one)."
        )

    @property
    def parameters_in_parts(self) -> bool:
        """Whether what adapts lies in parts, one a rank, as do the meta-parameters then."""
        return self.workers.executor == "ray" and self.workers.zero_stage == 3 and self.learner.adapts_whole_model

    @property
    def folder(self) -> Path:
        """Where the run's files go."""
        return self.output.expanduser() if self.output is not None else Path("runs") / self.name
