"""Which field is the text and which the label: as the config names them, or the obvious one, said aloud."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metacl.errors import DataError
from metacl.tasks.readers.rows import Row

OBVIOUS: Mapping[str, tuple[str, ...]] = {
    "text_column": ("text", "sentence", "utterance", "headline", "document", "content", "body", "question", "tokens"),
    "label_column": ("label", "intent", "category", "class", "topic", "relation"),
    "domain_column": ("domain", "label", "source", "language", "category", "topic"),
    "prompt_column": ("prompt", "question", "instruction", "input", "source"),
    "completion_column": ("completion", "answer", "response", "output", "target"),
}
"""Names that leave no doubt. Where the first is there, it is the one; else there must be just one of the others."""


@dataclass(frozen=True)
class Columns:
    """The field of each role, and what was guessed, in words ("" if nothing was)."""

    names: Mapping[str, str]
    guessed: str

    def __getitem__(self, role: str) -> str:
        """The field of a role."""
        return self.names[role]


def choose_columns(first: Row, wanted: Mapping[str, str | None], optional: str | None = None) -> Columns:
    """Settle the fields by the first row.

    Parameters
    ----------
    first : Row
        Its fields are those there are.
    wanted : dict
        Role (a key of `OBVIOUS`) -> the field as the config names it, or None.
    optional : str or None
        A role that may be missing in the result: nothing is named, and nothing obvious there.

    Raises
    ------
    DataError
        None or several of the obvious names are there. A named field that a row lacks is the row's error.
    """
    names: dict[str, str] = {}
    guesses = []
    for role, name in wanted.items():
        there = {field.lower(): field for field in first.fields if field not in names.values()}
        if name is None and role == optional and not any(obvious in there for obvious in OBVIOUS[role]):
            continue
        names[role] = _obvious(first, role, there) if name is None else name
        if name is None and names[role] != OBVIOUS[role][0]:
            guesses.append(f"{role} {names[role]!r}")
    return Columns(names, f"guessed: {', '.join(guesses)}" if guesses else "")


def _obvious(first: Row, role: str, there: Mapping[str, str]) -> str:
    found = [there[name] for name in OBVIOUS[role] if name in there]
    if found and (len(found) == 1 or found[0].lower() == OBVIOUS[role][0]):
        return found[0]
    what = role.removesuffix("_column")
    problem = f"which column is the {what}? Several could be" if found else f"no column is obviously the {what}"
    raise DataError(
        f"{first.place}: {problem}; no column {OBVIOUS[role][0]!r}; the row has "
        f"{', '.join(map(repr, first.fields))}. Name it with data.{role} "
        f"(on the command line --{role.replace('_', '-')})."
    )


def text_of(row: Row, column: str, tokens: bool = False) -> str:
    """A field as text. tokens : a list of strings is text, too, with spaces between.

    Raises `DataError` if the row lacks it, or it is empty or something else.
    """
    if column not in row.fields:
        raise DataError(
            f"{row.place}: no column {column!r}; the row has {', '.join(map(repr, row.fields))}. "
            f"Name the columns with data.text_column, data.label_column and their like."
        )
    value = row.fields[column]
    if tokens and isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        value = " ".join(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{row.place}: {column!r} is empty. Fill it in or remove the row.")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise DataError(f"{row.place}: {column!r} is a {type(value).__name__}; expected text.")
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{row.place}: {column!r} holds half a character (a lone surrogate). Mend the text.") from None
    return text
