"""Whether the sections of a run fit together; what does not is told with the key to change."""

from __future__ import annotations

from metacl.config.faults import NEEDS_GROUPS
from metacl.config.sections import Sections
from metacl.config.workers import Workers
from metacl.learners import LearnerConfig
from metacl.metagradients import ESTIMATORS
from metacl.tasks import TASK_SOURCES


def check_fits_together(run: Sections) -> None:
    """Raise `ValueError` for the first thing that does not fit; its message names what to set."""
    _check_faults(run)
    _check_data(run)
    _check_sizes(run)
    _check_evaluation(run)
    _check_shards(run)
    _check_estimator(run)
    _check_compiling(run)
    _check_tasks_per_forward(run)
    _check_asynchronous(run)
    _check_zero_stage(run)
    run.estimator.check_loop(run.inner)
    run.objective.check_fits(run.episodes, run.inner)
    _check_parameters_in_parts(run)


def _check_faults(run: Sections) -> None:
    for position, fault in enumerate(run.faults):
        if fault.kind in NEEDS_GROUPS and run.workers.executor == "local":
            raise ValueError(f"faults.{position}: {fault.kind} needs worker groups. Set workers.executor=ray")
        if fault.rank is not None and fault.rank >= run.workers.ranks_per_group:
            last = run.workers.ranks_per_group - 1
            raise ValueError(f"faults.{position}.rank: {fault.rank}, but a group has ranks 0 to {last}")
        if fault.kind == "kill_shard" and run.workers.gradient_shards == 1:
            raise ValueError(f"faults.{position}: kill_shard needs shards. Set workers.gradient_shards=2 or more")


def _check_data(run: Sections) -> None:
    if run.data.gives != run.learner.takes:
        raise ValueError(
            f"learner: {run.learner.registered_name or type(run.learner).__name__} takes {run.learner.takes}, "
            f"but data {run.data.registered_name!r} gives {run.data.gives}. {_partner(run.learner.takes)}"
        )
    marker = run.data.completion_marker
    if marker is not None and run.learner.scores_after != marker:
        raise ValueError(
            f"learner.completion_after: {run.learner.scores_after!r}, but data {run.data.registered_name!r} puts "
            f"{marker!r} between prompt and completion. Set learner.completion_after to that"
        )


def _check_evaluation(run: Sections) -> None:
    if run.evaluation and not run.data.classes:
        texts = f", and measure perplexity when the run is done: metacl evaluate {run.folder}"
        raise ValueError(
            f"evaluation: it counts right answers, and data {run.data.registered_name!r} has no classes. "
            f"Set evaluation=null{texts if run.data.gives == 'text' else ''}"
        )
    has_head = run.objective.fixed_ways and run.learner.classifies
    if run.evaluation and has_head and run.evaluation.shape.ways != run.episodes.ways:
        raise ValueError(
            f"evaluation.shape.ways: {run.evaluation.shape.ways}, but {run.objective.registered_name} learns a "
            f"head for episodes.ways = {run.episodes.ways}. Make them equal, or set objective=proto_maml"
        )
    if run.evaluation and not run.learner.classifies and run.evaluation.shape.ways < 2:
        raise ValueError(
            "evaluation.shape.ways: 1, but one class leaves nothing to tell apart. Set it to 2 or more, or leave "
            "evaluation out; metacl evaluate RUN measures perplexity"
        )


def _check_shards(run: Sections) -> None:
    if run.workers.gradient_shards > 1 and not run.outer.aggregator.by_coordinates:
        raise ValueError(
            f"workers.gradient_shards: {run.workers.gradient_shards}, but aggregator "
            f"{run.outer.aggregator.registered_name!r} looks at whole gradients. "
            f"Set workers.gradient_shards=1, or outer.aggregator=mean"
        )


def _check_estimator(run: Sections) -> None:
    if run.objective.asks_along and not run.estimator.sees_path:
        raise ValueError(
            f"estimator {run.estimator.registered_name!r} does not see what objective "
            f"{run.objective.registered_name!r} asks on the way. Set estimator=reverse or estimator=first_order"
        )
    if run.estimator.needs_double_backward and not run.learner.double_backward:
        raise ValueError(
            f"estimator {run.estimator.registered_name!r} differentiates twice, and fused attention has no second "
            f"derivative. Set learner.attention=eager, estimator=finite_difference, or estimator=first_order"
        )
    if run.estimator.monitored(0, 0) and not run.learner.double_backward:
        raise ValueError(
            "estimator.monitor_every: comparing with reverse differentiates twice, and fused attention has no "
            "second derivative. Set learner.attention=eager, or estimator.monitor_every=0"
        )


def _check_compiling(run: Sections) -> None:
    if run.estimator.wants_few_shapes and not run.learner.few_shapes:
        raise ValueError(
            "estimator.compile: every new shape of a batch would be compiled for about a minute. "
            "Set learner.padding=packed (or max_length), or estimator.compile=false"
        )
    if run.estimator.wants_few_shapes and (run.workers.ranks_per_group > 1 or run.workers.zero_stage == 3):
        raise ValueError(
            "estimator.compile: messages among ranks cannot be compiled. Set estimator.compile=false, or "
            "workers.ranks_per_group=1 and workers.zero_stage=0"
        )


def _check_zero_stage(run: Sections) -> None:
    stage, possible = run.workers.zero_stage, sorted(run.estimator.sharding_stages)
    if run.workers.executor == "ray" and stage not in possible:
        raise ValueError(
            f"workers.zero_stage: {stage}, but estimator {run.estimator.registered_name!r} works with stage "
            f"{' or '.join(map(str, possible))}. Set workers.zero_stage={possible[-1]}"
            f"{_estimator_for(stage, run.learner.double_backward)}"
        )
    check_prompt(run.learner, run.workers)


def check_prompt(learner: LearnerConfig, workers: Workers) -> None:
    """Raise `ValueError` for a prompt before embeddings that lie in shards."""
    adapter = getattr(learner, "adapter", None)
    if adapter is not None and adapter.prompt_tokens and workers.executor == "ray" and workers.zero_stage == 3:
        raise ValueError(
            "workers.zero_stage: 3, but a prompt comes before the embeddings, which are in shards then. "
            "Set workers.zero_stage=2, or learner.adapter.kind=lora"
        )


def _check_parameters_in_parts(run: Sections) -> None:
    if not run.parameters_in_parts:
        return
    reasons = (
        (
            not run.estimator.takes_parts,
            f"estimator: {run.estimator.registered_name!r} takes whole tensors. "
            f"Set estimator=reverse, finite_difference, first_order or reptile",
        ),
        (
            run.inner.precondition is not None,
            "inner.precondition: it multiplies the sides of whole matrices. Set inner.precondition=null",
        ),
        (
            run.workers.offload == "nvme",
            "workers.offload: nvme is for a frozen base. Set workers.offload=cpu",
        ),
        (
            run.workers.gradient_shards > 1,
            "workers.gradient_shards: each part combines its own gradients. Set workers.gradient_shards=1",
        ),
        (
            not run.outer.aggregator.by_coordinates,
            f"outer.aggregator: {run.outer.aggregator.registered_name!r} looks at whole gradients. "
            f"Set outer.aggregator=mean",
        ),
        (
            run.outer.asynchronous is not None,
            "outer.asynchronous: the parts move together. Set outer.asynchronous=null",
        ),
    )
    for holds, reason in reasons:
        if holds:
            raise ValueError(f"{reason}, or workers.zero_stage=2: at stage 3 every parameter that adapts lies in parts")


def _check_sizes(run: Sections) -> None:
    """Episodes of several sizes need a source, an objective and an evaluation that can do with them."""
    if run.evaluation and run.evaluation.shape.varies:
        raise ValueError(
            "evaluation.shape: the protocol measures one N and K. Give numbers for ways and shots, no ranges"
        )
    if not run.episodes.varies:
        return
    if not run.data.sizes_vary:
        raise ValueError(f"episodes: a range, but data {run.data.registered_name!r} draws one size. Give numbers")
    if run.episodes.min_ways is not None and run.objective.fixed_ways:
        raise ValueError(
            f"episodes.ways: a range, but {run.objective.registered_name} learns a head for one N. Give a number, "
            f"or set objective=proto_maml"
        )
    if run.estimator.wants_few_shapes:
        raise ValueError(
            "estimator.compile: every size of an episode would be compiled. Give numbers for episodes.ways and "
            "episodes.shots, or set estimator.compile=false"
        )


def _check_tasks_per_forward(run: Sections) -> None:
    if run.workers.tasks_per_forward == 1:
        return
    estimator, objective = run.estimator.registered_name, run.objective.registered_name
    sharded = run.workers.ranks_per_group > 1 or run.workers.zero_stage == 3
    reasons = (
        (not run.estimator.side_by_side, f"estimator {estimator!r} goes task by task. Set estimator=reverse"),
        (not run.objective.pure, f"{objective!r} is not known to depend on tensors alone. Set objective=maml"),
        (not run.learner.few_shapes, "every text batch has a shape of its own. Set learner.padding=packed"),
        (run.episodes.varies, "episodes differ in size. Give numbers for episodes.ways and episodes.shots"),
        (sharded, "messages among ranks cannot be vectorized. Set workers.ranks_per_group=1, workers.zero_stage=0"),
        (bool(run.faults), "faults strike single tasks. Set faults=[]"),
    )
    for holds, reason in reasons:
        if holds:
            raise ValueError(
                f"workers.tasks_per_forward: {run.workers.tasks_per_forward}, but {reason}, or "
                f"workers.tasks_per_forward=1"
            )


def _check_asynchronous(run: Sections) -> None:
    if run.outer.asynchronous is None:
        return
    reasons = (
        (run.workers.executor == "local", "one process has nobody to wait for. Set workers.executor=ray"),
        (run.outer.accumulate > 1, "a step is of any tasks. Set outer.tasks_per_step higher and accumulate=1"),
        (run.outer.held_out is not None, "measuring makes all groups wait. Set outer.held_out=null"),
        (run.workers.gradient_shards > 1, "a shard holds one step. Set workers.gradient_shards=1"),
        (run.workers.tasks_per_forward > 1, "tasks come one by one. Set workers.tasks_per_forward=1"),
        (run.workers.stragglers.policy == "drop", "nothing waits for stragglers. Set stragglers.policy=wait"),
    )
    for holds, reason in reasons:
        if holds:
            raise ValueError(f"outer.asynchronous: {reason}, or outer.asynchronous=null")


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
