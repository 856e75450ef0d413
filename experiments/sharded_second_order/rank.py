"""One rank in this process; what it measured is one line of JSON on standard output. Started by groups.py.

    rank.py exactness FAMILY FOLDER --rank 0 --ranks 2 --port P      errors at every ZeRO stage and K
    rank.py parameters FAMILY FOLDER --rank 0 --ranks 2 --port P     errors of each estimator if every parameter adapts
    rank.py cost FAMILY FOLDER --rank 0 --ranks 2 --port P [--whole] [--all-parameters]
                                                                     memory, bytes gathered, seconds
    rank.py planned FAMILY FOLDER --rank 0 --ranks 2 --port P [--all-parameters]
                                                                     what --dry-run says of the peak, and the peak

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
from models import learner_config, meta_gradient, run_config, whole
from torch import Tensor

from metacl.coordination.memory_plan import rank_memory
from metacl.coordination.worker import MetaGradientWork, Worker
from metacl.learners.base import Learner
from metacl.learners.sharding import RankEnvironment, ShardedBase, ZeroOptions, make_engine
from metacl.metagradients import FiniteDifference, FirstOrder, MetaGradient, Reptile, Reverse
from metacl.tasks import TaskAddress

STEPS = (1, 3, 5)
COST_STEPS = 3
ALL_IN_SHARDS = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}


def exactness(options: argparse.Namespace, environment: RankEnvironment) -> dict[str, Any]:
    """‖g − g_unsharded‖ / ‖g_unsharded‖ at every stage and K, and whether a second time gives the same bits."""
    config = learner_config(options.family, options.folder)
    alone = config.build(0)
    expected = {steps: _gradient(alone, steps, Reverse()) for steps in STEPS}
    found: dict[str, Any] = {}
    for stage in range(4):
        learner = config.build(0, engine=make_engine(ZeroOptions(stage, extra=ALL_IN_SHARDS), environment, gpu=False))
        for steps, reference in expected.items():
            gradient = _gradient(learner, steps, Reverse())
            found[f"stage {stage}, K={steps}"] = float((gradient - reference).norm() / reference.norm())
        found[f"stage {stage}, same bits"] = bool(torch.equal(gradient, _gradient(learner, steps, Reverse())))
    return found


def parameters(options: argparse.Namespace, environment: RankEnvironment) -> dict[str, Any]:
    """The same error at stage 3 where every parameter adapts, in parts, for each estimator."""
    config = learner_config(options.family, options.folder, all_parameters=True)
    alone = config.build(0)
    learner = config.build(0, engine=make_engine(ZeroOptions(3, extra=ALL_IN_SHARDS), environment, gpu=False))
    found: dict[str, Any] = {}
    for estimator in (FirstOrder(), Reptile(), FiniteDifference(), Reverse()):
        reference = _gradient(alone, COST_STEPS, estimator)
        gradient = _gradient(learner, COST_STEPS, estimator)
        found[str(estimator.registered_name)] = float((gradient - reference).norm() / reference.norm())
    found["same bits"] = bool(torch.equal(gradient, _gradient(learner, COST_STEPS, Reverse())))
    return found


def _gradient(learner: Learner, steps: int, estimator: MetaGradient) -> Tensor:
    return whole(learner, meta_gradient(learner, steps, estimator))


def cost(options: argparse.Namespace, environment: RankEnvironment) -> dict[str, Any]:
    """Memory of the rank while loading and while computing, bytes gathered an inner step, seconds a meta-gradient."""
    every = options.all_parameters
    config = learner_config(options.family, options.folder, every)
    estimator = FirstOrder() if every else Reverse()
    engine = None if options.whole else make_engine(ZeroOptions(3, extra=ALL_IN_SHARDS), environment, gpu=False)
    meta_gradient(learner_config(options.family, options.warm_up, every).build(0, engine=engine), 1, estimator)
    gc.collect()
    before = _anonymous_mb()
    with _Peak() as loading:
        learner = config.build(0, engine=engine)
    held = _anonymous_mb()
    meta_gradient(learner, COST_STEPS, estimator)
    gathered = engine.gathering.elements if isinstance(engine, ShardedBase) else 0
    seconds = []
    with _Peak() as computing:
        for _ in range(3):
            started = time.perf_counter()
            meta_gradient(learner, COST_STEPS, estimator)
            seconds.append(time.perf_counter() - started)
    return {
        "base_mb": learner.base_parameters * 4 / 1e6,
        "held_mb": held - before,
        "loading_peak_mb": loading.mb - before,
        "computing_peak_mb": computing.mb - before,
        "gathered_mb_per_inner_step": gathered * 4 / 1e6 / COST_STEPS,
        "seconds": sorted(seconds)[1],
    }


def planned(options: argparse.Namespace, environment: RankEnvironment) -> dict[str, Any]:
    """What the memory plan says that a task takes, and the most that a rank takes for it above its libraries."""
    engine = make_engine(ZeroOptions(3, extra=ALL_IN_SHARDS), environment, gpu=False)

    def compute(folder: Path) -> Worker:
        worker = Worker(run_config(options.family, folder, options.ranks, options.all_parameters), engine)
        for _ in range(2):
            MetaGradientWork()(worker, TaskAddress("train", 0, 0, 0), worker.layout.flatten(worker.initial))
        return worker

    plan = rank_memory(run_config(options.family, options.folder, options.ranks, options.all_parameters))
    kept = compute(options.warm_up)  # libraries and data
    gc.collect()
    before = _anonymous_mb()
    with _Peak() as peak:
        compute(options.folder)
    del kept
    return {"planned_mb": plan.on_device / 1e6, "peak_mb": peak.mb - before}


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
    parser.add_argument("what", choices=["exactness", "parameters", "cost", "planned"])
    parser.add_argument("family")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--warm-up", type=Path, help="a small model, so that libraries do not count")
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--all-parameters", action="store_true", help="every parameter adapts, by first order")
    parser.add_argument("--whole", action="store_true", help="without shards and without DeepSpeed")
    options = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries talk
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    environment = RankEnvironment(options.rank, options.ranks, "127.0.0.1", options.port)
    measure = {"exactness": exactness, "parameters": parameters, "cost": cost, "planned": planned}[options.what]
    print(json.dumps(measure(options, environment)), file=answers, flush=True)


if __name__ == "__main__":
    main()
