"""A verb of metacl as a Ray job; the scripts beside this file are what is submitted."""

from __future__ import annotations

import sys
from pathlib import Path

from metacl.cli import main


def run(verb: str) -> None:
    """``metacl VERB`` with the job's arguments; says so first where Ray would remove what it writes."""
    if not any(argument.startswith("output=") for argument in sys.argv[1:]):
        print(f"note: no output=… given; files go below {Path.cwd()}, which Ray removes with the session.", flush=True)
    main([verb, *sys.argv[1:]])
