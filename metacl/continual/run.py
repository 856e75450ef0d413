"""A continual run from its config: every seed, a checkpoint after every experience, results when they are there.

``config.yaml``; ``seed-S/checkpoints/step-K`` (the standing after K experiences) and ``seed-S/model`` for each seed;
``results.json``. The same command goes on where a run was stopped, and bit for bit as if it had not been, on any number
of worker groups; with a stream that has become longer it learns what is new.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import yaml

from metacl.continual.config import ContinualConfig, continual_config_from_dict
from metacl.continual.course import Course, Courses
from metacl.continual.record import Record
from metacl.continual.results import results_of
from metacl.continual.starts import read_start, write_model
from metacl.continual.worker import ContinualWorker, make_loop
from metacl.coordination.executor import LocalPool, Notify, WorkerPool, running
from metacl.coordination.interrupt import StopRequested, StopSignals
from metacl.coordination.memory_plan import weightless_learner
from metacl.coordination.run_folder import RunFolder, differing_keys, filled_in, write_text
from metacl.errors import ConfigError, ResourceError, RunInterrupted
from metacl.learners.base import use_threads
from metacl.tasks import TaskAddress

MAY_CHANGE = ("stream", "seeds")
"""Of a run that goes on: a longer stream (whose past is compared, example by example), more seeds."""

NO_PARAMETERS = np.empty(0, np.float32)
"""What all workers would be sent alike: each piece of work has its own."""


def run_continual(config: ContinualConfig, notify: Notify) -> dict[str, Any]:
    """Run or go on; returns what results.json holds.

    Raises
    ------
    ConfigError, DataError
        Before anything is written.
    ResourceError
        There are not enough worker groups, or no more; what is finished is saved.
    RunInterrupted
        By SIGINT or SIGTERM; what is finished is saved.
    """
    folder = RunFolder(config.folder)
    use_threads(config.workers.threads)
    streams = {seed: config.stream.open(seed) for seed in config.seeds}
    with folder.locked():
        _check_folder(folder, config)
        first = config.seeds[0]
        learner = weightless_learner(config.learner, first, config.workers)
        make_loop(config, first, streams[first], learner)  # raises if its parts do not fit
        if config.start is not None:
            for seed in config.seeds:
                read_start(config.start, config.learner, seed)
        courses = {
            seed: Course(config, seed, stream, folder.path / f"seed-{seed}", notify) for seed, stream in streams.items()
        }
        # Signals come after the pool: ray.init puts a handler of its own in the place of ours.
        with running(_pool(config, notify)) as pool, StopSignals() as signals:
            _write_config(folder, config)
            records: dict[int, Record] = {}

            def further() -> list[TaskAddress]:
                return [address for course in courses.values() for address in course.further()]

            results = pool.map(Courses(courses), further(), NO_PARAMETERS, further=further)
            try:
                while True:
                    with signals.abandonable():
                        done = next(results, None)
                    if done is None:
                        break
                    course = courses[done.address.seed]
                    course.take(done.address, done.result)
                    if course.finished:
                        model = course.folder / "model"
                        write_model(model, learner, config.learner, course.params, course.stream.class_names)
                        records[course.seed] = course.standing.record
                        del courses[course.seed]  # with its parameters and memories
                        write_text(folder.results, json.dumps(results_of(config, records), indent=1) + "\n")
            except StopRequested:
                raise RunInterrupted(
                    f"the experiences that were finished are in {folder.path}. The same command continues, bit for bit."
                ) from None
    return results_of(config, records)


def _pool(config: ContinualConfig, notify: Notify) -> WorkerPool:
    """What the config's workers are."""
    if config.workers.executor == "local":
        return LocalPool(config, notify, ContinualWorker)
    from metacl.coordination.ray_pool import RayPool
    from metacl.coordination.scheduler import Scheduler

    # Experiences take differently long, so none is late; and they take long, so none waits for a group that is busy.
    return RayPool(config, notify, ContinualWorker, Scheduler(config.workers.stragglers, queue=1))


def _check_folder(folder: RunFolder, config: ContinualConfig) -> None:
    """Raise `ConfigError` if the folder holds another run, or something else."""
    if folder.config.exists():
        try:
            stored = yaml.safe_load(folder.config.read_text("utf-8"))
        except (yaml.YAMLError, ValueError):
            stored = None
        if not isinstance(stored, dict):
            raise ConfigError(f"{folder.config}: damaged. Restore it, or give another folder (output=…).")
        if isinstance(workers := stored.get("workers"), dict):
            # What this says makes no other run of it, and older ones hold a policy that is refused now.
            stored["workers"] = {key: value for key, value in workers.items() if key != "stragglers"}
        both = (filled_in(stored, continual_config_from_dict), config.to_dict())
        trees = [{k: v for k, v in tree.items() if k not in MAY_CHANGE} for tree in both]
        if differing := differing_keys(*trees):
            raise ConfigError(
                f"{folder.path}: holds a different run ({'; '.join(differing)}). Give another folder (output=…) or "
                f"remove this one."
            )
    elif folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
        raise ConfigError(f"{folder.path}: exists and is not the folder of a run. Give another one (output=…).")


def _write_config(folder: RunFolder, config: ContinualConfig) -> None:
    """The folder is this run's afterwards."""
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"{folder.path}: cannot be written ({error.strerror}). Give another one (output=…)."
        ) from None
    write_text(folder.config, yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True))
