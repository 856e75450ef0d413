"""The bars, measured again: PASS or FALL SHORT each, and the exit status says which."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from campaign import COST, EXACTNESS, FAMILIES, PLANNED
from groups import group

LARGEST_MB = 11 * COST[0] ** 2 / 4 * 4 / 1e6
"""A matrix of the gated MLP."""


@dataclass(frozen=True)
class Line:
    """A claim, what was found, and the bar it is held to."""

    claim: str
    found: float
    bar: float

    @property
    def passes(self) -> bool:
        """Whether the bar is met."""
        return self.found <= self.bar

    def __str__(self) -> str:
        return f"{'PASS' if self.passes else 'FALL SHORT':<10}  {self.claim}: {self.found:.3g} (bar {self.bar:.3g})"


def main() -> int:
    """Measure, print the lines, and return the exit status."""
    lines = []
    for family in FAMILIES:
        found = group("exactness", family, *EXACTNESS, 2)[0]
        for stage in range(4):
            errors = [error for name, error in found.items() if name.startswith(f"stage {stage}, K=")]
            what = f"{family}, 2 ranks, ZeRO {stage}"
            lines.append(Line(f"{what}: largest relative error, K = 1, 3, 5", max(errors), 1e-5))
            lines.append(Line(f"{what}: other bits the 2nd time", not found[f"stage {stage}, same bits"], 0))
    for family in FAMILIES:
        found = group("parameters", family, *EXACTNESS, 2)[0]
        for estimator in ("first_order", "reptile", "reverse", "finite_difference"):
            bar = 1e-3 if estimator == "finite_difference" else 1e-5
            lines.append(Line(f"{family}, 2 ranks, every parameter adapts, {estimator}", found[estimator], bar))
    for family, *flags in PLANNED:
        rows = group("planned", family, *COST, 2, *flags)
        error = max(abs(row["planned_mb"] / row["peak_mb"] - 1) for row in rows)
        lines.append(Line(f"{family}, 2 ranks {' '.join(flags)}: the memory plan's relative error", error, 0.15))
    alone, half = (max(row["computing_peak_mb"] for row in rows) for rows in (
        group("cost", "llama", *COST, 1, "--whole", "--all-parameters"),
        group("cost", "llama", *COST, 2, "--all-parameters"),
    ))  # fmt: skip
    lines.append(Line("every parameter adapts: peak MB of a rank of 2, of one process's", half / alone, 0.6))
    whole = group("cost", "llama", *COST, 1, "--whole")[0]
    for ranks in (2, 4):
        rows = group("cost", "llama", *COST, ranks)
        shard = whole["base_mb"] / ranks
        loading = max(row["loading_peak_mb"] for row in rows)
        # The file's tensor and its part, a matrix each at most; allocators and libraries take some MB.
        lines.append(Line(f"R={ranks}: MB while loading", loading, shard + 2 * LARGEST_MB + 10))
        held = max(row["held_mb"] for row in rows)
        lines.append(Line(f"R={ranks}: MB held by a rank after loading, of {whole['base_mb']:.0f}", held, shard + 10))
        computing = max(row["computing_peak_mb"] for row in rows) - held
        alone = whole["computing_peak_mb"] - whole["held_mb"]
        lines.append(Line(f"R={ranks}: MB beside it while computing", computing, alone + 2 * LARGEST_MB + 10))
    for line in lines:
        print(line)
    return 0 if all(line.passes for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
