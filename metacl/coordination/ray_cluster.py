"""Reaching a Ray cluster, or starting a small one in this process; every wait is bounded.

Nothing is started before it is certain that what the config asks for is there.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

import ray
import torch

from metacl.config import Workers
from metacl.coordination.executor import Notify
from metacl.errors import ConfigError, ResourceError

ANSWER_TIMEOUT_S = 20.0


def connect(workers: Workers, notify: Notify, packed: Sequence[str] = ()) -> bool:
    """Connect this process to Ray; whether the connection is ours to close (it may have been there before).

    `packed` are modules (files or folders) that a cluster which is joined gets, to import from.

    Raises `ResourceError` if nobody answers or the cluster is too small.
    """
    if ray.is_initialized():
        notify("using the Ray connection this process already has")
        _check_capacity(workers)
        return False
    address = cluster_address(workers)
    try:
        if address is None:
            _check_own_gpus(workers)
            notify(f"starting a Ray cluster in this process for {_asked(workers, workers.groups)}")
            ray.init(
                address="local",
                num_cpus=workers.groups * workers.ranks_per_group * workers.threads,
                num_gpus=workers.groups * workers.gpus_per_group,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        else:
            notify(f"connecting to the Ray cluster at {address}")
            _join(address, packed)
        _check_capacity(workers)
    except BaseException:
        ray.shutdown()
        raise
    return True


def cluster_address(workers: Workers) -> str | None:
    """The cluster a run would join: the configured address, else $RAY_ADDRESS; None to start one of its own."""
    return workers.address or os.environ.get("RAY_ADDRESS")


def cluster_resources(workers: Workers) -> dict[str, float]:
    """What the cluster at ``workers.address`` has in all. Connects, looks and leaves. Raises `ResourceError`."""
    already = ray.is_initialized()
    if not already:
        _join(str(cluster_address(workers)))
    try:
        return dict(ray.cluster_resources())
    finally:
        if not already:
            ray.shutdown()


def _join(address: str, packed: Sequence[str] = ()) -> None:
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:  # a job's own cluster is there
        _wait_for_answer(address)
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"py_modules": list(packed)} if packed else None,
        )
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        raise ResourceError(
            f"workers.address: no Ray cluster at {address!r} ({str(error).splitlines()[0]}). Start one "
            f"(ray start --head), or leave workers.address out to use a small cluster in this process."
        ) from None


def _check_own_gpus(workers: Workers) -> None:
    wanted, present = workers.groups * workers.gpus_per_group, torch.cuda.device_count()
    if wanted > present:
        raise ResourceError(
            f"workers.gpus_per_group: {workers.groups} groups x {workers.gpus_per_group} GPUs asked for, this machine "
            f"has {present}. Set workers.gpus_per_group=0, or workers.address to a cluster that has them."
        )


def _asked(workers: Workers, groups: int) -> str:
    gpus = f" and {workers.gpus_per_group} GPUs" if workers.gpus_per_group else ""
    return f"{groups} worker group(s) of {workers.ranks_per_group * workers.threads} CPU(s){gpus}"


def _wait_for_answer(address: str) -> None:
    """A quick look whether a Ray head answers: `ray.init` alone would wait for minutes."""
    if address == "auto":
        return
    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"workers.address: {address} is a dashboard; give the head's own host:port (6379 unless told otherwise), "
            f"or submit a job there: ray job submit --address {address} …"
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"workers.address: {address!r} is not host:port, ray://host:port or auto.")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise ResourceError(
            f"workers.address: nobody answers at {address} ({error}). Start a head there (ray start --head), "
            f"or leave workers.address out to use a small cluster in this process."
        ) from None
    if address.startswith("ray://"):
        return
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        healthy = subprocess.run(command, capture_output=True, timeout=ANSWER_TIMEOUT_S).returncode == 0
    except subprocess.TimeoutExpired:
        healthy = False
    if not healthy:
        raise ResourceError(
            f"workers.address: something listens at {address}, but it is not a healthy Ray head of version "
            f"{ray.__version__} (waited up to {ANSWER_TIMEOUT_S:.0f} s)."
        )


def _check_capacity(workers: Workers) -> None:
    total, groups = ray.cluster_resources(), workers.groups_to_start
    for kind, each in (("CPU", workers.ranks_per_group * workers.threads), ("GPU", workers.gpus_per_group)):
        wanted, present = groups * each, total.get(kind, 0)
        if wanted > present:
            raise ResourceError(
                f"workers: {_asked(workers, groups)} need {wanted} {kind}s, the cluster has {present:g}. "
                f"Lower workers.groups or add nodes."
            )


def shard_nodes() -> list[str]:
    """The nodes that processes are spread over which combine gradients or hold meta-parameters."""
    return sorted(n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU"))
