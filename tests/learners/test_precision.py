"""A bfloat16 base against the float32 one: close, finite, and nothing but the frozen matrices is rounded."""

import pytest
import torch
from torch import nn

from metacl.adaptation import InnerLoop
from metacl.learners import Task, TextClassifierConfig, precision
from metacl.learners.adapter import AdapterConfig
from metacl.learners.precision import BFloat16Linear, linears_to_bfloat16
from metacl.metagradients import Reverse
from metacl.objectives import OBJECTIVES
from tests.small_runs import save_tiny_bert

TEXTS = ["hi", "where is my card", "I would like to know why my transfer has not arrived yet please", "pin?"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(save_tiny_bert(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(params=[None, 1], ids=["all layers", "last layer"])
def learners(tiny, request):
    adapter = AdapterConfig(rank=2, last_layers=request.param)
    return [
        TextClassifierConfig(model=tiny, adapter=adapter, base_dtype=dtype).build(seed=0)
        for dtype in ("float32", "bfloat16")
    ]


def features_and_gradient(learner):
    generator = torch.Generator().manual_seed(0)
    params = {
        name: (tensor + 0.1 * torch.randn(tensor.shape, generator=generator)).requires_grad_()
        for name, tensor in learner.initial.items()
    }
    features = learner.features(params, learner.encode(TEXTS, None))
    target = torch.randn(features.shape, generator=generator)
    gradient = torch.autograd.grad((features * target).sum(), list(params.values()))
    return features.detach(), torch.cat([part.flatten() for part in gradient])


def test_features_and_gradients_are_those_of_float32_but_for_rounding(learners):
    (features, gradient), (rounded, rounded_gradient) = map(features_and_gradient, learners)
    assert rounded.dtype == rounded_gradient.dtype == torch.float32
    error = (rounded - features).norm() / features.norm()
    assert 0 < error < 2e-2
    assert torch.isfinite(rounded_gradient).all()
    assert torch.cosine_similarity(rounded_gradient, gradient, dim=0) > 0.99


def test_only_the_frozen_matrices_are_rounded(learners):
    _, learner = learners
    assert all(tensor.dtype == torch.float32 for tensor in learner.initial.values())
    held = {name: parameter.dtype for name, parameter in learner.adapted.model.named_parameters()}
    linears = {name for name, m in learner.adapted.model.named_modules() if isinstance(m, BFloat16Linear)}
    assert linears
    for name, dtype in held.items():
        rounded = name.rpartition(".")[0] in linears
        assert dtype == (torch.bfloat16 if rounded else torch.float32), name


def test_reverse_differentiates_through_it(learners):
    """Twice, through the rounded products: the meta-gradient is about that of float32."""
    gradients = []
    objective, loop = OBJECTIVES.build({"name": "proto_maml"}), InnerLoop(steps=2)
    for learner in learners:
        meta = {
            name: tensor.detach().requires_grad_()
            for name, tensor in objective.meta_parameters(learner, loop, ways=2).items()
        }
        task = Task(2, learner.encode(TEXTS, [0, 1, 0, 1]), learner.encode(TEXTS[::-1], [1, 0, 1, 0]))
        found = Reverse().estimate(objective.problem(learner, meta, task, loop)).gradient
        gradients.append(torch.cat([found[name].flatten() for name in sorted(found)]))
    assert torch.isfinite(gradients[1]).all()
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.parametrize("bias", [True, False])
def test_products_in_float32_are_those_of_bfloat16(bias, monkeypatch):
    """Where a processor has no instructions for them; also in the second derivative, and under vmap."""
    torch.manual_seed(0)
    layer = nn.Linear(48, 32, bias=bias).requires_grad_(False)
    linears_to_bfloat16(nn.Sequential(layer))
    x, v = torch.randn(5, 48), torch.randn(5, 48)

    def found(slow):
        monkeypatch.setattr(precision, "multiplies_slowly", lambda device: slow)
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(layer(leaf).tanh().sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad((first * v).sum(), leaf)
        together = torch.vmap(layer)(x.expand(3, 5, 48))
        return layer(x), first.detach(), second, together

    for native, own in zip(found(False), found(True), strict=True):
        # One rounding to bfloat16 may fall the other way where sums are taken in another order.
        torch.testing.assert_close(own, native, rtol=2**-7, atol=2**-7)
        assert not torch.equal(own, torch.zeros_like(own))
