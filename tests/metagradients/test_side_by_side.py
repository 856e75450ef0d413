"""Tasks side by side give the gradients of tasks one by one."""

import pytest
import torch
from torch import nn

from metacl.adaptation import InnerLoop, StepSizes
from metacl.errors import ConfigError
from metacl.learners import ModuleLearner
from metacl.learners.base import as_leaves
from metacl.metagradients import FirstOrder, InnerLoopDiverged, Reptile, Reverse, compiled, estimate_side_by_side
from metacl.objectives import MAML, ProtoMAML
from metacl.tasks import TaskAddress
from tests.small_runs import save_tiny_bert, small_config

OPTIMIZERS = [
    {"name": "sgd"},
    {"name": "sgd", "momentum": 0.9, "nesterov": True},
    {"name": "adam"},
    {"name": "adamw", "weight_decay": 0.1},
]


def network_problems(loop, count=3, module=None, value=lambda x: (3 * x).sin()):
    """Regression of one network on tasks of their own, in float64."""
    torch.manual_seed(0)
    network = (module or nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))).double()
    learner = ModuleLearner(network, nn.functional.mse_loss)
    meta = as_leaves({name: t.double() for name, t in MAML().meta_parameters(learner, loop, 0).items()})
    for task in range(count):
        x = torch.randn(5, 1, generator=torch.Generator().manual_seed(task))
        yield MAML().problem(learner, meta, learner.task((x, value(x + task)), (x + 1, value(x + 1 + task))), loop)


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name, gradient in other.gradient.items():
            torch.testing.assert_close(one.gradient[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("estimator", [Reverse(), Reverse(allowance="all"), FirstOrder(), Reptile()], ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_every_inner_optimizer(estimator, optimizer):
    loop = InnerLoop(steps=3, optimizer=optimizer, step_size=StepSizes(value=0.05, learn="none"))
    problems = list(network_problems(loop))
    expected = [estimator.estimate(problem) for problem in problems]
    found = estimate_side_by_side(estimator, problems)
    assert_same(found, expected)
    mean = sum(result.query_loss for result in expected) / 3
    assert [result.query_loss for result in found] == pytest.approx([mean] * 3)


@pytest.mark.parametrize(
    "learn", ["scalar", "layer", "layer_and_step", "tensor", "tensor_and_step", "parameter"]
)
def test_every_shape_of_learned_step_sizes(learn):
    loop = InnerLoop(steps=2, proximal=0.1, step_size=StepSizes(value=0.05, learn=learn))
    problems = list(network_problems(loop))
    assert_same(estimate_side_by_side(Reverse(), problems), [Reverse().estimate(problem) for problem in problems])


def test_a_learned_preconditioner():
    loop = InnerLoop(steps=2, precondition={"name": "meta_curvature"}, step_size=StepSizes(value=0.05))
    problems = list(network_problems(loop))
    assert_same(estimate_side_by_side(Reverse(), problems), [Reverse().estimate(problem) for problem in problems])


def text_problems(folder, padding):
    config = small_config(save_tiny_bert(folder / "model"), folder / "run", learner__padding=padding)
    source, learner = config.data.open(), config.learner.build(0)
    learner.adapted.model.double()
    meta = ProtoMAML().meta_parameters(learner, config.inner, 3)
    meta = as_leaves({name: tensor.double() for name, tensor in meta.items()})
    shapes = [config.episodes, config.episodes.model_copy(update={"queries": 4})]  # two sizes in turn
    tasks = [learner.prepare(source.episode(TaskAddress("train", 0, 0, i), shapes[i % 2])) for i in range(5)]
    return [ProtoMAML().problem(learner, meta, task, config.inner) for task in tasks]


def test_packed_texts_go_together_where_their_shapes_agree(tmp_path):
    problems = text_problems(tmp_path, "packed")
    shapes = {tuple(tensor.shape for tensor in problem.data) for problem in problems}
    assert 1 < len(shapes) < len(problems)  # else this tests less than it says
    assert_same(estimate_side_by_side(Reverse(), problems), [Reverse().estimate(problem) for problem in problems])


def test_an_encoder_that_looks_at_its_masks_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"learner\.padding=packed"):
        estimate_side_by_side(Reverse(), text_problems(tmp_path, "max_length"))


def test_compiled_pieces_of_stacked_tasks(monkeypatch):
    monkeypatch.setattr(compiled, "compiler_here", lambda: False)
    loop = InnerLoop(steps=3, step_size=StepSizes(value=0.05))
    problems = list(network_problems(loop))
    found = estimate_side_by_side(Reverse(compile=True), problems)
    assert_same(found, [Reverse().estimate(problem) for problem in problems])
    assert len(problems[0].traced.stacked._compiled) == 2  # inner gradient and query loss: it did go that way


def test_divergence_is_raised():
    loop = InnerLoop(steps=60, step_size=StepSizes(value=1e6, learn="none"))
    with pytest.raises(InnerLoopDiverged):
        estimate_side_by_side(Reverse(), list(network_problems(loop, module=nn.Linear(1, 1))))


class Branches(nn.Module):
    """Looks at a value, which a batch of tasks has several of."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.scale if x.sum() > 0 else -x * self.scale


def test_a_model_that_cannot_be_vectorized_is_refused():
    loop = InnerLoop(steps=1, step_size=StepSizes(value=0.05, learn="none"))
    with pytest.raises(ConfigError, match=r"tasks_per_forward=1"):
        estimate_side_by_side(Reverse(), list(network_problems(loop, module=Branches())))
