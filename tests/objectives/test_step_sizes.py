"""Step sizes that need shapes: known for a learned head, not for one made from the support."""

import pytest

from metacl.adaptation import InnerLoop
from metacl.errors import ConfigError
from metacl.objectives import ANIL, MAML, ProtoMAML
from tests.helpers import TinyLearner

LOOP = InnerLoop(step_size={"learn": "parameter"})


@pytest.mark.parametrize("objective", [MAML(), ANIL()])
def test_learned_head_has_one_a_number(objective):
    meta = objective.meta_parameters(TinyLearner(), LOOP, ways=3)
    for name in objective.inner_names(objective.learned(TinyLearner(), 3)):
        assert meta[f"step_size.{name}"].shape == meta[name].shape


def test_head_of_any_size_has_none():
    with pytest.raises(ConfigError, match=r"head\.weight, whose shape differs from task to task"):
        ProtoMAML().meta_parameters(TinyLearner(), LOOP, ways=3)
