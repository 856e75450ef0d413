"""LoRA on small causal transformers in eager attention: reverse against higher, finite differences against reverse."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from metacl.adaptation import InnerLoop
from metacl.learners.adapter import AdapterConfig
from metacl.learners.base import as_leaves
from metacl.metagradients import FiniteDifference, InnerProblem, Reverse, Unrolled
from tests.metagradients.problems import RULES, relative_error

VOCABULARY, WIDTH = 50, 32
MODELS = {
    "gpt2": (
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=WIDTH,
            n_layer=2,
            n_head=2,
            n_positions=16,
            bos_token_id=0,
            eos_token_id=0,
        ),
        ("c_attn",),
    ),
    "llama": (
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
        ),
        ("q_proj", "v_proj"),
    ),
}


def language_problem(kind, loop, dtype=torch.float32):
    """Next-token loss on 4 sequences of 12 tokens each for support and query."""
    config, targets = MODELS[kind]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(dtype).eval()
    adapted = AdapterConfig(rank=4, alpha=8, targets=targets).attach(model, seed=0)
    generator = torch.Generator().manual_seed(1)
    learned = adapted.initial()
    for name, tensor in learned.items():  # B away from zero, where A has no gradient
        tensor += 0.05 * torch.randn(tensor.shape, generator=generator)
        learned[name] = tensor.to(dtype)
    sizes = loop.step_size.initial({name: tensor.shape for name, tensor in learned.items()}, loop.steps)
    support, query = (torch.randint(VOCABULARY, (4, 12), generator=generator) for _ in range(2))

    def loss(theta, tokens):
        logits = functional_call(adapted.model, adapted.bind(theta), (), {"input_ids": tokens}).logits
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    return InnerProblem(
        meta=as_leaves({**learned, **{name: size.to(dtype) for name, size in sizes.items()}}),
        start=lambda phi: {name: phi[name] for name in learned},
        support_loss=lambda theta, phi, step: loss(theta, support),
        query_loss=lambda theta, phi: loss(theta, query),
        loop=loop,
    )


def loop_of(rule, steps, learn="layer_and_step"):
    value = 0.003 if rule.startswith("adam") else 0.1
    return InnerLoop(steps=steps, optimizer=RULES[rule][0], step_size={"value": value, "learn": learn})


def distance(found, expected):
    """‖found − expected‖ / ‖expected‖, all tensors together."""
    found, expected = (torch.cat([t.double().flatten() for t in params.values()]) for params in (found, expected))
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("rule", RULES)
def test_reverse_equals_higher_on_gpt2(rule):
    problem = language_problem("gpt2", loop_of(rule, 5))
    found, expected = Reverse().estimate(problem), Unrolled().estimate(problem)
    assert found.support_losses[-1] < found.support_losses[0]
    assert relative_error(found.gradient, expected.gradient) < 1e-5


@pytest.mark.parametrize("rule", RULES)
def test_reverse_equals_higher_on_llama(rule):
    # Adam divides by gradients that are all but zero here: what differs in the last bit of a gradient is some hundred
    # times as much after five steps, in `higher` as in `reverse`. Float64 says what the formulas do, and `higher` with
    # its parameters changed in the last bit how far rounding alone may take either, on this processor.
    loop = loop_of(rule, 5)
    results = {dtype: [] for dtype in (torch.float32, torch.float64)}
    for dtype, gradients in results.items():
        problem = language_problem("llama", loop, dtype)
        gradients += [estimator.estimate(problem).gradient for estimator in (Reverse(), Unrolled())]
    (found, expected), (truth, also_truth) = results.values()
    assert relative_error(truth, also_truth) < 1e-10
    rounding = [distance(expected, truth)]
    for seed in range(4):
        problem = language_problem("llama", loop)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for tensor in problem.meta.values():
                tensor *= 1 + 2**-23 * torch.randint(-1, 2, tensor.shape, generator=generator)
        rounding.append(distance(Unrolled().estimate(problem).gradient, truth))
    assert distance(found, truth) < 2 * max(rounding)
    assert distance(found, expected) < (1e-4 if rule.startswith("adam") else 1e-6)


@pytest.mark.parametrize("kind", MODELS)
def test_kept_graphs_and_a_step_size_a_number(kind):
    problem = language_problem(kind, loop_of("adamw", 5, "parameter"), torch.float64)
    found, expected = Reverse(allowance=2).estimate(problem), Unrolled().estimate(problem)
    assert relative_error(found.gradient, expected.gradient) < 1e-10


@pytest.mark.parametrize(("central", "bound"), [(True, 1e-3), (False, 5e-3)])
@pytest.mark.parametrize("steps", [1, 5, 10])
@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize("kind", MODELS)
def test_finite_differences_come_near(kind, rule, steps, central, bound):
    problem = language_problem(kind, loop_of(rule, steps))
    found, expected = FiniteDifference(central=central).estimate(problem), Reverse().estimate(problem)
    assert distance(found.gradient, expected.gradient) < bound
