"""Fresh processes that measure, each in the environment its method needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from methods import METHODS

HERE = Path(__file__).parent
FAILED = "failed"
"""Key of a result that holds no figures but the reason why there are none."""


@cache
def why_not(method: str) -> str | None:
    """Why a method cannot run here, or None."""
    library = METHODS[method].library
    if library is None:
        return None
    python = _python(method)
    if not Path(python).exists():
        return "no environment for the peers; run.sh makes it"
    code = f"import peers; peers.available({library!r})"
    done = subprocess.run([python, "-c", code], cwd=HERE, capture_output=True, text=True)
    return None if done.returncode == 0 else f"not installed: {_last_line(done.stderr)}"


def measured(method: str, case: str, steps: int, tasks: int = 4) -> dict[str, Any]:
    """What measure.py says of one method on one case; {"failed": reason} if there are no figures."""
    reason = why_not(method) if method in METHODS else None
    if reason:
        return {FAILED: reason}
    done = subprocess.run(
        _command(method, case, steps, tasks), cwd=HERE, env=_environment(method, case), capture_output=True, text=True
    )
    if done.returncode != 0:
        killed = f"killed by signal {-done.returncode}" if done.returncode < 0 else ""
        return {FAILED: _last_line(done.stderr) or killed}
    return json.loads(done.stdout)


class Served:
    """A warmed-up method in a process of its own that takes one meta-step whenever it is asked."""

    def __init__(self, method: str, case: str, steps: int, tasks: int) -> None:
        self.method = method
        self._process = subprocess.Popen(
            [*_command(method, case, steps, tasks), "--serve"],
            cwd=HERE, env=_environment(method, case),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        ready = self._answer()
        self.warm_up_s: float = ready["warm_up_s"]
        self.error: float | None = ready.get("error")

    def step(self) -> float:
        """Seconds of one meta-step."""
        assert self._process.stdin is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.method} ended with status {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()


def compiled_code(method: str, case: str) -> Path:
    """Where inductor keeps what it compiled for a method on a case; without it, the next process compiles again."""
    return HERE / ".compiled" / f"{case}-{method}"


def _environment(method: str, case: str) -> dict[str, str]:
    return {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(compiled_code(method, case))}


def _command(method: str, case: str, steps: int, tasks: int) -> list[str]:
    return [_python(method), "measure.py", method, "--case", case, "--steps", str(steps), "--tasks", str(tasks)]


def _python(method: str) -> str:
    """The peers' interpreter for what needs a library of theirs, else this one."""
    needs = method in METHODS and METHODS[method].library is not None
    return os.environ.get("PEERS_PYTHON", "") if needs else sys.executable


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
