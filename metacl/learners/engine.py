"""How one process, or the ranks of a worker group, hold a pretrained model. This one holds it whole, alone.

`metacl.learners.sharding` has the engines of a worker group.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from metacl.learners.adapted import Adapted, whole_model
from metacl.learners.loading import load_whole
from metacl.learners.precision import linears_to_bfloat16
from metacl.learners.ranks import RankGroup


class Engine:
    """Loads and holds a model. A learner asks it for nothing else.

    Attributes
    ----------
    ranks : RankGroup
        Who shares the batches.
    """

    ranks = RankGroup()

    def load(self, kind: Any, folder: Path, attention: str, base_dtype: str, device: torch.device) -> PreTrainedModel:
        """The model in `folder` as the transformers class `kind` (``AutoModel``, …) makes it, for evaluation.

        Raises `ConfigError` if a part is missing, damaged or of another shape.
        """
        model = load_whole(kind, folder, attention)
        if base_dtype == "bfloat16":
            linears_to_bfloat16(model)
        model.to(device)  # type: ignore[arg-type]  # transformers wraps it in a decorator without types
        return model

    def adapt_all(self, model: PreTrainedModel) -> Adapted:
        """What adapts of a loaded model where all of it does."""
        return whole_model(model)

    def hold(self, model: nn.Module, adapted: list[nn.Parameter]) -> nn.Module:
        """The module to call, now that `adapted` parameters are attached."""
        return model


def element_count(model: nn.Module, leaving_out: Collection[str]) -> int:
    """Numbers in all parameters but some, tied ones once, sharded ones whole."""
    counted = [parameter for name, parameter in model.named_parameters() if name not in leaving_out]
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in counted)
