"""Models as pure functions of their adaptable parameters. Importing this registers every built-in learner."""

import os

import torch

if not torch.cuda.is_available():
    # transformers imports deepspeed where it is installed, and deepspeed then prints that it found no GPU.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

from metacl.learners.base import LEARNERS, Batch, Learner, LearnerConfig, Params, Task
from metacl.learners.causal_lm import CausalLanguageModel, CausalLanguageModelConfig
from metacl.learners.module import ModuleLearner
from metacl.learners.networks import FeatureLearner, ModuleConfig
from metacl.learners.samples import Samples
from metacl.learners.seq2seq_lm import SequenceToSequence, SequenceToSequenceConfig
from metacl.learners.text_classifier import TextClassifier, TextClassifierConfig

__all__ = [
    "LEARNERS",
    "Batch",
    "CausalLanguageModel",
    "CausalLanguageModelConfig",
    "FeatureLearner",
    "Learner",
    "LearnerConfig",
    "ModuleConfig",
    "ModuleLearner",
    "Params",
    "Samples",
    "SequenceToSequence",
    "SequenceToSequenceConfig",
    "Task",
    "TextClassifier",
    "TextClassifierConfig",
]
