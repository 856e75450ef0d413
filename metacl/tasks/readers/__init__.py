"""Files and folders of texts, read row by row. Every error names the file and the line."""

from metacl.tasks.readers.columns import Columns, choose_columns
from metacl.tasks.readers.decode import read_lines
from metacl.tasks.readers.examples import Example, TextTable, open_table, read_examples
from metacl.tasks.readers.rows import Row, read_rows

__all__ = [
    "Columns",
    "Example",
    "Row",
    "TextTable",
    "choose_columns",
    "open_table",
    "read_examples",
    "read_lines",
    "read_rows",
]
