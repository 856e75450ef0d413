"""One method on one case in this process: warm-up, timed meta-steps, and the peak of the memory they take."""

from __future__ import annotations

import ctypes
import gc
import resource
import time
from pathlib import Path

import torch
from methods import METHODS
from models import Setting, build
from torch import Tensor

from metacl.learners import Params

ENOUGH_S = 6.0
FEWEST, MOST = 2, 5
"""Repeats: until this much time has been measured, at least and at most so many."""


class Bench:
    """A case and a method, warmed up.

    Attributes
    ----------
    warm_up_s : float
        The first meta-step, with whatever it compiles.
    kept_mb : float
        What the warm-up leaves behind for good: compiled code, caches. It does not grow with the inner steps.
    gradient : Params
        The meta-gradient of the warm-up.
    """

    def __init__(self, method: str, case: str, setting: Setting) -> None:
        torch.set_num_threads(1)
        self._step = METHODS[method].step
        self._case = build(case, setting)
        self._device = torch.device(setting.device)
        before = self._held_mb()
        started = self._clock()
        self.gradient: Params = self._step(self._case)
        self._wait()
        self.warm_up_s = self._clock() - started
        self._base_mb = self._held_mb()
        self.kept_mb = self._base_mb - before

    def timed_step(self) -> float:
        """Seconds of one meta-step."""
        started = self._clock()
        self._step(self._case)
        self._wait()
        return self._clock() - started

    def timed_steps(self) -> tuple[list[float], float]:
        """Seconds of several meta-steps, and the MB their peak lies above what is held between them."""
        self._base_mb = self._held_mb()
        self._reset_peak()
        seconds = [self.timed_step() for _ in range(FEWEST)]
        while sum(seconds) < ENOUGH_S and len(seconds) < MOST:
            seconds.append(self.timed_step())
        return seconds, self._peak_mb() - self._base_mb

    def _clock(self) -> float:
        """By the clock on a GPU; else the processor's time for this process and the compilers it started.

        Everything runs on one thread, so that is what the clock would say on a machine with nothing else to do.
        """
        if self._device.type == "cuda":
            return time.perf_counter()
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + ended.ru_utime + ended.ru_stime

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _held_mb(self) -> float:
        """Memory in use now; what the allocator holds without need is handed back first."""
        gc.collect()
        if self._device.type == "cuda":
            return torch.cuda.memory_allocated() / 1e6
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        return _status_mb("VmRSS")

    def _reset_peak(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def _peak_mb(self) -> float:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 1e6
        return _status_mb("VmHWM")


def _status_mb(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise KeyError(key)


def flat(gradient: Params) -> Tensor:
    """All of a gradient as one float64 vector (P,), on the CPU."""
    return torch.cat([tensor.detach().double().cpu().flatten() for tensor in gradient.values()])
