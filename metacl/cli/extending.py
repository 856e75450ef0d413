"""Starting files for extensions of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metacl.cli.app import EXIT_CODES, app, out

new = typer.Typer(name="new", help="Write a starting file for an extension of your own.", no_args_is_help=True)
app.add_typer(new)


@new.command(name="objective", epilog=EXIT_CODES)
def new_objective(
    name: Annotated[str, typer.Argument(help="As a config will choose it, for example my_objective.")],
) -> None:
    """Write NAME.py, a meta-objective to start from, and test_NAME.py into the current folder; both work as written."""
    from metacl.scaffold import new_objective as write

    for path in write(name, Path()):
        out.print(f"wrote {path}", soft_wrap=True)
    out.print(f"in a config: plugins: [{name}] and objective: {name}", soft_wrap=True, highlight=False, markup=False)
    out.print(f"check it: python -m pytest test_{name}.py", soft_wrap=True, highlight=False)
