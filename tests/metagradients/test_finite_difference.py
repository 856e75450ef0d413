"""Finite-difference Hessian products against the exact walk, and the networks they are refused on."""

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

from metacl.adaptation import InnerLoop
from metacl.api import starting_point
from metacl.config import config_from_dict
from metacl.coordination.executor import LocalExecutor
from metacl.coordination.flat import FlatLayout
from metacl.coordination.worker import MetaGradientWork, relative_distance
from metacl.errors import ConfigError
from metacl.learners.partition import Partition
from metacl.metagradients import FiniteDifference, Reverse, kinks
from metacl.tasks import TaskAddress
from tests.helpers import TinyLearner, TinyLearnerConfig, tiny_config
from tests.metagradients.problems import LEARN, RULES, loop_of, problem_of, relative_error, scalar_problem


@pytest.mark.parametrize("learn", LEARN)
@pytest.mark.parametrize("steps", [0, 1, 5, 10])
@pytest.mark.parametrize("rule", RULES)
def test_central_differences_come_near_the_exact_gradient(rule, steps, learn):
    problem = problem_of(loop_of(rule, steps, learn))
    found, exact = FiniteDifference().estimate(problem), Reverse().estimate(problem)
    assert found.query_loss == pytest.approx(exact.query_loss, rel=1e-12)
    assert found.support_losses == pytest.approx(exact.support_losses, rel=1e-12)
    assert relative_error(found.gradient, exact.gradient) < 1e-5


@pytest.mark.parametrize("rule", RULES)
def test_one_sided_differences_are_less_exact(rule):
    problem = problem_of(loop_of(rule, 5, "tensor_and_step"))
    exact = Reverse().estimate(problem).gradient
    one_sided = relative_error(FiniteDifference(central=False).estimate(problem).gradient, exact)
    assert relative_error(FiniteDifference().estimate(problem).gradient, exact) < one_sided < 5e-3


@pytest.mark.parametrize(("central", "order"), [(True, 2), (False, 1)])
def test_order_of_the_error(central, order):
    problem = problem_of(loop_of("sgd", 3, "tensor"))
    exact = Reverse().estimate(problem).gradient
    coarse, fine = (
        relative_error(FiniteDifference(central=central, epsilon=epsilon).estimate(problem).gradient, exact)
        for epsilon in (4e-3, 1e-3)
    )
    assert coarse / fine == pytest.approx(4**order, rel=0.1)


@pytest.mark.parametrize("central", [True, False])
def test_quadratic_is_met_exactly(central):
    # Its gradient is linear, so any difference of it is exact. Numbers as in test_exact.
    loop = InnerLoop(steps=3, step_size={"value": 0.1, "learn": "tensor"})
    problem = scalar_problem(loop, lambda x: (x - 1) ** 2, lambda x: 1.5 * (x + 1) ** 2, start=2.0)
    problem.meta["step_size.x"].data.fill_(0.1)
    gradient = FiniteDifference(central=central).estimate(problem).gradient
    assert gradient["x"].item() == pytest.approx(3.858432, rel=1e-10)
    assert gradient["step_size.x"].item() == pytest.approx(-28.93824, rel=1e-10)


def test_start_at_zero_and_what_nothing_depends_on():
    loop = InnerLoop(steps=2, step_size={"value": 0.25, "learn": "tensor"})
    problem = scalar_problem(loop, lambda x: (x - 1) ** 2, lambda x: x**2, start=0.0)
    problem.meta["unused"] = torch.ones(2, dtype=torch.float64, requires_grad=True)
    gradient = FiniteDifference().estimate(problem).gradient  # x_2 = 3/4, d x_2 / d x = 1/4
    assert gradient["x"].item() == pytest.approx(2 * 0.75 * 0.25, rel=1e-10)
    assert torch.equal(gradient["unused"], torch.zeros(2, dtype=torch.float64))


def test_query_that_ignores_what_adapts():
    problem = scalar_problem(InnerLoop(steps=2), lambda x: x**2, lambda x: 0.0 * x, start=1.0)
    assert FiniteDifference().estimate(problem).gradient["x"].item() == 0.0


@pytest.mark.parametrize(("central", "calls"), [(True, 2), (False, 1)])
def test_what_a_step_costs(central, calls):
    problem = problem_of(loop_of("sgd", 4, "tensor"))
    descend, asked = problem.support_loss, []
    problem.support_loss = lambda theta, phi, step: asked.append(step) or descend(theta, phi, step)
    FiniteDifference(central=central).estimate(problem)
    assert len(asked) == 4 + 4 * calls


def test_is_wrong_across_kinks():
    # The reason for the refusal. |x| summed over many kinks: its Hessian is zero almost everywhere.
    places = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    loop = InnerLoop(steps=1, step_size={"value": 0.1, "learn": "none"})
    problem = scalar_problem(loop, lambda x: (x - places).relu().mean(), lambda x: x**2, start=0.5003)
    exact, found = (estimator.estimate(problem).gradient["x"].item() for estimator in (Reverse(), FiniteDifference()))
    assert abs(found - exact) > 0.01 * abs(exact)


def smooth_and_kinked():
    return nn.Sequential(
        nn.Linear(2, 2), nn.GELU(), nn.ReLU(), nn.Sequential(nn.ReLU(), nn.MaxPool1d(2)), nn.ReLU(), nn.ReLU()
    )


def test_kinks_are_named_with_their_places():
    assert kinks(smooth_and_kinked()) == ["ReLU (at 2, 3.0, 4 and 1 more)", "MaxPool1d (at 3.1)"]
    assert kinks(nn.LeakyReLU()) == ["LeakyReLU (at the module itself)"]
    assert kinks(nn.Sequential(nn.Tanh(), nn.GELU(), nn.SiLU(), nn.Softplus(), nn.ELU(), nn.AvgPool2d(2))) == []
    assert kinks(nn.ELU(alpha=0.5)) == ["ELU (at the module itself)"]


def tiny(**options):
    sizes = dict(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    return {**sizes, **options}


def test_kinks_of_transformers():
    assert kinks(BertModel(BertConfig(**tiny()))) == []
    found = kinks(BertModel(BertConfig(**tiny(hidden_act="relu"))))
    assert any("config.hidden_act" in line for line in found)
    assert any(line.startswith("ReLU (at encoder.layer.0") for line in found)
    assert kinks(GPT2Model(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=1))) == []


def test_refusal_names_the_kinks_and_the_mend():
    learner = TinyLearner()
    FiniteDifference().check_learner(learner)
    learner.module = smooth_and_kinked()
    with pytest.raises(ConfigError) as caught:
        FiniteDifference().check_learner(learner)
    for word in ("ReLU (at 2", "MaxPool1d (at 3.1)", "estimator=reverse", "estimator.accept_kinks=true"):
        assert word in str(caught.value)
    FiniteDifference(accept_kinks=True).check_learner(learner)
    Reverse().check_learner(learner)


class KinkedConfig(TinyLearnerConfig):
    def build(self, *args, **kwargs):
        learner = super().build(*args, **kwargs)
        learner.module = smooth_and_kinked()
        return learner


def test_refused_before_training(tmp_path):
    with pytest.raises(ConfigError, match="wrong across kinks"):
        starting_point(tiny_config(tmp_path, learner=KinkedConfig(), estimator="finite_difference"))
    starting_point(tiny_config(tmp_path, learner=KinkedConfig(), estimator="reverse"))


def test_error_is_monitored_on_the_first_task_of_some_steps(tmp_path):
    config = tiny_config(tmp_path, estimator={"name": "finite_difference", "monitor_every": 2})
    _, initial = starting_point(config)
    executor = LocalExecutor(config, lambda line: None)
    executor.start()
    addresses = [TaskAddress("train", 0, step, index) for step in range(3) for index in range(2)]
    done = list(executor.map(MetaGradientWork(), addresses, FlatLayout.of(initial).flatten(initial)))
    errors = {(item.address.step, item.address.index): item.result.estimator_error for item in done}
    assert [where for where, error in errors.items() if error is not None] == [(0, 0), (2, 0)]
    assert all(0 < error < 1e-3 for error in errors.values() if error is not None)


def test_relative_distance():
    one, other, zero = ({"a": torch.tensor([3.0 + n]), "b": torch.tensor(4.0 + n)} for n in (0, 5, 0))
    zero = {name: 0 * tensor for name, tensor in zero.items()}
    assert relative_distance(other, one, Partition()) == pytest.approx(50**0.5 / 5)
    assert relative_distance(zero, zero, Partition()) == 0.0
    assert relative_distance(one, zero, Partition()) == float("inf")


def test_monitoring_needs_a_second_derivative():
    tree = {
        "name": "small",
        "learner": {"name": "text_classifier", "attention": "sdpa"},
        "data": {"name": "labelled_text", "dataset": "oos"},
        "estimator": {"name": "finite_difference"},
    }
    assert config_from_dict(tree).estimator == FiniteDifference()
    tree["estimator"]["monitor_every"] = 5
    with pytest.raises(ConfigError, match=r"estimator\.monitor_every=0"):
        config_from_dict(tree)


SHARDED = {
    "name": "small",
    "learner": {"name": "text_classifier"},
    "data": {"name": "labelled_text", "dataset": "oos"},
    "workers": {"executor": "ray", "zero_stage": 1},
}


@pytest.mark.parametrize("estimator", ["reverse", "finite_difference", "first_order", "reptile"])
def test_sharding_stage_that_works(estimator):
    assert config_from_dict({**SHARDED, "estimator": estimator}).workers.zero_stage == 1


def test_sharding_stage_that_does_not_work_names_what_does():
    with pytest.raises(ConfigError) as caught:
        config_from_dict({**SHARDED, "estimator": "unrolled"})
    assert "workers.zero_stage: 1, but estimator 'unrolled' works with stage 0" in str(caught.value)
    assert "Set workers.zero_stage=0, or estimator=reverse" in str(caught.value)
    local = {**SHARDED, "estimator": "unrolled", "workers": {"executor": "local", "zero_stage": 1}}
    assert config_from_dict(local).estimator.registered_name == "unrolled"


@pytest.mark.parametrize("option", [{"epsilon": 0.0}, {"epsilon": 1.0}, {"monitor_every": -1}])
def test_options_that_cannot_be(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        FiniteDifference(**option)
