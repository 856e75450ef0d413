"""The DeepSpeed engine of a worker group: holds the model for the ranks of one group.

This is the one place that imports deepspeed. The adapted parameters are passed to the model functionally and
the outer optimizer lives at the coordinator, so the engine never steps. ZeRO stages 0, 1 and 2 differ in what
they partition of the engine's own optimizer and gradients, which a frozen base does not have; results are
the same at each of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import deepspeed
import torch
from torch import nn

SHM_OP = "deepspeed_shm_comm"
"""DeepSpeed's shared-memory all-reduce for CPU inference. It would be compiled for about 110 s at the first
start, and nothing here uses it, so it is declared unavailable; gloo does the work."""


@dataclass(frozen=True)
class RankEnvironment:
    """Where a rank stands in its group, as `deepspeed.init_distributed` wants it in the environment."""

    rank: int
    world_size: int
    master_address: str
    master_port: int

    def export(self) -> None:
        """Set the variables; without all five DeepSpeed would look for MPI."""
        os.environ.update(
            RANK=str(self.rank),
            WORLD_SIZE=str(self.world_size),
            LOCAL_RANK="0",  # Ray shows each rank its own devices only
            MASTER_ADDR=self.master_address,
            MASTER_PORT=str(self.master_port),
        )


class ZeroEngine:
    """Puts a model under a DeepSpeed engine. Call it with the model and its adapted parameters.

    Parameters
    ----------
    stage : int
        ZeRO stage, 0 to 2.
    environment : RankEnvironment
        The process group is formed when the engine is made.
    gpu : bool
        Whether the ranks hold GPUs: nccl there, gloo on CPUs.
    """

    def __init__(self, stage: int, environment: RankEnvironment, gpu: bool) -> None:
        self._stage = stage
        environment.export()
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        deepspeed.ops.__compatible_ops__[SHM_OP] = False
        with _stdout_to_stderr():
            deepspeed.init_distributed("nccl" if gpu else "gloo", verbose=False)

    def __call__(self, model: nn.Module, adapted: list[nn.Parameter]) -> nn.Module:
        """The module to call, held by the engine. The frozen parameters stay frozen."""
        # Stages 1 and 2 refuse to start without an optimizer; this one never steps.
        optimizer = torch.optim.SGD(adapted, lr=0.0) if self._stage else None
        with _stdout_to_stderr():
            self.engine, *_ = deepspeed.initialize(
                model=model,
                model_parameters=adapted,
                optimizer=optimizer,
                config={
                    "train_micro_batch_size_per_gpu": 1,
                    "zero_optimization": {"stage": self._stage},
                    "zero_allow_untested_optimizer": True,
                },
            )
        return self.engine.module


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """DeepSpeed prints while it starts; a program's output is not the place for that."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
