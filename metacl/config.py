"""What a run is: one typed tree, read from YAML with dotted overrides, written back next to what it made.

Components (objective, estimator, …) are chosen by name and built while the config is read, so a config that
loads is one whose every key is known and whose parts fit together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from metacl.adaptation import InnerLoop
from metacl.aggregation import AGGREGATORS, Aggregator
from metacl.errors import ConfigError
from metacl.learners import LEARNERS, LearnerConfig
from metacl.metagradients import ESTIMATORS, MetaGradient
from metacl.objectives import OBJECTIVES, MetaObjective
from metacl.plugins import import_plugins
from metacl.presets import with_preset
from metacl.registry import Component, chosen_from, explain, nearest
from metacl.tasks import TASK_SOURCES, EpisodeShape, TaskSource


class HeldOut(Component):
    """Early stopping: the query loss on `tasks` tasks of the valid classes, `every` so many outer steps and at the end.

    The initialization is made from the parameters with the least loss. patience : training ends after so many
    measurements without a gain; null for never.
    """

    every: PositiveInt = 10
    tasks: PositiveInt = 16
    patience: PositiveInt | None = None


class Asynchronous(Component):
    """Outer steps that do not wait for every task: what is trained then depends on timing.

    staleness : the most outer steps that may be taken while a task is computed; if there were more, its gradient is
    refused and it is computed again.
    """

    staleness: PositiveInt = 1


class OuterLoop(Component):
    """How the meta-parameters move: T tasks a step, one optimizer step on their combined meta-gradient.

    learning_rate : of everything learned but step sizes; step_size_learning_rate : of those.
    optimizer : "adamw" and "adam" differ in the weight decay, which Adam adds to the gradient.
    schedule : "constant", or "cosine" or "linear" down to zero at the last step; all after `warmup_steps` of linear
    warm-up.
    clip_norm : the combined meta-gradient is scaled down to at most this norm; null for never.
    accumulate : a step has tasks_per_step × accumulate tasks, in so many portions; the coordinator holds the gradients
    of one portion at a time, combines each by itself, and averages them.
    minimum_completion : the part of a step's tasks that must have a usable meta-gradient for the step to be taken.
    asynchronous : null (the default): a step is of its own tasks, and the same whoever computes them.
    """

    steps: PositiveInt = 100
    tasks_per_step: PositiveInt = 4
    accumulate: PositiveInt = 1
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    step_size_learning_rate: PositiveFloat = 1e-2
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: NonNegativeInt = 0
    clip_norm: PositiveFloat | None = None
    minimum_completion: Annotated[float, Field(gt=0, le=1)] = 0.5
    aggregator: Annotated[Aggregator, chosen_from(AGGREGATORS)] = AGGREGATORS.build({"name": "mean"})
    held_out: HeldOut | None = None
    asynchronous: Asynchronous | None = None


class Stragglers(Component):
    """What to do with a task that takes longer than median + `deviations` · MAD of those finished.

    policy : "wait"; "reissue": another group computes it as well and the first result wins, which changes no bit;
    "drop": the step goes on without it as soon as outer.minimum_completion is reached, and then what is trained
    depends on timing.
    """

    policy: Literal["wait", "reissue", "drop"] = "reissue"
    deviations: PositiveFloat = 8.0


class Workers(Component):
    """Who computes the tasks.

    executor : "local" (this process, no Ray and no DeepSpeed) or "ray" (worker groups as Ray actors).
    groups : worker groups; a task is computed by one group. A number: all must be there to start. {min: 1, max: 8},
    which sets groups = 8 and min_groups = 1: start with the least and grow. A run that loses groups goes on with what
    is left (not below min_groups) and grows again when there is room.
    respawns : how often a group is started again that is lost before it has finished a task.
    task_timeout_s : a group that computes one task for longer hangs, and is killed; a first task may compile.
    threads : CPU threads per rank, always the same,
    because the last bits of a result depend on it. gpus_per_group : 0 for CPU workers.
    address : of a running Ray cluster ("auto" for one on this machine); null starts a small one in this process.
    tasks_per_forward : tasks of a step that go through the model side by side, on one group; pays for small models.
    start_timeout_s : how long groups may take to start.
    ranks_per_group : processes that compute a task together; gpus_per_group is 0 or as many, one for each.
    ranks_placement, groups_placement : Ray's placement of a group's ranks (STRICT_PACK: on one node), and of groups
    that are packed so (SPREAD: on the nodes in turn; PACK: wherever Ray likes).
    zero_stage : DeepSpeed ZeRO stage; at 3 the frozen base lies in shards, one a rank. offload : where it then lies:
    on the ranks' devices ("none"), in the machine's memory ("cpu") or in files under nvme_path ("nvme").
    gradient_shards : processes among which the gradients are cut by coordinates to be combined; 1: the coordinator does
    it. Pays from some millions of parameters on; changes no bit.
    deepspeed : a DeepSpeed config for the rest; matrices up to its stage3_param_persistence_threshold stay whole.
    """

    executor: Literal["local", "ray"] = "ray"
    groups: PositiveInt = 1
    min_groups: PositiveInt | None = None
    respawns: NonNegativeInt = 3
    task_timeout_s: PositiveFloat = 1800.0
    stragglers: Stragglers = Stragglers()
    threads: PositiveInt = 1
    gpus_per_group: NonNegativeInt = 0
    address: str | None = None
    tasks_per_forward: PositiveInt = 1
    start_timeout_s: PositiveFloat = 300.0
    ranks_per_group: PositiveInt = 1
    ranks_placement: Literal["STRICT_PACK", "PACK", "SPREAD", "STRICT_SPREAD"] = "STRICT_PACK"
    groups_placement: Literal["SPREAD", "PACK"] = "SPREAD"
    zero_stage: Literal[0, 1, 2, 3] = 0
    offload: Literal["none", "cpu", "nvme"] = "none"
    nvme_path: str | None = None
    gradient_shards: PositiveInt = 1
    deepspeed: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _read_range(cls, options: Any) -> Any:
        found = options.get("groups") if isinstance(options, dict) else None
        if not isinstance(found, dict):
            return options
        if set(found) != {"min", "max"} or "min_groups" in options:
            raise ValueError("workers.groups: expected a number or {min: 1, max: 8}")
        return {**options, "groups": found["max"], "min_groups": found["min"]}

    @model_validator(mode="after")
    def _min_is_at_most_max(self) -> Workers:
        if self.min_groups is not None and self.min_groups > self.groups:
            raise ValueError(f"workers.groups: min {self.min_groups} is more than max {self.groups}")
        return self

    @property
    def groups_to_start(self) -> int:
        """How many groups must be there for a run to start."""
        return self.groups if self.min_groups is None else self.min_groups

    @property
    def groups_to_go_on(self) -> int:
        """How many groups must be there, or be coming back, for a run to go on."""
        return self.min_groups or 1

    @model_validator(mode="after")
    def _one_process_is_one_group(self) -> Workers:
        for key in ("groups", "ranks_per_group", "gradient_shards"):
            count = getattr(self, key)
            if self.executor == "local" and count > 1:
                raise ValueError(
                    f"workers.{key}: {count}, but the local executor is one process. "
                    f"Set workers.{key}=1 or workers.executor=ray"
                )
        return self

    @model_validator(mode="after")
    def _ranks_fit(self) -> Workers:
        if self.gpus_per_group not in (0, self.ranks_per_group):
            raise ValueError(
                f"workers.gpus_per_group: {self.gpus_per_group}, but each rank has one GPU or none and a group has "
                f"{self.ranks_per_group} ranks. Set it to 0 or {self.ranks_per_group}"
            )
        if self.offload != "none" and self.zero_stage != 3:
            raise ValueError(
                f"workers.offload: {self.offload} is for a sharded base. "
                f"Set workers.zero_stage=3, or workers.offload=none"
            )
        if (self.offload == "nvme") != (self.nvme_path is not None):
            raise ValueError("workers.nvme_path: a folder on a fast disk, for workers.offload=nvme and only for it")
        zero = self.deepspeed.get("zero_optimization", {})
        if not isinstance(zero, dict) or "stage" in zero or "offload_param" in zero:
            raise ValueError(
                "workers.deepspeed.zero_optimization: stage and offload_param are set by workers.zero_stage and "
                "workers.offload; leave them out"
            )
        if half := {"bf16", "fp16"} & self.deepspeed.keys():
            raise ValueError(
                f"workers.deepspeed.{min(half)}: the type of the frozen matrices is learner.base_dtype; leave it out"
            )
        return self


class Checkpoints(Component):
    """When the state of training is saved, and how many of the newest are kept."""

    every: PositiveInt = 10
    keep: PositiveInt = 2


NEEDS_GROUPS = ("kill_rank", "kill_node", "kill_shard", "hang")
"""Faults that would end or stop this process, were it the worker."""


class Fault(Component):
    """Something that goes wrong, once: a drill for your own cluster, by the switch that metacl's tests use.

    kind : "kill_rank", "kill_node" (the Ray node of the task's group), "kill_shard" (the first of those that combine
    gradients, as the task's is sent), "hang", "slow", "non_finite" and "corrupt_reply" strike when task `index` of
    outer step `step` (from 0, as in its address) is computed first, and "sigterm" stops the driver when it hands that
    task out. "corrupt_checkpoint" and "disk_full" strike the first checkpoint that is written after that step.
    seconds : how long "slow" takes. rank : the one of the group that a "kill_rank", "hang" or "slow" strikes; null for
    all that it has.
    """

    kind: Literal[
        "kill_rank",
        "kill_node",
        "kill_shard",
        "hang",
        "slow",
        "non_finite",
        "corrupt_reply",
        "corrupt_checkpoint",
        "disk_full",
        "sigterm",
    ]
    step: NonNegativeInt
    index: NonNegativeInt = 0
    seconds: PositiveFloat = 5.0
    rank: NonNegativeInt | None = None


class Evaluation(Component):
    """The protocol of the closing evaluation, on classes that training never saw.

    steps : the inner steps after which the query is asked. seed : of the episodes, the same for every method.
    """

    shape: EpisodeShape
    episodes: Annotated[int, Field(ge=2)] = 300
    steps: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0, 1, 3, 5, 10)
    split: Literal["valid", "test"] = "test"
    seed: NonNegativeInt = 1


class RunConfig(Component):
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

    @model_validator(mode="after")
    def _faults_have_someone_to_strike(self) -> RunConfig:
        for position, fault in enumerate(self.faults):
            if fault.kind in NEEDS_GROUPS and self.workers.executor == "local":
                raise ValueError(f"faults.{position}: {fault.kind} needs worker groups. Set workers.executor=ray")
            if fault.rank is not None and fault.rank >= self.workers.ranks_per_group:
                last = self.workers.ranks_per_group - 1
                raise ValueError(f"faults.{position}.rank: {fault.rank}, but a group has ranks 0 to {last}")
            if fault.kind == "kill_shard" and self.workers.gradient_shards == 1:
                raise ValueError(f"faults.{position}: kill_shard needs shards. Set workers.gradient_shards=2 or more")
        return self

    @model_validator(mode="before")
    @classmethod
    def _preset_lies_below(cls, tree: Any) -> Any:
        return with_preset(tree) if isinstance(tree, dict) else tree

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        if self.data.gives != self.learner.takes:
            raise ValueError(
                f"learner: {self.learner.registered_name or type(self.learner).__name__} takes {self.learner.takes}, "
                f"but data {self.data.registered_name!r} gives {self.data.gives}. {_partner(self.learner.takes)}"
            )
        self._check_sizes()
        marker = self.data.completion_marker
        if marker is not None and self.learner.scores_after != marker:
            raise ValueError(
                f"learner.completion_after: {self.learner.scores_after!r}, but data {self.data.registered_name!r} puts "
                f"{marker!r} between prompt and completion. Set learner.completion_after to that"
            )
        if self.evaluation and not self.data.classes:
            texts = f", and measure perplexity when the run is done: metacl evaluate {self.folder}"
            raise ValueError(
                f"evaluation: it counts right answers, and data {self.data.registered_name!r} has no classes. "
                f"Set evaluation=null{texts if self.data.gives == 'text' else ''}"
            )
        has_head = self.objective.fixed_ways and self.learner.classifies
        if self.evaluation and has_head and self.evaluation.shape.ways != self.episodes.ways:
            raise ValueError(
                f"evaluation.shape.ways: {self.evaluation.shape.ways}, but {self.objective.registered_name} learns a "
                f"head for episodes.ways = {self.episodes.ways}. Make them equal, or set objective=proto_maml"
            )
        if self.evaluation and not self.learner.classifies and self.evaluation.shape.ways < 2:
            raise ValueError(
                "evaluation.shape.ways: 1, but one class leaves nothing to tell apart. Set it to 2 or more, or leave "
                "evaluation out; metacl evaluate RUN measures perplexity"
            )
        if self.workers.gradient_shards > 1 and not self.outer.aggregator.by_coordinates:
            raise ValueError(
                f"workers.gradient_shards: {self.workers.gradient_shards}, but aggregator "
                f"{self.outer.aggregator.registered_name!r} looks at whole gradients. "
                f"Set workers.gradient_shards=1, or outer.aggregator=mean"
            )
        if self.objective.asks_along and not self.estimator.sees_path:
            raise ValueError(
                f"estimator {self.estimator.registered_name!r} does not see what objective "
                f"{self.objective.registered_name!r} asks on the way. Set estimator=reverse or estimator=first_order"
            )
        if self.estimator.needs_double_backward and not self.learner.double_backward:
            raise ValueError(
                f"estimator {self.estimator.registered_name!r} differentiates twice, and fused attention has no second "
                f"derivative. Set learner.attention=eager, estimator=finite_difference, or estimator=first_order"
            )
        if self.estimator.monitored(0, 0) and not self.learner.double_backward:
            raise ValueError(
                "estimator.monitor_every: comparing with reverse differentiates twice, and fused attention has no "
                "second derivative. Set learner.attention=eager, or estimator.monitor_every=0"
            )
        if self.estimator.wants_few_shapes and not self.learner.few_shapes:
            raise ValueError(
                "estimator.compile: every new shape of a batch would be compiled for about a minute. "
                "Set learner.padding=packed (or max_length), or estimator.compile=false"
            )
        if self.estimator.wants_few_shapes and (self.workers.ranks_per_group > 1 or self.workers.zero_stage == 3):
            raise ValueError(
                "estimator.compile: messages among ranks cannot be compiled. Set estimator.compile=false, or "
                "workers.ranks_per_group=1 and workers.zero_stage=0"
            )
        self._check_tasks_per_forward()
        self._check_asynchronous()
        stage, possible = self.workers.zero_stage, sorted(self.estimator.sharding_stages)
        if self.workers.executor == "ray" and stage not in possible:
            raise ValueError(
                f"workers.zero_stage: {stage}, but estimator {self.estimator.registered_name!r} works with stage "
                f"{' or '.join(map(str, possible))}. Set workers.zero_stage={possible[-1]}"
                f"{_estimator_for(stage, self.learner.double_backward)}"
            )
        adapter = getattr(self.learner, "adapter", None)
        if adapter is not None and adapter.prompt_tokens and self.workers.executor == "ray" and stage == 3:
            raise ValueError(
                "workers.zero_stage: 3, but a prompt comes before the embeddings, which are in shards then. "
                "Set workers.zero_stage=2, or learner.adapter.kind=lora"
            )
        self.estimator.check_loop(self.inner)
        self._check_parameters_in_parts()
        return self

    @property
    def parameters_in_parts(self) -> bool:
        """Whether what adapts lies in parts, one a rank, as do the meta-parameters then."""
        return self.workers.executor == "ray" and self.workers.zero_stage == 3 and self.learner.adapts_whole_model

    def _check_parameters_in_parts(self) -> None:
        if not self.parameters_in_parts:
            return
        reasons = (
            (
                not self.estimator.takes_parts,
                f"estimator: {self.estimator.registered_name!r} takes whole tensors. "
                f"Set estimator=reverse, finite_difference, first_order or reptile",
            ),
            (
                self.inner.precondition is not None,
                "inner.precondition: it multiplies the sides of whole matrices. Set inner.precondition=null",
            ),
            (
                self.workers.offload == "nvme",
                "workers.offload: nvme is for a frozen base. Set workers.offload=cpu",
            ),
            (
                self.workers.gradient_shards > 1,
                "workers.gradient_shards: each part combines its own gradients. Set workers.gradient_shards=1",
            ),
            (
                not self.outer.aggregator.by_coordinates,
                f"outer.aggregator: {self.outer.aggregator.registered_name!r} looks at whole gradients. "
                f"Set outer.aggregator=mean",
            ),
            (
                self.outer.asynchronous is not None,
                "outer.asynchronous: the parts move together. Set outer.asynchronous=null",
            ),
        )
        for holds, reason in reasons:
            if holds:
                raise ValueError(
                    f"{reason}, or workers.zero_stage=2: at stage 3 every parameter that adapts lies in parts"
                )

    def _check_sizes(self) -> None:
        """Episodes of several sizes need a source, an objective and an evaluation that can do with them."""
        if self.evaluation and self.evaluation.shape.varies:
            raise ValueError(
                "evaluation.shape: the protocol measures one N and K. Give numbers for ways and shots, no ranges"
            )
        if not self.episodes.varies:
            return
        if not self.data.sizes_vary:
            raise ValueError(f"episodes: a range, but data {self.data.registered_name!r} draws one size. Give numbers")
        if self.episodes.min_ways is not None and self.objective.fixed_ways:
            raise ValueError(
                f"episodes.ways: a range, but {self.objective.registered_name} learns a head for one N. Give a number, "
                f"or set objective=proto_maml"
            )
        if self.estimator.wants_few_shapes:
            raise ValueError(
                "estimator.compile: every size of an episode would be compiled. Give numbers for episodes.ways and "
                "episodes.shots, or set estimator.compile=false"
            )

    def _check_tasks_per_forward(self) -> None:
        if self.workers.tasks_per_forward == 1:
            return
        estimator, objective = self.estimator.registered_name, self.objective.registered_name
        sharded = self.workers.ranks_per_group > 1 or self.workers.zero_stage == 3
        reasons = (
            (not self.estimator.side_by_side, f"estimator {estimator!r} goes task by task. Set estimator=reverse"),
            (not self.objective.pure, f"{objective!r} is not known to depend on tensors alone. Set objective=maml"),
            (not self.learner.few_shapes, "every text batch has a shape of its own. Set learner.padding=packed"),
            (self.episodes.varies, "episodes differ in size. Give numbers for episodes.ways and episodes.shots"),
            (sharded, "messages among ranks cannot be vectorized. Set workers.ranks_per_group=1, workers.zero_stage=0"),
            (bool(self.faults), "faults strike single tasks. Set faults=[]"),
        )
        for holds, reason in reasons:
            if holds:
                raise ValueError(
                    f"workers.tasks_per_forward: {self.workers.tasks_per_forward}, but {reason}, or "
                    f"workers.tasks_per_forward=1"
                )

    def _check_asynchronous(self) -> None:
        if self.outer.asynchronous is None:
            return
        reasons = (
            (self.workers.executor == "local", "one process has nobody to wait for. Set workers.executor=ray"),
            (self.outer.accumulate > 1, "a step is of any tasks. Set outer.tasks_per_step higher and accumulate=1"),
            (self.outer.held_out is not None, "measuring makes all groups wait. Set outer.held_out=null"),
            (self.workers.gradient_shards > 1, "a shard holds one step. Set workers.gradient_shards=1"),
            (self.workers.tasks_per_forward > 1, "tasks come one by one. Set workers.tasks_per_forward=1"),
            (self.workers.stragglers.policy == "drop", "nothing waits for stragglers. Set stragglers.policy=wait"),
        )
        for holds, reason in reasons:
            if holds:
                raise ValueError(f"outer.asynchronous: {reason}, or outer.asynchronous=null")

    @property
    def folder(self) -> Path:
        """Where the run's files go."""
        return self.output.expanduser() if self.output is not None else Path("runs") / self.name


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML config and apply ``key.sub=value`` overrides (values are read as YAML).

    Raises
    ------
    ConfigError
        Missing or unreadable file, unknown key (with the nearest known one), wrong type, impossible combination.
    """
    path = Path(path)
    tree = read_tree(path, overrides, RunConfig)
    if "stream" in tree and "data" not in tree:
        raise ConfigError(f"{path}: has a stream, so it is the config of a continual run. Use: metacl continual {path}")
    return config_from_dict(tree, origin=str(path))


def read_tree(path: Path, overrides: Sequence[str], model: type[Component]) -> dict[str, Any]:
    """The plain values of a YAML config with its overrides; `model` is what they will be, for its top keys.

    Raises `ConfigError` as `load_config` does for what is wrong before any key is looked at.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file. Paths are relative to {Path.cwd()}.")
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that cannot be
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        raise ConfigError(f"{path}{line}: not YAML ({getattr(error, 'problem', None) or error}).") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of sections at the top, got {type(tree).__name__}.")
    for override in overrides:
        _apply(tree, override, model)
    return tree


def config_from_dict(tree: dict[str, Any], origin: str = "config") -> RunConfig:
    """Check a tree of plain values and build the config. Raises `ConfigError` prefixed with `origin`."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error, RunConfig)}") from None
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None


def config_to_yaml(config: RunConfig) -> str:
    """The resolved config as YAML that loads to an equal one."""
    return yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)


def _partner(kind: str) -> str:
    """The half sentence that names the task sources of a kind."""
    fitting = [name for name in TASK_SOURCES.names() if TASK_SOURCES.get(name).gives == kind]
    return f"Set data.name to one of: {', '.join(fitting)}"


def _estimator_for(stage: int, double_backward: bool) -> str:
    """The half sentence that names an estimator for this ZeRO stage, the most exact that the model allows."""
    for name in ("reverse", "finite_difference"):
        kind = ESTIMATORS.get(name)
        if stage in kind.sharding_stages and (double_backward or not kind.needs_double_backward):
            return f", or estimator={name}"
    return ""


def _apply(tree: dict[str, Any], override: str, model: type[Component]) -> None:
    key, separator, text = override.partition("=")
    parts = key.split(".")
    if not separator or not all(parts):
        raise ConfigError(f"override {override!r}: expected key=value, for example outer.steps=20.")
    if parts[0] not in model.model_fields:
        raise ConfigError(f"override {override!r}: unknown key {parts[0]!r}. {nearest(parts[0], model.model_fields)}")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"override {override!r}: the value is not YAML; quote it.") from None
    node = tree
    for part in parts[:-1]:
        child = node.get(part)
        if isinstance(child, str):  # the shorthand `objective: anil` is given options
            child = {"name": child}
        node[part] = child if isinstance(child, dict) else {}
        node = node[part]
    node[parts[-1]] = value
