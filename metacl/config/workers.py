"""The section ``workers``: who computes the tasks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from metacl.registry import Component


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
