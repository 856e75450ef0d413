"""Documents by domain: windows of text for a causal language model."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from metacl.tasks.domain_source import DomainSource
from metacl.tasks.episode import TASK_SOURCES
from metacl.tasks.readers import Columns, Row
from metacl.tasks.readers.columns import text_of


@TASK_SOURCES.register("domain_text")
class DomainText(DomainSource):
    """Support and query windows from different documents of one domain (episodes.ways: 1), for causal_lm.

    path : a folder with a .txt file per domain (U+241E between documents) or a folder per domain, or a file of rows.
    text_column, domain_column : of a file of rows; null for the obvious ones. window_characters : shown of a document,
    from a random place on. split_by : what is kept back, whole domains, or an "example" (a document) of any.
    """

    text_column: str | None = None
    split_by: Literal["domain", "example"] = "domain"
    window_characters: PositiveInt = 400

    @property
    def window(self) -> int:
        """As configured."""
        return self.window_characters

    def wanted(self) -> dict[str, str | None]:
        """One column."""
        return {"text_column": self.text_column}

    def document(self, row: Row, columns: Columns) -> str:
        """The text."""
        return text_of(row, columns["text_column"], tokens=True)
