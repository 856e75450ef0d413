"""Any module as a learner, against the same module called and differentiated directly."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from metacl.adaptation import InnerLoop
from metacl.errors import ConfigError
from metacl.learners import ModuleLearner
from metacl.learners.base import as_leaves
from metacl.metagradients import FirstOrder, Reverse, Unrolled
from metacl.objectives import ANIL, MAML, ProtoMAML
from tests.metagradients.problems import relative_error


def regressor():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1)).double()


class ConvNet(nn.Module):
    """Two 3×3 convolutions with batch norm, and a linear head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.GELU(), nn.Conv2d(3, 2, 3), nn.GELU())
        self.head = nn.Linear(2 * 4, 3)
        self.double()

    def forward(self, images):
        return self.head(self.body(images).flatten(1))


def waves(learner):
    x = torch.linspace(-1, 1, 8, dtype=torch.float64).unsqueeze(-1)
    return learner.task(support=(x[::2], torch.sin(3 * x[::2])), query=(x[1::2], torch.sin(3 * x[1::2])))


def images(learner):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(12, 1, 6, 6, dtype=torch.float64, generator=generator)
    y = torch.arange(12) % 3
    return learner.task(support=(x[:6], y[:6]), query=(x[6:], y[6:]), ways=3)


def meta_of(objective, learner, loop, ways=0):
    return as_leaves({n: t.double() for n, t in objective.meta_parameters(learner, loop, ways).items()})


def test_is_the_module():
    module = regressor()
    learner = ModuleLearner(module, F.mse_loss)
    task = waves(learner)
    expected = F.mse_loss(module(task.support.input), task.support.targets)
    assert torch.equal(learner.loss(learner.initial, task.support), expected)
    assert list(learner.initial) == ["module.0.weight", "module.0.bias", "module.2.weight", "module.2.bias"]
    assert learner.base_parameters == 0


def test_maml_written_out():
    learner = ModuleLearner(regressor(), F.mse_loss)
    loop = InnerLoop(steps=2, step_size={"value": 0.125, "learn": "none"})
    task = waves(learner)
    meta = meta_of(MAML(), learner, loop)
    found = Reverse().estimate(MAML().problem(learner, meta, task, loop))

    module = learner.module
    params = dict(module.named_parameters())

    def loss_at(theta, batch):
        return F.mse_loss(functional_call(module, theta, (batch.input,)), batch.targets)

    theta = params
    for _ in range(2):
        grads = torch.autograd.grad(loss_at(theta, task.support), list(theta.values()), create_graph=True)
        theta = {name: t - 0.125 * g for (name, t), g in zip(theta.items(), grads, strict=True)}
    query = loss_at(theta, task.query)
    expected = torch.autograd.grad(query, list(params.values()))
    assert found.query_loss == pytest.approx(float(query.detach()), rel=1e-12)
    assert relative_error(found.gradient, dict(zip(meta, expected, strict=True))) < 1e-12


@pytest.mark.parametrize("training", [True, False])
def test_convolutions_with_batch_norm(training):
    module = ConvNet().train(training)
    learner = ModuleLearner(module, F.cross_entropy, head="head")
    loop = InnerLoop(steps=3, step_size={"learn": "layer"})
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    meta = meta_of(MAML(), learner, loop, ways=3)
    assert {n for n in meta if n.startswith("step_size.")} == {
        f"step_size.{layer}" for layer in ("module.body.0", "module.body.1", "module.body.3", "head")
    }
    problem = MAML().problem(learner, meta, images(learner), loop)
    found, expected = Reverse().estimate(problem), Unrolled().estimate(problem)
    assert relative_error(found.gradient, expected.gradient) < 1e-10
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_anil_adapts_the_named_head():
    learner = ModuleLearner(ConvNet(), F.cross_entropy, head="head")
    loop = InnerLoop(steps=2, step_size={"learn": "none"})
    meta = meta_of(ANIL(), learner, loop, ways=3)
    problem = ANIL().problem(learner, meta, images(learner), loop)
    assert list(problem.start(meta)) == ["head.weight", "head.bias"]
    assert FirstOrder().estimate(problem).gradient["module.body.0.weight"].abs().max() > 0


def test_frozen_parameters_stay_out():
    module = ConvNet()
    module.body.requires_grad_(False)
    learner = ModuleLearner(module, F.cross_entropy, head="head")
    assert list(learner.initial) == ["head.weight", "head.bias"]
    assert learner.base_parameters == sum(p.numel() for p in module.body.parameters())


def test_arrays_lists_and_tensors_are_the_same():
    learner = ModuleLearner(regressor().float(), F.mse_loss)
    x = np.arange(6, dtype=np.float64).reshape(3, 2)
    batches = [learner.encode(inputs, [0, 2, 1]) for inputs in (x, x.tolist(), torch.tensor(x), list(torch.tensor(x)))]
    for batch in batches:
        assert torch.equal(batch.input, torch.tensor(x, dtype=torch.float32))
        assert batch.targets.tolist() == [0, 2, 1]
    assert batches[0].targets.dtype == torch.int64
    assert learner.encode(x, None).targets is None


def test_what_a_bare_module_lacks():
    learner = ModuleLearner(regressor(), F.mse_loss)
    loop = InnerLoop(steps=1)
    with pytest.raises(ConfigError, match="Set objective=maml"):
        ProtoMAML().problem(learner, meta_of(ProtoMAML(), learner, loop), waves(learner), loop).start(learner.initial)
    with pytest.raises(ConfigError, match="finds nothing that adapts"):
        ANIL().meta_parameters(learner, loop, ways=0)
    with pytest.raises(ConfigError, match="no PEFT adapter"):
        learner.peft_config()


def test_modules_that_are_refused():
    with pytest.raises(ConfigError, match="dropout is active at 1"):
        ModuleLearner(nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5)), F.mse_loss)
    ModuleLearner(nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5)).eval(), F.mse_loss)
    with pytest.raises(ConfigError, match="no parameter requires gradients"):
        ModuleLearner(nn.Linear(1, 1).requires_grad_(False), F.mse_loss)
    with pytest.raises(ConfigError, match="no parameter under 'clasifier'"):
        ModuleLearner(ConvNet(), F.cross_entropy, head="clasifier")
