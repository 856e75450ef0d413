"""What a run starts from: data that has the episodes it needs, a learner, meta-parameters that fit both."""

from __future__ import annotations

import torch

from metacl.config import RunConfig
from metacl.errors import ConfigError
from metacl.learners.base import Learner, Params, use_threads
from metacl.tasks import TaskAddress


def check_data(config: RunConfig, training: bool = True) -> str:
    """Read the data and check that every episode the run needs can be drawn. Returns one line about it."""
    source = config.data.open()
    if training:
        source.check("train", config.episodes)
        if config.outer.held_out is not None:
            source.check("valid", config.episodes)
    if config.evaluation is not None:
        source.check(config.evaluation.split, config.evaluation.shape)
    return source.describe()


def starting_point(config: RunConfig) -> tuple[Learner, Params]:
    """The learner and the meta-parameters before training. Raises `ConfigError` if the estimator cannot take it."""
    use_threads(config.workers.threads)
    learner = config.learner.build(config.seed)
    config.estimator.check_learner(learner)
    return learner, config.objective.meta_parameters(learner, config.inner, config.episodes.ways)


def check_arrays(config: RunConfig, learner: Learner, initial: Params) -> None:
    """Arrays say nothing of their shapes in a config: the first episode goes through the learner once."""
    if config.data.gives != "arrays":
        return
    task = learner.prepare(config.data.open().episode(TaskAddress("train", config.seed, 0, 0), config.episodes))
    problem = config.objective.problem(learner, initial, task, config.inner)
    try:
        with torch.no_grad():
            problem.query_loss(problem.start(initial), initial)
    except RuntimeError as error:
        raise ConfigError(
            f"learner: an episode of this data does not go through it ({str(error).splitlines()[0]}). Rows have the "
            f"shape {tuple(task.support.input.shape[1:])}; set the learner's inputs to it."
        ) from None
