"""Groups of fresh rank processes on this machine, and the results they print."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from models import save_model

from metacl.coordination.ray_group import NOTHING_KEPT

HERE = Path(__file__).parent
MODELS = HERE / ".models"


def group(what: str, family: str, width: int, layers: int, ranks: int, *flags: str) -> list[dict[str, Any]]:
    """What each rank of a new group measured. Raises `RuntimeError` with the last line of a rank that failed."""
    folder = save_model(family, width, layers, MODELS / f"{family}-{width}-{layers}")
    small = save_model(family, 64, 2, MODELS / f"{family}-64-2")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "rank.py", what, family, str(folder), "--warm-up", str(small), *flags]
    environment = {**os.environ, **NOTHING_KEPT, "DS_ACCELERATOR": "cpu"}
    processes = [
        subprocess.Popen(
            [*command, "--rank", str(rank), "--ranks", str(ranks), "--port", str(port)],
            cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    try:
        done = [process.communicate() for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, done, strict=True):
        if process.returncode:
            lines = [line for line in errors.splitlines() if line.strip()]
            raise RuntimeError(lines[-1] if lines else f"a rank ended with status {process.returncode}")
    return [json.loads(output) for output, _ in done]
