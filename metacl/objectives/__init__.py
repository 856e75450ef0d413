"""Meta-objectives, one a file. Importing this registers them."""

from metacl.objectives.adversarial import Adversarial
from metacl.objectives.anil import ANIL
from metacl.objectives.anml import ANML
from metacl.objectives.base import OBJECTIVES, MetaObjective
from metacl.objectives.boil import BOIL
from metacl.objectives.cavia import CAVIA
from metacl.objectives.distilled import Distilled
from metacl.objectives.domain_adversarial import DomainAdversarial
from metacl.objectives.la_maml import LaMAML
from metacl.objectives.maml import MAML
from metacl.objectives.multi_step import MultiStep
from metacl.objectives.oml import OML
from metacl.objectives.policy_gradient import PolicyGradient
from metacl.objectives.proto_maml import ProtoMAML, class_means
from metacl.objectives.proto_sequence import ProtoSequence
from metacl.objectives.rewards import REWARDS, Reward
from metacl.objectives.sequence import SequenceMAML
from metacl.objectives.unlabelled import Unlabelled
from metacl.objectives.wrapper import Wrapper

__all__ = [
    "ANIL",
    "ANML",
    "BOIL",
    "CAVIA",
    "MAML",
    "OBJECTIVES",
    "OML",
    "REWARDS",
    "Adversarial",
    "Distilled",
    "DomainAdversarial",
    "LaMAML",
    "MetaObjective",
    "MultiStep",
    "PolicyGradient",
    "ProtoMAML",
    "ProtoSequence",
    "Reward",
    "SequenceMAML",
    "Unlabelled",
    "Wrapper",
    "class_means",
]
