"""Everything the table holds, in order of interest; what results.json has already is not measured again.

    campaign.py [--minutes M] [--case a]

Nothing starts once M minutes have passed; what runs then is finished. The methods that the bars are about come first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from compare import rounds
from methods import METHODS
from processes import FAILED, compiled_code, measured

RESULTS = Path(__file__).parent / "results.json"
STEPS = {"a": (5, 1, 20, 10), "b": (5, 1, 20, 10), "c": (5, 1, 20, 10), "gpu": (8,)}
ORDER = (
    "plain", "higher", "torchopt", "learn2learn", "betty", "vmap",
    "reverse_compiled", "reverse_last_compiled", "reverse_all_compiled", "reverse_bf16_compiled", "one_sided_compiled",
    "side_by_side_compiled", "reverse", "reverse_all", "side_by_side", "one_sided", "finite_difference",
    "first_order", "first_order_loop",
)  # fmt: skip
FIRST = (
    "plain", "higher", "torchopt", "learn2learn", "reverse_compiled", "reverse_last_compiled", "reverse_all_compiled",
    "reverse_bf16_compiled", "one_sided_compiled", "reverse", "first_order",
)  # fmt: skip
"""What is measured before the others."""
PAIRED = [("a", 5), ("b", 5), ("a", 10), ("c", 5)]
"""Where all methods are also run in turn, for ratios that the machine's drift does not touch."""
ROUNDS = 3
SHARE_OF_MEMORY = 0.5
"""Of what the machine has left; what would take more, going by fewer inner steps, is not run."""
DISTURBED = 1.5
"""Where the slowest meta-step took more than this times the fastest, the next run measures again."""

VECTORS = {"amx_tile": "AMX", "avx512_bf16": "AVX-512 with bfloat16", "avx512f": "AVX-512"}
"""What a processor multiplies matrices with, the fastest first."""


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
    cases = ["a", "b", "c"] + (["gpu"] if torch.cuda.is_available() else [])
    settings = [(case, steps) for place in range(4) for case in cases for steps in STEPS[case][place : place + 1]]
    for methods in (FIRST, ORDER):
        for case, steps in settings:
            if options.case in (None, case):
                _alone(results, case, steps, methods, until)
        for case, steps in PAIRED:
            if options.case in (None, case):
                _paired(results, case, steps, methods, until)


def read() -> dict[str, Any]:
    """What results.json holds."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else fresh()


def fresh() -> dict[str, Any]:
    """Nothing measured. Figures of two machines do not go into one table."""
    return {"machine": {}, "alone": {}, "paired": {}}


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    named = re.search(r"model name\s*: (.*)", cpuinfo)
    # "AMD EPYC" are many processors: what they multiply matrices with tells those apart that matter here.
    widest = next((name for flag, name in VECTORS.items() if re.search(rf"\b{flag}\b", cpuinfo)), "no AVX-512")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": f"{named.group(1) if named else platform.machine()}, {widest}",
        "threads": 1,
        "torch": torch.__version__,
        "gpu": gpu,
    }


def sound(row: dict[str, Any] | None) -> bool:
    """Whether a measurement is there and the machine did not disturb it: the same rule for every method."""
    return row is not None and ("failed" in row or row["seconds_max"] <= DISTURBED * row["seconds_min"])


def _alone(results: dict[str, Any], case: str, steps: int, methods: tuple[str, ...], until: float) -> None:
    """Each method in a fresh process: time, memory, error; at a case's first K also what compiling takes."""
    for method in methods:
        key = f"{case} {steps} {method}"
        if case not in (*METHODS[method].cases, "gpu") or sound(results["alone"].get(key)):
            continue
        if time.monotonic() > until:
            return
        if too_large := _too_large(results, case, steps, method):
            results["alone"][key] = {FAILED: too_large}
            continue
        tasks = 32 if case == "gpu" else 4
        if not (Path(__file__).parent / ".references" / f"{case}-{steps}-{tasks}.pt").exists():
            measured("reference", case, steps, tasks)
        load = os.getloadavg()[0]
        if steps == STEPS[case][0]:
            shutil.rmtree(compiled_code(method, case), ignore_errors=True)
        row = {**measured(method, case, steps, tasks), "load": round(load, 1)}
        results["alone"][key] = row
        _write(results)
        print(f"{key}: {row}", flush=True)


def _too_large(results: dict[str, Any], case: str, steps: int, method: str) -> str | None:
    """Why a measurement would take the machine's memory, by what fewer steps of an unrolled method took; or None."""
    fewer = results["alone"].get(f"{case} {STEPS[case][0]} {method}", {})
    expected_mb = fewer.get("extra_mb", 0.0) * steps / STEPS[case][0]
    if METHODS[method].kind != "peer" or case == "gpu":
        return None
    if expected_mb < SHARE_OF_MEMORY * psutil.virtual_memory().available / 1e6:
        return None
    return f"not run, would take some {expected_mb / 1e3:.0f} GB"


def _paired(results: dict[str, Any], case: str, steps: int, methods: tuple[str, ...], until: float) -> None:
    """Those of the methods that could be measured alone, in turn; again if some are new since the last time."""
    key = f"{case} {steps}"
    methods = tuple(m for m in methods if "seconds" in results["alone"].get(f"{key} {m}", {}))
    known = results["paired"].get(key, {"seconds": {}})["seconds"]
    if set(methods) <= set(known) or time.monotonic() > until:
        return
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
