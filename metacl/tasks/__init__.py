"""Where episodes come from. Importing this registers every built-in task source."""

from metacl.tasks.episode import TASK_SOURCES, Episode, EpisodeShape, EpisodeSource, Split, TaskAddress, TaskSource
from metacl.tasks.labelled_text import ClassEpisodes, LabelledText

__all__ = [
    "TASK_SOURCES",
    "ClassEpisodes",
    "Episode",
    "EpisodeShape",
    "EpisodeSource",
    "LabelledText",
    "Split",
    "TaskAddress",
    "TaskSource",
]
