"""The folder an initialization is stored in: a plain PEFT adapter plus what is needed to adapt from it.

``adapter_model.safetensors`` + ``adapter_config.json`` load with `peft.PeftModel.from_pretrained` where metacl
is not installed. Where every parameter of the model adapts there is the model instead, ``model.safetensors`` (or, from
ranks that hold parts of it, several files and their index) with its config and tokenizer, as transformers stores it.
``adaptation.json`` says how to adapt: the run's config and the learned step sizes.
``head.safetensors`` is there if the objective learned a head, ``learned.safetensors`` if there is more: the weights of
a module of one's own, or what an objective learns beside the model. An `nn.Module` learner has no adapter at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import metacl
from metacl.config import RunConfig, config_from_dict
from metacl.errors import ConfigError, DataError, ResourceError, TrainingError
from metacl.learners.base import ADAPTER, HEAD, MODEL, STEP_SIZE, Learner, LearnerConfig, Params

FORMAT = 1

FILE_BYTES = 2**30
"""Of a file of a transformers model, unless a tensor is larger."""


@dataclass(frozen=True)
class StoredInitialization:
    """What the folder holds: the config it was trained with, and every meta-parameter."""

    config: RunConfig
    meta: Params
    trained_steps: int


def write_initialization(
    path: Path, config: RunConfig, learner: Learner, meta: Mapping[str, Tensor], trained_steps: int, card: str
) -> None:
    """Write the folder whole or not at all; an existing initialization there is replaced.

    Raises `TrainingError` if a tensor is empty or not finite, `ConfigError` if `path` holds something else.
    """
    for name, tensor in meta.items():
        if tensor.numel() == 0:
            raise TrainingError(
                f"{name} is empty (shape {tuple(tensor.shape)}); an initialization without it is useless."
            )
        if not bool(torch.isfinite(tensor).all()):
            raise TrainingError(f"{name} is not finite; refusing to export it.")
    with written_whole(path, "adaptation.json", "an initialization") as aside:
        save_params(meta, learner, aside)
        adaptation = {
            "format": FORMAT,
            "metacl": metacl.__version__,
            "trained_steps": trained_steps,
            "step_sizes": {n.removeprefix(STEP_SIZE): meta[n].tolist() for n in meta if n.startswith(STEP_SIZE)},
            "config": config.to_dict(),
        }
        (aside / "adaptation.json").write_text(json.dumps(adaptation, indent=2) + "\n")
        (aside / "README.md").write_text(card, encoding="utf-8")


def read_initialization(path: Path) -> StoredInitialization:
    """Read an initialization's folder. Raises `DataError` saying what is missing or damaged."""
    adaptation = read_about(
        path / "adaptation.json", "an initialization made by metacl", ("config", "step_sizes", "trained_steps")
    )
    config = config_from_dict(adaptation["config"], origin=str(path / "adaptation.json"))
    meta = load_params(path, config.learner)
    meta.update({STEP_SIZE + name: torch.tensor(value) for name, value in adaptation["step_sizes"].items()})
    return StoredInitialization(config, {name: meta[name] for name in sorted(meta)}, int(adaptation["trained_steps"]))


def save_params(params: Mapping[str, Tensor], learner: Learner, folder: Path) -> None:
    """The adapter as PEFT stores it, or the model as transformers does; the head; and all the rest but step sizes."""
    save_family(params, ADAPTER, folder / "adapter_model.safetensors")
    save_family(params, HEAD, folder / "head.safetensors")
    known = (ADAPTER, MODEL, HEAD, STEP_SIZE)
    rest = {name: params[name] for name in params if not name.startswith(known)}
    save_family(rest, "", folder / "learned.safetensors")
    save_model(params, folder)
    if any(name.startswith(ADAPTER) for name in params):
        (folder / "adapter_config.json").write_text(json.dumps(learner.peft_config(), indent=2, sort_keys=True) + "\n")
    if any(name.startswith(MODEL) for name in params):
        learner.save_architecture(folder)


def load_params(folder: Path, learner: LearnerConfig) -> Params:
    """What `save_params` wrote for such a learner, full names. Raises `DataError`."""
    params: Params = {}
    if learner.adapts_whole_model:
        for file in model_files(folder):
            params.update(load_family(MODEL, folder / file))
    elif learner.takes == "text":
        params = load_family(ADAPTER, folder / "adapter_model.safetensors")
    for family, file in ((HEAD, "head.safetensors"), ("", "learned.safetensors")):
        if (folder / file).exists():
            params.update(load_family(family, folder / file))
    return params


def model_files(folder: Path) -> list[str]:
    """The files that hold a transformers model. Raises `DataError` if their index is damaged."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return ["model.safetensors"]
    return sorted(set(read_json(index, "an index of a model's files").get("weight_map", {}).values()))


def save_model(params: Mapping[str, Tensor], folder: Path) -> None:
    """The tensors of a transformers model, in files of at most `FILE_BYTES` or one tensor; no more is in memory."""
    files: list[list[str]] = []
    held: dict[str, Tensor] = {}
    size = 0

    def write() -> None:
        save_file(held, folder / f"{len(files)}.part", metadata={"format": "pt"})
        files.append(list(held))
        held.clear()

    for name in params:
        if name.startswith(MODEL):
            tensor = params[name].detach().to("cpu").contiguous()
            if held and size + tensor.nbytes > FILE_BYTES:
                write()
                size = 0
            held[name.removeprefix(MODEL)] = tensor
            size += tensor.nbytes
    if held:
        write()
    if len(files) == 1:
        (folder / "0.part").rename(folder / "model.safetensors")
    elif files:
        names = [f"model-{place + 1:05}-of-{len(files):05}.safetensors" for place in range(len(files))]
        for place, file in enumerate(names):
            (folder / f"{place}.part").rename(folder / file)
        where = {name: file for file, inside in zip(names, files, strict=True) for name in inside}
        index = {"metadata": {"format": "pt"}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def save_family(params: Mapping[str, Tensor], family: str, path: Path) -> None:
    """Store the tensors of one family under their names without the family; no file if there are none."""
    tensors: dict[str, Tensor] = {
        name.removeprefix(family): params[name].detach().to("cpu").contiguous()
        for name in params
        if name.startswith(family)
    }
    if tensors:
        save_file(tensors, path, metadata={"format": "pt"})


def load_family(family: str, path: Path) -> Params:
    """The tensors of a file under their full names. Raises `DataError`."""
    try:
        return {family + name: tensor for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: missing or damaged ({error}).") from None


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object. Raises `DataError` if the file is not there or not `what`."""
    if not path.exists():
        raise DataError(f"{path.parent}: not {what} ({path.name} is not there).")
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}).") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: damaged (expected a JSON object).")
    return value


def read_about(path: Path, what: str, keys: Iterable[str]) -> dict[str, Any]:
    """A JSON object of the format that this metacl writes, with all `keys`. Raises `DataError`."""
    about = read_json(path, what)
    if about.get("format") != FORMAT:
        raise DataError(f"{path}: written in format {about.get('format')}, this metacl reads {FORMAT}.")
    missing = [key for key in keys if key not in about]
    if missing:
        raise DataError(f"{path}: damaged ({', '.join(missing)} missing).")
    return about


@contextmanager
def written_whole(path: Path, mark: str, what: str) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` when the block ends well, and is gone when it does not.

    Parameters
    ----------
    mark, what : str
        The file by which an older folder of the same kind is known and may be replaced, and what that kind is called.

    Raises
    ------
    ConfigError
        `path` holds something else.
    ResourceError
        It cannot be written.
    """
    check_free(path, mark, what)
    path = path.resolve()
    aside, old = (path.with_name(f".{path.name}.{part}-{os.getpid()}") for part in ("tmp", "old"))
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        if path.exists():
            path.rename(old)
        try:
            aside.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:  # safetensors writes in Rust and wraps the system's error
        raise ResourceError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error}).") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_free(path: Path, mark: str, what: str) -> None:
    """May a folder be written to `path`? Changes nothing. Raises `ConfigError` if it holds something else."""
    if path.exists() and not (path / mark).exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path.resolve()}: exists and is not {what}. Give another folder.")
