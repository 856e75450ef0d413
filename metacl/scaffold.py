"""`metacl new`: a starting file for an extension of one's own, and its test; both work as they are written."""

from __future__ import annotations

import keyword
from pathlib import Path

from metacl.errors import ConfigError
from metacl.objectives import OBJECTIVES

OBJECTIVE = '''"""The meta-objective {name}: say here what it is, and the paper and equation if there is one."""

from torch import Tensor

from metacl.learners import Learner, Params, Task
from metacl.objectives import MAML, OBJECTIVES


@OBJECTIVES.register("{name}")
class {cls}(MAML):
    """MAML for now. Fields are options; override what differs, see MetaObjective for all that can be."""

    weight: float = 1.0

    def query_loss(self, learner: Learner, params: Params, task: Task) -> Tensor:
        """What is asked of the adapted parameters."""
        return self.weight * self.loss(learner, params, task.query)
'''

OBJECTIVE_TEST = '''"""{name}: its meta-gradient against finite differences in float64, and what it means."""

import pytest
from {name} import {cls}

from metacl.metagradients import Reverse
from metacl.testing import LOOP, TinyLearner, check_objective, spread


def test_meta_gradient_is_right():
    print(check_objective({cls}()).verdict)


def test_weight_scales_what_is_asked():
    learner = TinyLearner()
    meta = spread({cls}().meta_parameters(learner, LOOP, ways=3))
    losses = [
        Reverse().estimate({cls}(weight=weight).problem(learner, meta, learner.task(3), LOOP)).query_loss
        for weight in (1.0, 2.0)
    ]
    assert losses[1] == pytest.approx(2 * losses[0])
'''


def new_objective(name: str, folder: Path) -> tuple[Path, Path]:
    """Write NAME.py and test_NAME.py to `folder`; their paths.

    Raises `ConfigError` if the name is no Python name or taken, or a file is there already.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise ConfigError(f"new objective {name!r}: expected a name of small letters, digits and _, as my_objective.")
    if name in OBJECTIVES.names():
        raise ConfigError(f"new objective {name!r}: metacl has one of that name. Give yours another.")
    paths = folder / f"{name}.py", folder / f"test_{name}.py"
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path}: exists; nothing was written. Give another name.")
    cls = "".join(part.capitalize() for part in name.split("_"))
    for path, template in zip(paths, (OBJECTIVE, OBJECTIVE_TEST), strict=True):
        path.write_text(template.format(name=name, cls=cls), "utf-8")
    return paths
