"""Everything that results.json does not hold yet. Stop it whenever you like and start it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from groups import group

RESULTS = Path(__file__).parent / "results.json"
FAMILIES = ("llama", "gpt2", "bert")
EXACTNESS = (64, 2)
COST = (512, 6)
"""Width and layers of the models."""
PLANNED = (("llama",), ("bert",), ("gpt2", "--all-parameters"))
"""Whose memory is planned and measured."""


def main() -> None:
    """Measure, row by row."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}

    def row(key: str, measure: Callable[[], Any]) -> None:
        if key not in results:
            results[key] = measure()
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")
            print(key, results[key], flush=True)

    for family in FAMILIES:
        row(f"exactness {family}", lambda f=family: group("exactness", f, *EXACTNESS, 2)[0])
    row("cost whole", lambda: group("cost", "llama", *COST, 1, "--whole"))
    for ranks in (1, 2, 4):
        row(f"cost R={ranks}", lambda r=ranks: group("cost", "llama", *COST, r))
    for family in FAMILIES:
        row(f"all parameters {family}", lambda f=family: group("parameters", f, *EXACTNESS, 2)[0])
    for family, *flags in PLANNED:
        key = " ".join(["planned", family, *flags])
        row(key, lambda f=family, flags=flags: group("planned", f, *COST, 2, *flags))
    row("all parameters cost whole", lambda: group("cost", "llama", *COST, 1, "--whole", "--all-parameters"))
    for ranks in (1, 2):
        row(f"all parameters cost R={ranks}", lambda r=ranks: group("cost", "llama", *COST, r, "--all-parameters"))


if __name__ == "__main__":
    main()
