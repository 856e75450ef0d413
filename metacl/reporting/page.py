"""A page that needs no network and can be mailed: one HTML file, with the command and the versions that made it."""

from __future__ import annotations

import base64
import hashlib
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

LIBRARIES = ("torch", "transformers", "peft")


def render(template: str, made_by: str, **values: Any) -> str:
    """The HTML of a template in this folder that extends ``page.html.jinja``.

    Parameters
    ----------
    made_by : the version of metacl that measured
    values : what it names; ``run`` (title) and ``config`` (YAML) at least. Text is escaped, `Markup` is not.
    """
    pages = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_file),
    )
    script = _file("sort.js")
    return pages.get_template(template).render(
        script=Markup(script),
        script_sha=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        versions={"metacl": made_by, **{library: _version(library) for library in LIBRARIES}},
        command=shlex.join(sys.orig_argv),
        **values,
    )


def _file(name: str) -> str:
    return files("metacl.reporting").joinpath(name).read_text("utf-8")


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:  # a report is no place to fail after hours of training
        return "not installed"
