"""Modules of one's own, imported so that what they register can be chosen by a config."""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from metacl.errors import ConfigError, MetaclError
from metacl.registry import nearest


def import_plugins(names: Any) -> Any:
    """Import each named module, from the current folder too; returns `names`, whatever they are.

    Raises `ConfigError`: no such module (with the nearest file here), or an error in it (with its file and line).
    """
    for name in names if isinstance(names, (list, tuple)) else ():
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        importlib.invalidate_caches()  # the file may be younger than the last look into its folder
        try:
            importlib.import_module(str(name))
        except MetaclError as error:
            raise type(error)(f"plugins: {name}: {error}") from None
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name == str(name).split(".")[0]:
                here = [path.stem for path in Path().glob("*.py")]
                hint = f" {nearest(str(name), here)}" if here else ""
                raise ConfigError(
                    f"plugins: {name!r} cannot be imported: there is no such module in sys.path or {os.getcwd()}.{hint}"
                ) from None
            raise ConfigError(f"plugins: {name!r} cannot be imported: {_place(error)}") from error
    return names


def packable(names: Iterable[str]) -> list[str]:
    """The files (folders, of packages) of imported plugins that are not installed: what a remote machine lacks."""
    installed = [Path(sysconfig.get_paths()[kind]) for kind in ("purelib", "platlib")]
    tops = [sys.modules[top] for top in dict.fromkeys(name.split(".")[0] for name in names)]
    places = [Path(top.__path__[0] if hasattr(top, "__path__") else str(top.__file__)) for top in tops]
    return [str(place) for place in places if not any(place.is_relative_to(folder) for folder in installed)]


def _place(error: Exception) -> str:
    """What went wrong in a module, and the file and line of it."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}."
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}, line {last.lineno}: {type(error).__name__}: {error}."
