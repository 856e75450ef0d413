"""Strategies against forgetting, one a file. Importing this registers all built-in ones."""

from metacl.continual.strategies.a_gem import AveragedGradientEpisodicMemory
from metacl.continual.strategies.base import MEMORY, STRATEGIES, State, Strategy, asked_by_name, stored
from metacl.continual.strategies.der import DarkExperienceReplay
from metacl.continual.strategies.ewc import ElasticWeightConsolidation
from metacl.continual.strategies.experts import Experts
from metacl.continual.strategies.hardening import Hardening
from metacl.continual.strategies.joint import Cumulative, Joint
from metacl.continual.strategies.la_maml import LookAheadMAML
from metacl.continual.strategies.lwf import LearningWithoutForgetting
from metacl.continual.strategies.merging import Merging
from metacl.continual.strategies.nearest_class_mean import NearestClassMean
from metacl.continual.strategies.o_lora import OrthogonalLora
from metacl.continual.strategies.oml import OnlineAwareMetaLearning
from metacl.continual.strategies.orthogonal import OrthogonalSubspace
from metacl.continual.strategies.prompt_only import PromptOnly
from metacl.continual.strategies.replay import Replay
from metacl.continual.strategies.retrieval import Retrieval
from metacl.continual.strategies.self_distillation import SelfDistillation
from metacl.continual.strategies.si import SynapticIntelligence

__all__ = [
    "MEMORY",
    "STRATEGIES",
    "AveragedGradientEpisodicMemory",
    "Cumulative",
    "DarkExperienceReplay",
    "ElasticWeightConsolidation",
    "Experts",
    "Hardening",
    "Joint",
    "LearningWithoutForgetting",
    "LookAheadMAML",
    "Merging",
    "NearestClassMean",
    "OnlineAwareMetaLearning",
    "OrthogonalLora",
    "OrthogonalSubspace",
    "PromptOnly",
    "Replay",
    "Retrieval",
    "SelfDistillation",
    "State",
    "Strategy",
    "SynapticIntelligence",
    "asked_by_name",
    "stored",
]
