"""Meta-objectives, one a file. Importing this registers them."""

from metacl.objectives.anil import ANIL
from metacl.objectives.base import OBJECTIVES, MetaObjective
from metacl.objectives.boil import BOIL
from metacl.objectives.cavia import CAVIA
from metacl.objectives.maml import MAML
from metacl.objectives.multi_step import MultiStep
from metacl.objectives.proto_maml import ProtoMAML, class_means
from metacl.objectives.wrapper import Wrapper

__all__ = [
    "ANIL",
    "BOIL",
    "CAVIA",
    "MAML",
    "OBJECTIVES",
    "MetaObjective",
    "MultiStep",
    "ProtoMAML",
    "Wrapper",
    "class_means",
]
