"""The command line: one function per verb, exit codes that say whose turn it is.

0 fine; 2 configuration or data; 3 resources (Ray, GPU, memory, disk); 4 training failed; 75 stopped, resumable.
"""

from __future__ import annotations

import atexit
import gc
import sys

from rich.markup import escape

from metacl.cli.app import app, err
from metacl.errors import MetaclError

# isort: off
# Verbs stand in --help in the order in which they are registered.
from metacl.cli import training, evaluating, continual, adapting, about, data, extending  # noqa: F401


def main(arguments: list[str] | None = None) -> None:
    """Entry point: run a verb and turn expected failures into one message and an exit code."""
    atexit.register(gc.freeze)  # the process ends: looking for garbage would take it another second
    try:
        app(arguments)
    except MetaclError as error:
        title = "stopped" if error.exit_code == 75 else "error"
        err.print(f"[bold red]{title}:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err.print("interrupted", soft_wrap=True)
        sys.exit(130)
