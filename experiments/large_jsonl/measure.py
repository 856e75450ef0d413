"""One fresh process: open a JSONL file, draw episodes, print what that took as JSON. Mode: index or memory."""

import hashlib
import json
import resource
import sys
import time

from metacl.tasks import EpisodeShape, LabelledText, TaskAddress, line_index

EPISODES = 1000


def main() -> None:
    """Peak memory is that of the whole process, the interpreter and numpy included."""
    path, mode = sys.argv[1:]
    line_index.INDEX_FROM = 0 if mode == "index" else 1 << 62
    started = time.perf_counter()
    source = LabelledText(path=path, fractions=(0.6, 0.2, 0.2)).open()
    opened = time.perf_counter()
    shape = EpisodeShape(ways=5, shots=5, queries=5)
    source.check("train", shape)
    digest = hashlib.sha256()
    for step in range(EPISODES):
        episode = source.episode(TaskAddress("train", 0, step, 0), shape)
        digest.update(repr((episode.class_names, episode.support_texts, episode.query_texts)).encode())
    opened_and_drawn = time.perf_counter()
    print(
        json.dumps(
            {
                "mode": mode,
                "said": source.describe().replace(path, "FILE"),
                "episodes_sha256": digest.hexdigest(),
                "open_s": round(opened - started, 2),
                "episode_ms": round(1000 * (opened_and_drawn - opened) / EPISODES, 3),
                "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
