"""Faults on purpose: what a config's ``faults:`` asks for happens once each, so that tests and drills can watch.

The driver decides when one is due and writes down that it struck before it does, so that a resumed run does not meet it
again. Without faults in the config nothing here is in the way of anything.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import psutil
from safetensors.torch import save_file
from torch import Tensor

from metacl.config import Fault
from metacl.coordination.checkpoint import Write
from metacl.coordination.executor import Notify
from metacl.coordination.flat import Flat
from metacl.coordination.run_folder import write_text
from metacl.coordination.worker import Send, SendToShards, TaskResult, Work, Worker, checksums
from metacl.errors import ConfigError
from metacl.tasks import TaskAddress

OF_CHECKPOINTS = ("corrupt_checkpoint", "disk_full")


class Faults:
    """The faults of a run that have not struck yet.

    Parameters
    ----------
    faults : sequence of Fault
        From the config.
    record : Path
        Where their numbers are kept once they have struck.
    """

    def __init__(self, faults: Sequence[Fault], record: Path, notify: Notify) -> None:
        self._record = record
        self._notify = notify
        self._struck: list[int] = json.loads(record.read_text()) if faults and record.exists() else []
        self._left = {number: fault for number, fault in enumerate(faults) if number not in self._struck}

    def strike(self, work: Work[TaskResult]) -> Work[TaskResult]:
        """The work with the faults of tasks in it; the work itself if there are none."""
        tasks = any(fault.kind not in OF_CHECKPOINTS for fault in self._left.values())
        return _Struck(work, self) if tasks else work

    def of_task(self, address: TaskAddress) -> Fault | None:
        """The fault that strikes as this task is handed out, if one is left."""
        return self._take(
            lambda fault: (
                fault.kind not in OF_CHECKPOINTS and (fault.step, fault.index) == (address.step, address.index)
            )
        )

    def writer(self, step: int) -> Write:
        """What writes the tensors of the checkpoint after `step` outer steps."""
        full = self._take(lambda fault: fault.kind == "disk_full" and fault.step < step)
        return save_file if full is None else _write_on_a_full_disk

    def saved(self, path: Path, step: int) -> None:
        """The checkpoint after `step` outer steps is safe."""
        if self._take(lambda fault: fault.kind == "corrupt_checkpoint" and fault.step < step):
            file = min(path.glob("meta_params*.safetensors"))
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)

    def _take(self, due: Callable[[Fault], bool]) -> Fault | None:
        number = next((number for number, fault in self._left.items() if due(fault)), None)
        if number is None:
            return None
        fault = self._left.pop(number)
        self._struck.append(number)
        write_text(self._record, json.dumps(self._struck) + "\n")
        self._notify(f"fault {number} strikes: {fault.kind} at step {fault.step}, index {fault.index}")
        return fault


@dataclass(frozen=True)
class _Struck(Work[TaskResult]):
    """The driver's side: decides for each hand-out whether a fault goes with it."""

    work: Work[TaskResult]
    faults: Faults

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> TaskResult:
        return self.work(worker, address, meta)

    @property
    def kind(self) -> str:
        return self.work.kind

    def handed_out(self, address: TaskAddress) -> Work[TaskResult]:
        fault = self.faults.of_task(address)
        if fault is None:
            return self.work
        if fault.kind == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
            return self.work
        return _Sabotage(self.work, fault)

    def check(self, result: TaskResult, meta: Flat) -> None:
        self.work.check(result, meta)


@dataclass(frozen=True)
class _Sabotage(Work[TaskResult]):
    """The worker's side: one task that goes wrong."""

    work: Work[TaskResult]
    fault: Fault

    def __call__(self, worker: Worker, address: TaskAddress, meta: Flat) -> TaskResult:
        strikes = self.fault.rank in (None, worker.rank)
        match self.fault.kind if strikes else "":
            case "kill_rank":
                os.kill(os.getpid(), signal.SIGKILL)
            case "kill_node":
                _kill_raylet()
            case "hang":
                while True:
                    time.sleep(60.0)
            case "slow":
                time.sleep(self.fault.seconds)
        result = self.work(worker, address, meta)
        gradient = result.whole.copy()
        if self.fault.kind == "non_finite":
            gradient[0] = np.nan
            return replace(result, gradient=gradient, checksums=checksums(gradient, len(result.checksums)))
        if self.fault.kind == "corrupt_reply":
            gradient.view(np.uint32)[-1] ^= 1
            return replace(result, gradient=gradient)
        return result

    def sent(self, result: TaskResult, address: TaskAddress, send: Send) -> TaskResult:
        if self.fault.kind == "kill_shard":
            cast(SendToShards, send).end_one()
        return self.work.sent(result, address, send)


def _kill_raylet() -> None:
    """End the Ray node that this worker belongs to, as a machine that loses power would."""
    raylet = psutil.Process(os.getppid())
    if raylet.name() != "raylet" or "--head" in raylet.cmdline():
        raise ConfigError(
            "faults: kill_node would end the head of the cluster, and this run with it. Use a cluster whose worker "
            "groups run on other nodes."
        )
    raylet.kill()
    time.sleep(60.0)  # the node's processes end with it


def _write_on_a_full_disk(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
