"""The exact meta-gradient of the very model, data and loop that `make demo` trains, against `higher`."""

from pathlib import Path

import torch

import metacl
from metacl.learners.base import as_leaves
from metacl.metagradients import Reverse, Unrolled
from metacl.tasks import TaskAddress


def test_reverse_agrees_with_higher_on_the_demo():
    config = metacl.load_config(Path(__file__).parents[2] / "configs/demo.yaml")
    assert isinstance(config.estimator, Reverse)
    learner = config.learner.build(config.seed)
    torch.manual_seed(1)  # B = 0 makes half of the gradient zero; a start in the middle of training does not
    start = config.objective.meta_parameters(learner, config.inner, config.episodes.ways)
    start = {n: t + 0.02 * torch.randn_like(t) if n.startswith("adapter.") else t for n, t in start.items()}
    task = learner.prepare(config.data.open().episode(TaskAddress("train", 0, 0, 0), config.episodes))
    problem = config.objective.problem(learner, as_leaves(start), task, config.inner)
    ours, oracle = Reverse().estimate(problem), Unrolled().estimate(problem)
    assert ours.query_loss == oracle.query_loss
    error = sum(float((ours.gradient[n].double() - g.double()).square().sum()) for n, g in oracle.gradient.items())
    size = sum(float(g.double().square().sum()) for g in oracle.gradient.values())
    assert (error / size) ** 0.5 <= 1e-5
    for family in ("adapter.", "step_size."):
        assert any(g.abs().max() > 0 for n, g in ours.gradient.items() if n.startswith(family))
