"""The application that verbs are registered with, where it prints, and the options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

EXIT_CODES = "Exit codes: 0 fine, 2 configuration or data, 3 resources, 4 training failed, 75 stopped but resumable."

app = typer.Typer(
    name="metacl",
    help="Meta-learn an initialization that adapts a pretrained language model to new classes in a few steps.",
    epilog=f"{EXIT_CODES}  A first run: metacl train configs/demo.yaml",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()
err = Console(stderr=True)

ConfigPath = Annotated[Path, typer.Argument(help="YAML config, for example configs/demo.yaml.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="key=value, dotted, values as YAML: outer.steps=20 objective=anil", show_default=False),
]
DataOption = Annotated[
    str | None, typer.Option("--data", help="A bundled data set, or a file or folder of labelled texts.")
]
TextColumn = Annotated[str | None, typer.Option(help="Field that holds the text; default: the obvious one.")]
LabelColumn = Annotated[str | None, typer.Option(help="Field that holds the label; default: the obvious one.")]
