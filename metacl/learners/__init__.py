"""Models as pure functions of their adaptable parameters. Importing this registers every built-in learner."""

from metacl.learners.base import LEARNERS, Batch, Learner, LearnerConfig, Params, Task
from metacl.learners.text_classifier import TextClassifier, TextClassifierConfig

__all__ = ["LEARNERS", "Batch", "Learner", "LearnerConfig", "Params", "Task", "TextClassifier", "TextClassifierConfig"]
