"""Writes a JSONL file of the wanted size: texts of some 450 bytes in 1000 classes, one in fifty a duplicate."""

import json
import random
import sys
from pathlib import Path

CLASSES, BLOCK = 1000, 2000


def make(path: Path, size: int) -> None:
    """Blocks of lines with new numbers in texts that repeat, so that writing is not what takes the time."""
    words = random.Random(0)
    fillers = [" ".join(words.choice("abcdefghijklmnopqrstuvwxyz") * 5 for _ in range(72)) for _ in range(50)]
    number = 0
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            for _ in range(BLOCK):
                again = number - number % 50 if number % 50 == 49 else number  # the same text and class as 49 before
                row = {"text": f"{again} {fillers[again % 50]}", "label": f"class {again // 50 % CLASSES}"}
                file.write(json.dumps(row) + "\n")
                number += 1


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]))
