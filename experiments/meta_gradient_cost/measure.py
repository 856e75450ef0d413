"""One measurement in this fresh process; the result is one line of JSON on standard output.

    measure.py METHOD --case a --steps 5           time, extra peak memory, error
    measure.py METHOD --case a --steps 5 --serve   for compare.py: a meta-step for every line on standard input
    measure.py reference --case a --steps 5        writes the gradient that errors are relative to

The case "gpu" runs on the GPU, all others on one thread of the processor.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from bench import Bench, flat
from methods import METHODS
from models import Setting, build

REFERENCES = Path(__file__).parent / ".references"


def main() -> None:
    """See the module."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # libraries talk
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    options = _options()
    setting = Setting(options.steps, options.tasks, device="cuda" if options.case == "gpu" else "cpu")
    path = REFERENCES / f"{options.case}-{options.steps}-{options.tasks}.pt"
    if options.method == "reference":
        print(json.dumps(write_reference(options.case, setting, path)), file=answers)
    elif options.serve:
        serve(Bench(options.method, options.case, setting), path, answers)
    else:
        print(json.dumps(measure(options.method, options.case, setting, path)), file=answers)


def measure(method: str, case: str, setting: Setting, reference: Path) -> dict[str, Any]:
    """Median seconds of a meta-step, extra peak MB, relative error and cosine against the reference if there is one."""
    try:
        bench = Bench(method, case, setting)
        seconds, extra_mb = bench.timed_steps()
    except torch.OutOfMemoryError:
        return {"failed": "out of GPU memory"}
    row = {
        "seconds": round(statistics.median(seconds), 4),
        "seconds_min": round(min(seconds), 4),
        "seconds_max": round(max(seconds), 4),
        "repeats": len(seconds),
        "extra_mb": round(extra_mb, 1),
        "warm_up_s": round(bench.warm_up_s, 2),
        "kept_mb": round(bench.kept_mb, 1),
    }
    return {**row, **against(reference, bench)}


def against(reference: Path, bench: Bench) -> dict[str, float]:
    """Relative error and cosine of the bench's gradient, if there is a reference."""
    if not reference.exists():
        return {}
    exact, found = torch.load(reference), flat(bench.gradient)
    return {
        "error": float((found - exact).norm() / exact.norm()),
        "cosine": float(found @ exact / (found.norm() * exact.norm())),
    }


def write_reference(case: str, setting: Setting, path: Path) -> dict[str, Any]:
    """The plain unroll in float64, or on the GPU, where the base is bf16 for all, in the case's own precision."""
    dtype = torch.float32 if case == "gpu" else torch.float64
    torch.set_num_threads(1)
    exact = flat(METHODS["plain"].step(build(case, Setting(setting.steps, setting.tasks, dtype, setting.device))))
    path.parent.mkdir(exist_ok=True)
    torch.save(exact, path)
    return {"norm": float(exact.norm())}


def serve(bench: Bench, reference: Path, answers: Any) -> None:
    """Say that the warm-up is done, and the error; then one JSON number, seconds, a request."""
    print(json.dumps({"warm_up_s": bench.warm_up_s, **against(reference, bench)}), file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(bench.timed_step()), file=answers, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=[*METHODS, "reference"])
    parser.add_argument("--case", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--serve", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
