"""Prints the bytes that a task takes at its peak above what the process holds between tasks. Run by test_plan."""

import ctypes
import gc
import json
import sys
from pathlib import Path

from metacl.config import config_from_dict
from metacl.coordination.worker import MetaGradientWork, Worker
from metacl.tasks import TaskAddress


def status_bytes(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024


def main():
    worker = Worker(config_from_dict(json.loads(sys.argv[1])))
    meta = worker.layout.flatten(worker.initial)
    address = TaskAddress("train", worker.config.seed, 0, 0)
    MetaGradientWork()(worker, address, meta)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    held = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    MetaGradientWork()(worker, address, meta)
    print(status_bytes("VmHWM") - held)


if __name__ == "__main__":
    main()
