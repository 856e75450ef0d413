"""What every row answered on the first episodes of every split, so that any two can be compared episode by episode.

A file for each group of rows and data set: cell -> row -> split -> {"right": of each episode, "seconds": to adapt}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metacl.coordination.run_folder import write_text
from metacl.evaluation.few_shot import EpisodeScore
from metacl.evaluation.methods import Row

QUERIES = 5


FOLDER = Path(__file__).parent / "episodes"


class Episodes:
    """All files, read; one is written back whole after every addition.

    write : which file. folder : where they lie.
    """

    def __init__(self, write: str = "", folder: Path = FOLDER) -> None:
        folder.mkdir(exist_ok=True)
        self._path = folder / f"{write}.json"
        self._cells: dict[str, Any] = {}
        self._own: dict[str, Any] = {}
        for path in sorted(folder.glob("*.json")):
            cells = json.loads(path.read_text("utf-8"))
            for cell, rows in cells.items():
                for row, of in rows.items():
                    there = self._cells.setdefault(cell, {}).setdefault(row, {})
                    for split, kept in of.items():  # two groups may have a row: the one with more episodes counts
                        if split not in there or len(kept["right"]) > len(there[split]["right"]):
                            there[split] = kept
            if path == self._path:
                self._own = cells

    def add(self, cell: str, split: str, scores: Iterable[Sequence[EpisodeScore]]) -> None:
        """All rows of a sequence of episodes, from the first on."""
        found: dict[str, list[EpisodeScore]] = {}
        for of_episode in scores:
            for score in of_episode:
                found.setdefault(in_words(score.row), []).append(score)
        for row, of_row in found.items():
            kept = {
                "right": [round(score.accuracy * len(score.targets)) for score in of_row],
                "seconds": round(float(np.mean([score.seconds for score in of_row])), 4),
            }
            for cells in (self._cells, self._own):
                cells.setdefault(cell, {}).setdefault(row, {})[split] = kept
        lines = [
            f"{json.dumps(cell)}: {{\n"
            + ",\n".join(f"{json.dumps(row)}: {json.dumps(of, separators=(',', ':'))}" for row, of in rows.items())
            + "\n}"
            for cell, rows in self._own.items()
        ]
        write_text(self._path, "{\n" + ",\n".join(lines) + "\n}\n")

    def has(self, cell: str, row: Row, split: str, episodes: int) -> bool:
        """Whether it is measured on as many."""
        there = self._cells.get(cell, {}).get(in_words(row), {})
        return split in there and len(there[split]["right"]) >= episodes

    def put_beside(self, cell: str, other: str, ending: str, rows: Iterable[str]) -> None:
        """Rows of another cell with the same episodes, in this one, too; each name with `ending`."""
        of_other = {row + ending: self._cells[other][row] for row in rows}
        self._cells[cell] = {**of_other, **self._cells.get(cell, {})}

    def rows(self, cell: str) -> list[str]:
        """Those that are measured on some split, in the order in which they came."""
        return list(self._cells.get(cell, {}))

    def cells(self) -> list[str]:
        """Those that are begun."""
        return list(self._cells)

    def splits(self, cell: str, row: str) -> list[str]:
        """On which a row is measured."""
        return sorted(self._cells[cell][row])

    def of(self, cell: str, row: str, split: str) -> list[float]:
        """The accuracies of a row on a split's episodes, from the first on."""
        questions = int(cell.split()[1].split("w")[0]) * QUERIES
        return [right / questions for right in self._cells[cell][row][split]["right"]]

    def shared(self, cell: str, *rows: str) -> list[str]:
        """The splits on which all of these rows are measured."""
        return sorted(set.intersection(*(set(self.splits(cell, row)) for row in rows)))

    def seconds(self, cell: str, row: str) -> float:
        """To adapt to an episode, the mean over splits."""
        return float(np.mean([of["seconds"] for of in self._cells[cell][row].values()]))

    def together(self, cell: str, *rows: str) -> list[list[float]]:
        """The accuracies of these rows on the episodes that all of them have, in one order."""
        found: list[list[float]] = [[] for _ in rows]
        for split in self.shared(cell, *rows):
            values = [self.of(cell, row, split) for row in rows]
            count = min(map(len, values))
            for place, of_row in enumerate(values):
                found[place] += of_row[:count]
        return found


def in_words(row: Row) -> str:
    """As the table has it."""
    return row.method if row.steps is None else f"{row.method}, {row.steps} steps"
