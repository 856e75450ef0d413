"""Traced and compiled pieces give the eager gradient, for every task, from one compilation."""

import pytest
import torch

from metacl.errors import ConfigError
from metacl.learners.base import as_leaves
from metacl.metagradients import FiniteDifference, Reverse, compiled
from metacl.objectives import ProtoMAML
from metacl.tasks import EpisodeShape, TaskAddress
from tests.small_runs import save_tiny_bert, small_config


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    model = save_tiny_bert(folder / "model")
    config = small_config(
        model,
        folder / "run",
        learner__padding="max_length",
        inner={"steps": 3, "step_size": {"value": 0.05, "head": 0.05}},
    )
    return config, config.data.open()


def problems(setting, learner):
    """Two tasks of one shape, from a start in the middle of training."""
    config, source = setting
    torch.manual_seed(0)
    start = config.objective.meta_parameters(learner, config.inner, ways=3)
    start = {name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in start.items()}
    for index in range(2):
        episode = source.episode(TaskAddress("train", 0, 0, index), config.episodes)
        yield config.objective.problem(learner, as_leaves(start), learner.prepare(episode), config.inner)


def norm_error(found, expected):
    """Of the whole gradient: other kernels round otherwise, and single step sizes are small differences of sums."""
    difference = sum(float((found[name] - g).double().square().sum()) for name, g in expected.items())
    return (difference / sum(float(g.double().square().sum()) for g in expected.values())) ** 0.5


def check(setting, eager, fast, bound):
    learner = setting[0].learner.build(0)
    for problem in problems(setting, learner):
        expected, found = eager.estimate(problem), fast.estimate(problem)
        assert norm_error(found.gradient, expected.gradient) <= bound
        assert found.support_losses == pytest.approx(expected.support_losses, rel=1e-4)
    (traced,) = learner.traced.values()
    return traced


def test_without_a_compiler_the_traced_pieces_run(setting, monkeypatch, caplog):
    monkeypatch.setattr(compiled, "compiler_here", lambda: False)
    traced = check(setting, Reverse(), Reverse(compile=True), 1e-5)
    assert len(traced._pieces) == 2  # the gradient and its product, once for both tasks
    assert "no C++ compiler" in caplog.text


def test_a_failing_compiler_is_announced_and_done_without(setting, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no space left")

    monkeypatch.setattr(torch._inductor, "compile", fail)
    monkeypatch.setattr(compiled, "compiler_here", lambda: True)
    check(setting, Reverse(), Reverse(compile=True), 1e-5)
    assert "no space left" in caplog.text


def test_one_sided_differences_from_the_traced_gradient(setting, monkeypatch):
    monkeypatch.setattr(compiled, "compiler_here", lambda: False)
    check(setting, FiniteDifference(central=False), FiniteDifference(central=False, compile=True), 1e-2)


@pytest.mark.slow
@pytest.mark.skipif(not compiled.compiler_here(), reason="no C++ compiler on this machine")
def test_compiled(setting):
    check(setting, Reverse(), Reverse(compile=True), 1e-5)


def test_an_objective_with_its_own_support_loss_is_not_compiled(setting):
    class Doubled(ProtoMAML):
        """Twice the loss at every other step: tracing it once would be wrong."""

        def support_loss(self, learner, params, task, step):
            return (1 + step % 2) * super().support_loss(learner, params, task, step)

    config, source = setting
    learner = config.learner.build(0)
    task = learner.prepare(source.episode(TaskAddress("train", 0, 0, 0), EpisodeShape(ways=3, shots=1, queries=2)))
    meta = as_leaves(Doubled().meta_parameters(learner, config.inner, 3))
    problem = Doubled().problem(learner, meta, task, config.inner)
    assert problem.traced is None
    found = Reverse(compile=True).estimate(problem)
    assert norm_error(found.gradient, Reverse().estimate(problem).gradient) == 0


def test_ever_new_shapes_are_refused(setting, tmp_path):
    with pytest.raises(ConfigError, match=r"learner\.padding=max_length"):
        small_config("x", tmp_path, estimator={"name": "reverse", "compile": True})
    with pytest.raises(ConfigError, match=r"estimator\.allowance=one"):
        small_config("x", tmp_path, estimator={"name": "reverse", "compile": True, "allowance": "all"})
