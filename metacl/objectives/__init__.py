"""Meta-objectives, one a file. Importing this registers them."""

from metacl.objectives.anil import ANIL
from metacl.objectives.base import OBJECTIVES, MetaObjective
from metacl.objectives.maml import MAML
from metacl.objectives.proto_maml import ProtoMAML, class_means

__all__ = ["ANIL", "MAML", "OBJECTIVES", "MetaObjective", "ProtoMAML", "class_means"]
