"""One rank in this process; what it measured is one line of JSON on standard output. Started by groups.py.

    rank.py exactness FAMILY FOLDER --rank 0 --ranks 2 --port P      errors at every ZeRO stage and K
    rank.py cost FAMILY FOLDER --rank 0 --ranks 2 --port P [--whole] memory, bytes gathered, seconds

The reference of `exactness` is the same model whole in this process, without DeepSpeed.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from models import learner_config, meta_gradient

from metacl.learners.sharding import RankEnvironment, ShardedBase, ZeroOptions, make_engine

STEPS = (1, 3, 5)
COST_STEPS = 3
ALL_IN_SHARDS = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}


def exactness(options: argparse.Namespace, environment: RankEnvironment) -> dict[str, Any]:
    """‖g − g_unsharded‖ / ‖g_unsharded‖ at every stage and K, and whether a second time gives the same bits."""
    config = learner_config(options.family, options.folder)
    whole = config.build(0)
    expected = {steps: meta_gradient(whole, steps) for steps in STEPS}
    found: dict[str, Any] = {}
    for stage in range(4):
        learner = config.build(0, engine=make_engine(ZeroOptions(stage, extra=ALL_IN_SHARDS), environment, gpu=False))
        for steps, reference in expected.items():
            gradient = meta_gradient(learner, steps)
            found[f"stage {stage}, K={steps}"] = float((gradient - reference).norm() / reference.norm())
        found[f"stage {stage}, same bits"] = bool(torch.equal(gradient, meta_gradient(learner, steps)))
    return found


def cost(options: argparse.Namespace, environment: RankEnvironment) -> dict[str, Any]:
    """Memory of the rank while loading and while computing, bytes gathered an inner step, seconds a meta-gradient."""
    config = learner_config(options.family, options.folder)
    engine = None
    if not options.whole:
        engine = make_engine(ZeroOptions(3, extra=ALL_IN_SHARDS), environment, gpu=False)
        meta_gradient(learner_config(options.family, options.warm_up).build(0, engine=engine), 1)
    else:
        meta_gradient(learner_config(options.family, options.warm_up).build(0), 1)
    gc.collect()
    before = _anonymous_mb()
    with _Peak() as loading:
        learner = config.build(0, engine=engine)
    held = _anonymous_mb()
    meta_gradient(learner, COST_STEPS)
    gathered = engine.gathering.elements if isinstance(engine, ShardedBase) else 0
    seconds = []
    with _Peak() as computing:
        for _ in range(3):
            started = time.perf_counter()
            meta_gradient(learner, COST_STEPS)
            seconds.append(time.perf_counter() - started)
    return {
        "base_mb": learner.base_parameters * 4 / 1e6,
        "held_mb": held - before,
        "loading_peak_mb": loading.mb - before,
        "computing_peak_mb": computing.mb - before,
        "gathered_mb_per_inner_step": gathered * 4 / 1e6 / COST_STEPS,
        "seconds": sorted(seconds)[1],
    }


class _Peak:
    """The most anonymous memory (not mapped files) this process has while the context lasts, looked at every 2 ms."""

    def __enter__(self) -> _Peak:
        self.mb = _anonymous_mb()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.mb = max(self.mb, _anonymous_mb())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def _anonymous_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise KeyError("RssAnon")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["exactness", "cost"])
    parser.add_argument("family")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--warm-up", type=Path, help="a small model, so that libraries do not count")
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--whole", action="store_true", help="without shards and without DeepSpeed")
    options = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries talk
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    environment = RankEnvironment(options.rank, options.ranks, "127.0.0.1", options.port)
    measure = exactness if options.what == "exactness" else cost
    print(json.dumps(measure(options, environment)), file=answers, flush=True)


if __name__ == "__main__":
    main()
