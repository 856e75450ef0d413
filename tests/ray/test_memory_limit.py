"""A base that does not fit a rank's memory whole, and fits in shards: a limit that the system enforces."""

import resource
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from metacl.adaptation import InnerLoop
from metacl.errors import ConfigError
from metacl.learners import TextClassifierConfig
from metacl.learners.adapter import AdapterConfig
from metacl.metagradients import Reverse
from metacl.objectives import OBJECTIVES
from tests.ray.ranks import meta_gradient
from tests.small_models import save_family

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def config_of(folder):
    return TextClassifierConfig(model=str(folder), max_length=8, adapter=AdapterConfig(rank=2, targets=("q_proj",)))


def gradient(learner):
    loop = InnerLoop(steps=1, step_size={"learn": "none"})
    return meta_gradient(learner, OBJECTIVES.build({"name": "maml"}), Reverse(), loop)


def under_a_limit(rank, config, warm_up, stage, offload, allowed):
    """What is too much to allocate, or None if it all went well. `allowed` bytes above what the process has."""
    gradient(warm_up.build(0, engine=rank.engine(stage, offload)))  # libraries are loaded
    lines = Path("/proc/self/status").read_text().splitlines()
    now = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (now + allowed, before[1]))
    try:
        gradient(config.build(0, engine=rank.engine(stage, offload)))
    except (ConfigError, RuntimeError, MemoryError) as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def test_what_does_not_fit_whole_fits_in_shards(pair, tmp_path):
    folder = save_family("llama", tmp_path / "large", hidden=1024, intermediate_size=4096, num_hidden_layers=4)
    model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(folder)  # half as large on the disk as in memory, as models from the hub are
    whole = 4 * sum(parameter.numel() for parameter in model.parameters())
    del model
    # The file is mapped, which counts, too: with the whole base it is 1.5, with half of it 1.0, and a matrix or two.
    allowed = int(1.35 * whole)
    warm_up = config_of(save_family("llama", tmp_path / "small"))
    refused = pair.call(under_a_limit, config_of(folder), warm_up, 0, "none", allowed)
    assert all(error is not None and "llocate" in error for error in refused)
    assert pair.call(under_a_limit, config_of(folder), warm_up, 3, "none", allowed) == [None, None]
    assert pair.call(under_a_limit, config_of(folder), warm_up, 3, "cpu", allowed) == [None, None]
