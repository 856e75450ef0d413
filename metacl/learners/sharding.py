"""The DeepSpeed engines of a worker group: hold the model for the ranks of one group.

This is the one place that imports deepspeed. The adapted parameters are passed to the model functionally and
the outer optimizer lives at the coordinator, so no engine ever steps. At ZeRO stages 0, 1 and 2 every rank holds the
whole frozen base; they differ in what they partition of the engine's own optimizer and gradients, which a frozen base
does not have, and results are the same at each of them. At stage 3 the base itself is partitioned by `zero.Init`; the
layers gather their weights by themselves (`metacl.learners.gathered`), since no hook of DeepSpeed's survives a second
derivative. Where the whole model adapts, the parts that `zero.Init` made are the start, and what becomes of them in the
inner loop are tensors of the same layout (`metacl.learners.adapting`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from metacl.errors import ConfigError
from metacl.learners.adapted import adapting_names
from metacl.learners.adapting import ShardedModel
from metacl.learners.engine import Engine
from metacl.learners.gathered import SHARDED, Gathering, gather_in_layers
from metacl.learners.precision import rounded_linears
from metacl.learners.ranks import RankGroup
from metacl.learners.sharded_weights import fill

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


@dataclass(frozen=True)
class ZeroOptions:
    """What DeepSpeed is asked for.

    stage : of ZeRO, 0 to 3. offload : where a sharded base lies, "none" for the ranks' own devices.
    nvme_path : a folder on a fast disk, for offload "nvme". extra : a DeepSpeed config for the rest.
    """

    stage: int = 0
    offload: str = "none"
    nvme_path: str | None = None
    extra: dict[str, Any] | None = None

    def config(self) -> dict[str, Any]:
        """The config that DeepSpeed reads; what is ours cannot be changed by `extra`."""
        zero: dict[str, Any] = {"stage": self.stage}
        if self.offload != "none":
            zero["offload_param"] = {"device": self.offload, "pin_memory": torch.cuda.is_available()}
        if self.nvme_path is not None:
            zero["offload_param"]["nvme_path"] = self.nvme_path
        own = {"train_micro_batch_size_per_gpu": 1, "zero_allow_untested_optimizer": True}
        extra = dict(self.extra or {})
        return {**extra, **own, "zero_optimization": {**extra.get("zero_optimization", {}), **zero}}


def make_engine(options: ZeroOptions, environment: RankEnvironment, gpu: bool) -> Engine:
    """Form the group's process group (nccl on GPUs, gloo on CPUs) and make this rank's engine."""
    if options.offload == "nvme" and not get_accelerator().create_op_builder("AsyncIOBuilder").is_compatible():
        raise ConfigError(
            "workers.offload: nvme needs DeepSpeed's async_io, which cannot be built here; install libaio-dev on the "
            "workers' machines, or set workers.offload=cpu."
        )
    environment.export()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed.ops.__compatible_ops__[SHM_OP] = False
    with _stdout_to_stderr():
        deepspeed.init_distributed("nccl" if gpu else "gloo", verbose=False)
    ranks = RankGroup(environment.rank, environment.world_size)
    return ShardedBase(options, ranks) if options.stage == 3 else WholeBase(options, ranks)


class WholeBase(Engine):
    """Stages 0 to 2: a DeepSpeed engine around a model that is whole on every rank."""

    def __init__(self, options: ZeroOptions, ranks: RankGroup) -> None:
        self._options = options
        self.ranks = ranks

    def hold(self, model: nn.Module, adapted: list[nn.Parameter]) -> nn.Module:
        """The module to call, held by the engine. The frozen parameters stay frozen."""
        # Stages 1 and 2 refuse to start without an optimizer; this one never steps.
        optimizer = torch.optim.SGD(adapted, lr=0.0) if self._options.stage else None
        with _stdout_to_stderr(), _refused_options():
            engine, *_ = deepspeed.initialize(
                model=model, model_parameters=adapted, optimizer=optimizer, config=self._options.config()
            )
        return engine.module


class ShardedBase(Engine):
    """Stage 3: each rank holds its part of every matrix; small tensors and what adapts are whole on all.

    Attributes
    ----------
    gathering : Gathering
        What the layers have gathered; from `load` on.
    """

    def __init__(self, options: ZeroOptions, ranks: RankGroup) -> None:
        self._options = options
        self.ranks = ranks
        self.gathering = Gathering()

    def load(self, kind: Any, folder: Path, attention: str, base_dtype: str, device: torch.device) -> PreTrainedModel:
        """See `Engine.load`. Parameters are partitioned as their modules are made, and filled from the files."""
        config = AutoConfig.from_pretrained(folder)
        with (
            _stdout_to_stderr(),
            _refused_options(),
            # Told float32 by `dtype`, it takes bfloat16 on CPUs, for buffers, too (rotary frequencies).
            deepspeed.zero.Init(config_dict_or_path=self._options.config()),
            no_init_weights(),
        ):
            model = kind.from_config(config, attn_implementation=attention, dtype=torch.float32)
        model.tie_weights()
        model.requires_grad_(False)
        rounded = rounded_linears(model) if base_dtype == "bfloat16" else []
        dtypes = {id(parameter): torch.bfloat16 for module in rounded for parameter in module.parameters()}
        fill(model, model.base_model_prefix, folder, dtypes)
        tables: list[Any] = [module.weight for module in model.modules() if isinstance(module, SHARDED)]
        matrices = {id(weight) for weight in tables if not weight.ds_persist}
        for parameter in model.parameters():
            if id(parameter) not in matrices:
                parameter.all_gather()  # for good
        self.gathering = gather_in_layers(model, matrices)
        return model.to(device).eval()

    def adapt_all(self, model: PreTrainedModel) -> ShardedModel:
        """See `Engine.adapt_all`. Nothing of what adapts stays whole."""
        parameters: dict[str, Any] = dict(model.named_parameters())
        parts, shapes = {}, {}
        for name in adapting_names(model):
            parameter = parameters[name]
            parameter.partition()
            # Parts lie where meta-parameters do, in the machine's memory, and end with numbers of no parameter.
            part = parameter.ds_tensor.data = parameter.ds_tensor.data.cpu()
            part[max(0, parameter.ds_numel - self.ranks.rank * part.numel()) :] = 0
            parts[name], shapes[name] = part, parameter.ds_shape
        return ShardedModel(model, parts, shapes, self.ranks, self.gathering)


@contextlib.contextmanager
def _refused_options() -> Iterator[None]:
    """What DeepSpeed does not take is a mistake in the config."""
    try:
        yield
    except (AssertionError, ValueError, deepspeed.DeepSpeedConfigError) as error:
        raise ConfigError(f"workers.deepspeed: DeepSpeed refuses it ({str(error).splitlines()[0]}).") from None


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """DeepSpeed prints while it starts; a program's output is not the place for that."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
