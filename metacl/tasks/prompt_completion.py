"""Prompts with their completions: instruction, translation, generation, reasoning, for a causal language model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from metacl.errors import DataError
from metacl.tasks.domain_source import DomainSource
from metacl.tasks.episode import TASK_SOURCES
from metacl.tasks.readers import Columns, Row
from metacl.tasks.readers.columns import text_of


@TASK_SOURCES.register("prompt_completion")
class PromptCompletion(DomainSource):
    """Prompts and completions of one domain a task (episodes.ways: 1), for causal_lm with the same completion_after.

    prompt_column, completion_column, domain_column : null for the obvious ones; without domains all rows are one.
    marker : stands between the two, and in no prompt. split_by : what is kept back, whole domains, or an "example".
    """

    prompt_column: str | None = None
    completion_column: str | None = None
    marker: Annotated[str, StringConstraints(min_length=1)] = "\nAnswer: "
    split_by: Literal["domain", "example"] = "example"

    @property
    def completion_marker(self) -> str:
        """As configured."""
        return self.marker

    def wanted(self) -> dict[str, str | None]:
        """Two columns."""
        return {"prompt_column": self.prompt_column, "completion_column": self.completion_column}

    def document(self, row: Row, columns: Columns) -> str:
        """Prompt, marker, completion."""
        prompt, completion = (text_of(row, columns[f"{part}_column"], tokens=True) for part in ("prompt", "completion"))
        if self.marker in prompt:
            raise DataError(
                f"{row.place}: the prompt holds data.marker {self.marker!r}, so where the completion begins cannot be "
                f"told. Choose another marker, here and in learner.completion_after."
            )
        return f"{prompt}{self.marker}{completion}"
