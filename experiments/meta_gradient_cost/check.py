"""The lines of the issue, measured again in about ten minutes: PASS or FALL SHORT each, and the exit status says which.

Times are ratios against the fastest exact peer of the same run, all methods in turn (compare.py). Memory is measured
in fresh processes with one task instead of four: tasks follow one another, so their peak is that of one.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from compare import Rounds, rounds
from processes import FAILED, measured, why_not

OURS = {
    "a": ("reverse_compiled", "reverse_all", "one_sided_compiled", "first_order", "first_order_loop"),
    "b": ("reverse",),
}
PEERS = {"a": ("plain", "higher", "learn2learn", "torchopt", "betty"), "b": ("plain", "higher", "torchopt")}
"""Without vmap over tasks, which takes gigabytes and was 1.3 × the plain unroll; on (b) to save time also without
learn2learn and Betty, which were within a few percent of the others."""


@dataclass(frozen=True)
class Line:
    """A claim, what was found, and the bar it is held to; `found` is None where nothing could be measured."""

    claim: str
    found: float | None
    bar: float
    detail: str

    @property
    def passes(self) -> bool:
        """Whether the bar is met."""
        return self.found is not None and self.found <= self.bar

    def __str__(self) -> str:
        found = "nothing" if self.found is None else f"{self.found:.3g}"
        return f"{'PASS' if self.passes else 'FALL SHORT':<10}  {self.claim}: {found} (bar {self.bar:g}; {self.detail})"


def main() -> int:
    """Measure, print the lines last, and return the exit status."""
    started = time.monotonic()
    lines = [*flatness("a", "reverse_compiled"), *flatness("b", "reverse")]
    measured("reference", "a", 5)
    lines += on_language_model(_rounds("a", 4))
    measured("reference", "b", 5)
    lines += on_intents(_rounds("b", 3))
    print(f"\n{time.monotonic() - started:.0f} s. What each line was found from stands in brackets.")
    for line in lines:
        print(line)
    return 0 if all(line.passes for line in lines) else 1


def flatness(case: str, method: str) -> list[Line]:
    """Extra peak memory at K = 20 against K = 1."""
    few, many = measured(method, case, 1, tasks=1), measured(method, case, 20, tasks=1)
    broken = few.get(FAILED) or many.get(FAILED)
    if broken:
        return [Line(f"({case}) reverse, memory flat in K", None, 1.15, broken)]
    one, twenty = few["extra_mb"], many["extra_mb"]
    lines = [Line(f"({case}) reverse, extra memory at K=20 / K=1", twenty / one, 1.15, f"{twenty:.0f} / {one:.0f} MB")]
    if case == "a":
        lines.append(Line("(a) reverse, extra MB at K=20", twenty, 60, f"K=1: {one:.0f} MB"))
    return lines


def on_language_model(found: Rounds) -> list[Line]:
    """Time at K = 5 on (a) against the fastest exact peer, and errors against float64."""
    peer = found.fastest(PEERS["a"])
    return [
        _time("(a) K=5 reverse, flat and compiled, time", found, "reverse_compiled", peer, 1.0),
        _time('(a) K=5 reverse, allowance "all", time', found, "reverse_all", peer, 0.9),
        _time("(a) K=5 finite differences, one-sided and compiled, time", found, "one_sided_compiled", peer, 0.75),
        _error("(a) K=5 reverse, relative error", found, "reverse_compiled", 1e-5),
        _error("(a) K=5 finite differences, one-sided, relative error", found, "one_sided_compiled", 5e-3),
        _time("(a) K=5 first order, time", found, "first_order", "first_order_loop", 1.05),
    ]


def on_intents(found: Rounds) -> list[Line]:
    """Time at K = 5 on (b), frozen layers computed once, against the fastest exact peer, which runs all layers."""
    peer = found.fastest(PEERS["b"])
    return [
        _time("(b) K=5 reverse, flat, frozen layers computed once, time", found, "reverse", peer, 0.5),
        _error("(b) K=5 reverse, relative error", found, "reverse", 1e-5),
    ]


def _rounds(case: str, count: int) -> Rounds:
    for method in PEERS[case]:
        if reason := why_not(method):
            print(f"({case}) without {method}: {reason}")
    found = rounds(case, 5, (*OURS[case], *PEERS[case]), count)
    for method, seconds in found.seconds.items():
        figures = " ".join(f"{s:.2f}" for s in seconds)
        print(f"({case}) K=5 {method}: {figures} s; warm-up {found.warm_up_s[method]:.1f} s", flush=True)
    return found


def _time(claim: str, found: Rounds, method: str, against: str, bar: float) -> Line:
    ratio = found.ratio(method, against)
    return Line(claim, ratio.median, bar, str(ratio))


def _error(claim: str, found: Rounds, method: str, bar: float) -> Line:
    return Line(claim, found.errors[method], bar, "against the float64 plain unroll")


if __name__ == "__main__":
    sys.exit(main())
