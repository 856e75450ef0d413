"""What is measured: three models with four fixed tasks each, and one more where a GPU is present.

Every case is described twice, as metacl's `InnerProblem`, which is one task as functions of tensors alone: `ours` is
what metacl's own objective makes of it, `plain` is the same mathematics without anything metacl could save, for the
peers. They differ only on MiniLM, where metacl packs sentences into rows and computes the frozen layers once a task:
when the problem is made, which is in the measured time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from metacl.adaptation import InnerLoop, StepSizes
from metacl.learners import Params, TextClassifier, TextClassifierConfig
from metacl.learners.adapter import AdapterConfig
from metacl.learners.base import Batch as TextBatch
from metacl.learners.base import Task, as_leaves
from metacl.metagradients import InnerProblem
from metacl.metagradients.traced import TracedProblem
from metacl.objectives import ProtoMAML
from metacl.tasks import EpisodeShape, LabelledText, TaskAddress

Batch = tuple[Tensor, ...]
BatchLoss = Callable[[Params, Batch], Tensor]


@dataclass
class Batched:
    """A case whose tasks have tensors of one shape, for a method that goes through all tasks at once.

    support, query : the tensors of a batch with the task as their first dimension. start is the identity.
    """

    loss: BatchLoss
    support: Batch
    query: Batch


@dataclass
class Case:
    """Tasks of a meta-step. All methods get the same φ and return the mean gradient over the tasks.

    What metacl computes once a task it computes when the task's problem is asked for.
    """

    meta: Params
    rate: float
    steps: int
    ours: list[Callable[[], InnerProblem]]
    plain: list[InnerProblem]
    batched: Batched | None = None
    bfloat16: list[Callable[[], InnerProblem]] = field(default_factory=list)
    """`ours` with the frozen base in bfloat16."""


@dataclass(frozen=True)
class Setting:
    """How much of a case is built. `tasks` is lowered where only memory is of interest: tasks follow one another."""

    steps: int
    tasks: int = 4
    dtype: torch.dtype = torch.float32
    device: str = "cpu"


def build(name: str, setting: Setting) -> Case:
    """The case of this name, the same for every process that asks."""
    return CASES[name](setting)


def language_model(setting: Setting) -> Case:
    """(a) GPT-2's shape, 4 layers of 256, random weights, LoRA r = 8 on c_attn; 4 + 4 sequences of 64 random tokens."""
    config = GPT2Config(
        n_layer=4, n_embd=256, n_head=4, vocab_size=2000, n_positions=64, attn_implementation="eager",
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["c_attn"], fan_in_fan_out=True)
    network = get_peft_model(GPT2LMHeadModel(config), lora).to(setting.device, setting.dtype).eval()
    return _next_token_case(network, 2000, 1.0, setting)


def llama_1b(setting: Setting, config: LlamaConfig | None = None) -> Case:
    """(gpu) A Llama of 1.2 billion random weights in bf16, LoRA r = 8 on query and value in fp32; batches as in (a)."""
    config = config or LlamaConfig(
        vocab_size=128_256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=64, attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(setting.device):
        base = LlamaForCausalLM(config).to(torch.bfloat16)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    network = get_peft_model(base, lora).eval()  # peft keeps the adapter of a bf16 base in fp32
    return _next_token_case(network, config.vocab_size, 0.1, setting)


def convolutions(setting: Setting) -> Case:
    """(c) Four convolutions of 64 filters and stride 2 on 1×28×28 images, all weights adapt; 5 ways, 5 + 25 images.

    GELU instead of ReLU and no pooling or batch norm: at kinks, gradients that are exact differ by rounding alone.
    """
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels in (1, 64, 64, 64):
        layers += [nn.Conv2d(channels, 64, 3, stride=2, padding=1), nn.GELU()]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 2 * 2, 5)).to(setting.device, setting.dtype)

    def images(generator: torch.Generator, per_class: int) -> Batch:
        labels = torch.arange(5).repeat_interleave(per_class)
        return torch.randn(len(labels), 1, 28, 28, generator=generator).to(setting.dtype), labels

    def loss(theta: Params, batch: Batch) -> Tensor:
        return cross_entropy(functional_call(network, theta, (batch[0],)), batch[1])

    return _functional_case(network, loss, lambda g: images(g, 1), lambda g: images(g, 5), 1.0, setting)


def intents(setting: Setting) -> Case:
    """(b) MiniLM with LoRA r = 8 on query and value of its top third, ProtoMAML on BANKING77: 25 + 25 sentences.

    metacl packs the sentences into rows and computes the frozen layers once; the peers get metacl's groups of similar
    length, which costs them less than padding every batch to its longest sentence.
    """
    adapter = AdapterConfig(rank=8, targets=("query", "value"), last_layers=2)
    config = TextClassifierConfig(max_length=32, adapter=adapter)
    rate = 0.05
    loop = InnerLoop(steps=setting.steps, step_size=StepSizes(value=rate, head=rate, learn="none"))
    objective, shape = ProtoMAML(), EpisodeShape(ways=5, shots=5, queries=5)
    source = LabelledText(dataset="banking77").open()
    episodes = [source.episode(TaskAddress("train", 0, 0, index), shape) for index in range(setting.tasks)]

    def learner(**options: str) -> TextClassifier:
        built = config.model_copy(update=options).build(0, torch.device(setting.device))
        if "base_dtype" not in options:
            built.adapted.model.to(setting.dtype)
        return built

    def problems(learner: TextClassifier) -> list[Callable[[], InnerProblem]]:
        """Sentences are tokenized and laid out here, as they are for the peers; the frozen layers run in the call."""

        def problem(task: Task) -> InnerProblem:
            support, query = (_through_frozen_layers(learner, batch) for batch in (task.support, task.query))
            return objective.problem(learner, meta, replace(task, support=support, query=query), loop)

        return [partial(problem, learner.prepare(episode)) for episode in episodes]

    packing, grouping, rounding = learner(padding="packed"), learner(), learner(padding="packed", base_dtype="bfloat16")
    initial = objective.meta_parameters(packing, loop, shape.ways)
    meta = as_leaves({name: tensor.to(setting.device, setting.dtype) for name, tensor in initial.items()})
    whole = [grouping.prepare(episode) for episode in episodes]
    whole = [replace(task, support=_unprepared(task.support), query=_unprepared(task.query)) for task in whole]
    return Case(
        meta,
        rate,
        setting.steps,
        ours=problems(packing),
        plain=[objective.problem(grouping, meta, task, loop) for task in whole],
        bfloat16=problems(rounding),
    )


def _through_frozen_layers(learner: TextClassifier, batch: TextBatch) -> TextBatch:
    """The same examples, and what the layers below the adapter make of them."""
    groups = [replace(learner.with_prefix(group.inputs), pool=group.pool) for group in batch.groups]
    return replace(batch, groups=groups)


def _unprepared(batch: TextBatch) -> TextBatch:
    """The same examples with every layer still to be run."""
    return replace(batch, groups=[replace(group, prefix=None) for group in batch.groups])


def _next_token_case(network: PreTrainedModel, vocabulary: int, rate: float, setting: Setting) -> Case:
    def loss(theta: Params, batch: Batch) -> Tensor:
        logits = functional_call(network, theta, (), {"input_ids": batch[0], "use_cache": False}).logits
        return cross_entropy(logits[:, :-1].flatten(0, 1).to(setting.dtype), batch[0][:, 1:].flatten())

    def sequences(generator: torch.Generator) -> Batch:
        return (torch.randint(vocabulary, (4, 64), generator=generator),)

    return _functional_case(network, loss, sequences, sequences, rate, setting)


def _functional_case(
    network: nn.Module,
    loss: BatchLoss,
    draw_support: Callable[[torch.Generator], Batch],
    draw_query: Callable[[torch.Generator], Batch],
    rate: float,
    setting: Setting,
) -> Case:
    """Plain MAML on what requires gradients in `network`; task number i draws its batches with seed i."""
    held = {name: tensor for name, tensor in network.named_parameters() if tensor.requires_grad}
    meta = as_leaves(held)
    network.requires_grad_(False)
    loop = InnerLoop(steps=setting.steps, step_size=StepSizes(value=rate, head=rate, learn="none"))
    supports, queries, problems = [], [], []
    traced = TracedProblem(
        inner=list(meta),
        start=lambda phi, data: dict(phi),
        copies_start=True,
        support_loss=lambda theta, phi, data: loss(theta, tuple(data[: len(data) // 2])),
        query_loss=lambda theta, phi, data: loss(theta, tuple(data[len(data) // 2 :])),
    )
    for index in range(setting.tasks):
        generator = torch.Generator().manual_seed(index)
        support = tuple(tensor.to(setting.device) for tensor in draw_support(generator))
        query = tuple(tensor.to(setting.device) for tensor in draw_query(generator))
        supports.append(support)
        queries.append(query)
        problems.append(
            InnerProblem(
                meta=meta,
                start=dict,
                support_loss=lambda theta, phi, k, batch=support: loss(theta, batch),
                query_loss=lambda theta, phi, batch=query: loss(theta, batch),
                loop=loop,
                traced=traced,
                data=(*support, *query),
            )
        )
    stacked = Batched(loss, _stack(supports), _stack(queries))
    return Case(meta, rate, setting.steps, [partial(_as_it_is, one) for one in problems], problems, stacked)


def _as_it_is(problem: InnerProblem) -> InnerProblem:
    return problem


def _stack(batches: list[Batch]) -> Batch:
    return tuple(torch.stack(tensors) for tensors in zip(*batches, strict=True))


CASES: dict[str, Callable[[Setting], Case]] = {
    "a": language_model,
    "b": intents,
    "c": convolutions,
    "gpu": llama_1b,
}
