"""What a step costs, in floating-point operations of its matrix products as torch counts them."""

from __future__ import annotations

from collections.abc import Callable

import joint
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from metacl.config import RunConfig
from metacl.tasks import TaskAddress


def of_joint_step(config: RunConfig, folder: str) -> int:
    """A batch forward and backward."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager")
    (batch,) = joint.batches(config.data.open(), tokenizer, config.learner.max_length, range(1))
    return _counted(lambda: joint.loss_of(model, batch).backward())


def of_meta_step(config: RunConfig) -> int:
    """The meta-gradients of a step's tasks: every inner step, the query, and the way back."""
    learner = config.learner.build(config.seed)
    meta = config.objective.meta_parameters(learner, config.inner, config.episodes.ways)
    leaves = {name: tensor.detach().clone().requires_grad_(True) for name, tensor in meta.items()}
    task = learner.prepare(config.data.open().episode(TaskAddress("train", config.seed, 0, 0), config.episodes))
    problem = config.objective.problem(learner, leaves, task, config.inner)
    return config.outer.tasks_per_step * _counted(lambda: config.estimator.estimate(problem))


def _counted(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
