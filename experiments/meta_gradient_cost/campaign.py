"""Everything the table holds, in order of interest; what results.json has already is not measured again.

    campaign.py [--minutes M] [--case a]

Nothing starts once M minutes have passed; what runs then is finished.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import time
from pathlib import Path
from typing import Any

import torch
from compare import rounds
from methods import METHODS
from processes import measured

RESULTS = Path(__file__).parent / "results.json"
STEPS = {"a": (5, 1, 20, 10), "b": (5, 1, 20, 10), "c": (5, 1, 20, 10), "gpu": (8,)}
ORDER = (
    "plain", "higher", "reverse", "reverse_all", "first_order", "first_order_loop", "one_sided", "finite_difference",
    "reverse_compiled", "reverse_last_compiled", "reverse_all_compiled", "reverse_bf16_compiled", "one_sided_compiled",
    "side_by_side", "side_by_side_compiled",
    "torchopt", "learn2learn", "betty", "vmap",
)  # fmt: skip
PAIRED = [("a", 5), ("a", 10), ("b", 5), ("c", 5)]
"""Where all methods are also run in turn, for ratios that the machine's drift does not touch."""
ROUNDS = 5
DISTURBED = 1.5
"""Where the slowest meta-step took more than this times the fastest, the next run measures again."""


def main() -> None:
    """Measure what is missing and write it down after each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--case", choices=list(STEPS), help="only this one")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    results = read()
    if results["machine"] not in ({}, machine()):
        print(f"{RESULTS.name} is of another machine ({results['machine']}): measuring everything anew.")
        results = fresh()
    results["machine"] = machine()
    for case, steps in wanted():
        if options.case not in (None, case):
            continue
        _alone(results, case, steps, until)
        if (case, steps) in PAIRED:
            _paired(results, case, steps, until)


def wanted() -> list[tuple[str, int]]:
    """Cases and inner steps, the GPU's where there is one."""
    cases = ["a", "b", "c"] + (["gpu"] if torch.cuda.is_available() else [])
    return [(case, steps) for case in cases for steps in STEPS[case]]


def read() -> dict[str, Any]:
    """What results.json holds."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else fresh()


def fresh() -> dict[str, Any]:
    """Nothing measured. Figures of two machines do not go into one table."""
    return {"machine": {}, "alone": {}, "paired": {}}


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    named = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": named.group(1) if named else platform.machine(),
        "threads": 1,
        "torch": torch.__version__,
        "gpu": gpu,
    }


def sound(row: dict[str, Any] | None) -> bool:
    """Whether a measurement is there and the machine did not disturb it: the same rule for every method."""
    return row is not None and ("failed" in row or row["seconds_max"] <= DISTURBED * row["seconds_min"])


def _alone(results: dict[str, Any], case: str, steps: int, until: float) -> None:
    """Each method in a fresh process: time, memory, error."""
    for method in ORDER:
        key = f"{case} {steps} {method}"
        if case not in (*METHODS[method].cases, "gpu") or sound(results["alone"].get(key)):
            continue
        if time.monotonic() > until:
            return
        tasks = 32 if case == "gpu" else 4
        if not (Path(__file__).parent / ".references" / f"{case}-{steps}-{tasks}.pt").exists():
            measured("reference", case, steps, tasks)
        load = os.getloadavg()[0]
        row = {**measured(method, case, steps, tasks), "load": round(load, 1)}
        results["alone"][key] = row
        _write(results)
        print(f"{key}: {row}", flush=True)


def _paired(results: dict[str, Any], case: str, steps: int, until: float) -> None:
    key = f"{case} {steps}"
    if key in results["paired"] or time.monotonic() > until:
        return
    methods = [m for m in ORDER if "failed" not in results["alone"].get(f"{key} {m}", {"failed": "never tried"})]
    load = os.getloadavg()[0]
    results["paired"][key] = {**rounds(case, steps, methods, ROUNDS).as_dict(), "load": round(load, 1)}
    _write(results)
    print(f"{key}, in turn: {results['paired'][key]['seconds']}", flush=True)


def _write(results: dict[str, Any]) -> None:
    aside = RESULTS.with_suffix(".tmp")
    aside.write_text(json.dumps(results, indent=1) + "\n")
    aside.replace(RESULTS)


if __name__ == "__main__":
    main()
