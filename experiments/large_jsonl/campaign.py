"""Makes files, measures each in fresh processes, deletes them; results.json is resumable and never redone."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from make import make
from picture import draw

HERE = Path(__file__).parent
GB = 10**9
LIMIT_MB = 500
IN_MEMORY_UP_TO = 300 * 10**6


def measured(path: Path, mode: str, cache: Path) -> dict[str, object]:
    """What a fresh process says."""
    command = [sys.executable, str(HERE / "measure.py"), str(path), mode]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "XDG_CACHE_HOME": str(cache)}
    )
    return json.loads(done.stdout)


def point(size: int, scratch: Path) -> dict[str, object]:
    """One file size: the first opening builds the index, the second finds it."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path, cache = Path(folder) / "large.jsonl", Path(folder) / "cache"
        make(path, size)
        found: dict[str, object] = {
            "bytes": path.stat().st_size,
            "building": measured(path, "index", cache),
            "cached": measured(path, "index", cache),
            "index_bytes": sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()),
        }
        if size <= IN_MEMORY_UP_TO:
            found["memory"] = measured(path, "memory", cache)
        return found


def main() -> None:
    """Prints the table last; exits 1 if a peak is over the limit, or index and memory give other episodes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    sizes = [100 * 10**6, 300 * 10**6] if arguments.check else [300 * 10**6, GB, 5 * GB]
    store = HERE / "results.json"
    results = json.loads(store.read_text()) if store.exists() and not arguments.check else {}
    for size in sizes:
        if str(size) not in results:
            results[str(size)] = point(size, arguments.scratch)
            if not arguments.check:
                store.write_text(json.dumps(results, indent=1) + "\n")
    if not arguments.check:
        draw(results, HERE / "picture.svg")
    sound = True
    heads = ("file, GB", "index, MB", "building it, s", "peak, MB", "opening it again, s", "peak, MB", "an episode, ms")
    print(f"| {' | '.join((*heads, 'in memory: peak, MB'))} |")
    print("|---" * (len(heads) + 1) + "|")
    for result in results.values():
        building, cached, memory = result["building"], result["cached"], result.get("memory")
        sound &= max(building["peak_mb"], cached["peak_mb"]) <= LIMIT_MB
        sound &= memory is None or all(memory[key] == cached[key] for key in ("episodes_sha256", "said"))
        cells = [
            f"{result['bytes'] / GB:.2f}",
            f"{result['index_bytes'] / 1e6:.1f}",
            f"{building['open_s']:.1f}",
            f"{building['peak_mb']:.0f}",
            f"{cached['open_s']:.2f}",
            f"{cached['peak_mb']:.0f}",
            f"{cached['episode_ms']:.2f}",
            f"{memory['peak_mb']:.0f}" if memory else "–",
        ]
        print(f"| {' | '.join(cells)} |")
    print(f"every peak within {LIMIT_MB} MB, and the episodes those of the file in memory: {'yes' if sound else 'NO'}")
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
