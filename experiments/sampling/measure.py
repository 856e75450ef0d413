"""One fresh process: the parts of training tasks of one config, in seconds, as JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

from metacl import load_config
from metacl.coordination.worker import Worker
from metacl.learners.base import as_leaves
from metacl.tasks import TaskAddress

WARM_UP = 3


def main() -> None:
    """Medians over tasks. Arguments: config, tasks, overrides."""
    config = load_config(sys.argv[1], ["workers={executor: local, threads: 1}", *sys.argv[3:]])
    worker = Worker(config)
    learner: Any = worker.learner
    params = as_leaves(worker.initial)
    parts: dict[str, list[float]] = {"drawing": [], "tokens": [], "preparing": [], "task": []}
    for index in range(WARM_UP + int(sys.argv[2])):
        marks = [time.perf_counter()]
        episode = worker.source.episode(TaskAddress("train", config.seed, index, 0), config.episodes)
        marks.append(time.perf_counter())
        for texts in (episode.support_texts, episode.query_texts):
            learner.tokenizer(list(texts), truncation=True, max_length=learner.config.max_length)
        marks.append(time.perf_counter())
        task = learner.prepare(episode)  # tokens once more, the padding, and the layers below the adapter
        marks.append(time.perf_counter())
        config.estimator.estimate(config.objective.problem(learner, params, task, config.inner))
        marks.append(time.perf_counter())
        if index >= WARM_UP:
            for name, begun, ended in zip(parts, marks, marks[1:], strict=False):
                parts[name].append(ended - begun)
    print(json.dumps({name: statistics.median(seconds) for name, seconds in parts.items()}))


if __name__ == "__main__":
    main()
