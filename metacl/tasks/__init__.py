"""Where episodes come from. Importing this registers every built-in task source."""

from metacl.tasks.class_episodes import ClassEpisodes
from metacl.tasks.domain_text import DomainText
from metacl.tasks.episode import (
    TASK_SOURCES,
    ArrayEpisode,
    Episode,
    EpisodeShape,
    EpisodeSource,
    Split,
    Survey,
    Surveyed,
    TaskAddress,
    TaskSource,
)
from metacl.tasks.labelled_arrays import LabelledArrays
from metacl.tasks.labelled_text import LabelledText
from metacl.tasks.linear_regression import LinearRegression
from metacl.tasks.mixture import Mixture
from metacl.tasks.omniglot import Omniglot
from metacl.tasks.prompt_completion import PromptCompletion
from metacl.tasks.seen_classes import seen_classes
from metacl.tasks.sinusoid import Sinusoid

__all__ = [
    "TASK_SOURCES",
    "ArrayEpisode",
    "ClassEpisodes",
    "DomainText",
    "Episode",
    "EpisodeShape",
    "EpisodeSource",
    "LabelledArrays",
    "LabelledText",
    "LinearRegression",
    "Mixture",
    "Omniglot",
    "PromptCompletion",
    "Sinusoid",
    "Split",
    "Survey",
    "Surveyed",
    "TaskAddress",
    "TaskSource",
    "seen_classes",
]
