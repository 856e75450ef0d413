"""A run's data, before it costs anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from metacl.cli.app import EXIT_CODES, ConfigPath, Overrides, app, err, out
from metacl.errors import ConfigError, DataError

data_app = typer.Typer(name="data", help="Look at a run's data before it costs anything.", no_args_is_help=True)
app.add_typer(data_app)


@data_app.command(name="check", epilog=EXIT_CODES)
def data_check(config: ConfigPath, overrides: Overrides = None) -> None:
    """Read a config's data and say what is in it: counts, lengths, duplicates, leakage, conflicts, example episodes.

    Exit code 2 with file and line on what cannot work; what a person should look at is marked with !.
    """
    from metacl.config import load_config
    from metacl.data_check import check_config_data

    resolved = load_config(config, overrides or [])
    with err.status("reading the data"):
        report = check_config_data(resolved)
    marks = {"fine": "[green]✓[/]", "look": "[yellow]![/]", "wrong": "[red]✗[/]"}
    for finding in report.findings:
        out.print(f"{marks[finding.level]} [bold]{finding.what}[/]: {escape(finding.found)}", soft_wrap=True)
        for line in finding.details:
            out.print(f"    {escape(line)}", soft_wrap=True, highlight=False)
    for lines in report.episodes:
        out.print(f"\n[bold]{escape(lines[0])}[/]", soft_wrap=True, highlight=False)
        for line in lines[1:]:
            out.print(escape(line), soft_wrap=True, highlight=False)
    if report.obstacle is not None:
        raise DataError(report.obstacle)


@data_app.command(name="split", epilog=EXIT_CODES)
def data_split(
    config: ConfigPath,
    overrides: Overrides = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file to write; data.splits takes it.")],
    by: Annotated[str, typer.Option(help="What the splits keep apart: class or domain.")] = "class",
    fractions: Annotated[str, typer.Option(help="Shares of train, valid and test.")] = "0.6,0.2,0.2",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the shuffle.")] = 0,
) -> None:
    """Split the classes or domains of a config's data at random, so that no two splits share one."""
    from metacl.config import load_config
    from metacl.coordination.run_folder import write_text
    from metacl.data_check import propose_splits
    from metacl.tasks.splits import as_by, as_fractions, write_splits

    unit, shares = as_by(by), as_fractions(fractions)
    if output.exists():
        raise ConfigError(f"--output {output}: exists already; a run may depend on it. Name another file.")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"--output {output}: the folder {output.parent} does not exist.")
    names = propose_splits(load_config(config, overrides or []), unit, shares, seed)
    write_text(output, write_splits(unit, seed, shares, names))
    counts = ", ".join(f"{len(part)} {split}" for split, part in names.items())
    out.print(f"{counts} written to {output}", soft_wrap=True)
    out.print(f"in the config: data.splits={output}, data.split_by={unit}", soft_wrap=True, highlight=False)
