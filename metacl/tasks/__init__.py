"""Where episodes come from. Importing this registers every built-in task source."""

from metacl.tasks.episode import (
    TASK_SOURCES,
    ArrayEpisode,
    Episode,
    EpisodeShape,
    EpisodeSource,
    Split,
    TaskAddress,
    TaskSource,
)
from metacl.tasks.labelled_text import ClassEpisodes, LabelledText
from metacl.tasks.omniglot import Omniglot
from metacl.tasks.sinusoid import Sinusoid

__all__ = [
    "TASK_SOURCES",
    "ArrayEpisode",
    "ClassEpisodes",
    "Episode",
    "EpisodeShape",
    "EpisodeSource",
    "LabelledText",
    "Omniglot",
    "Sinusoid",
    "Split",
    "TaskAddress",
    "TaskSource",
]
