"""What there is: on this machine, and to choose from."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from metacl.cli.app import EXIT_CODES, app, out


@app.command(epilog=EXIT_CODES)
def doctor() -> None:
    """Check this machine: versions, devices, Ray, weights; what is missing and how to get it."""
    from metacl.doctor import check_up

    table = Table("", "what", "found", "remedy", box=None)
    findings = check_up()
    for finding in findings:
        mark = "[green]✓[/]" if not finding.remedy else "[red]✗[/]" if finding.needed else "[yellow]![/]"
        table.add_row(mark, finding.what, escape(finding.found), escape(finding.remedy))
    out.print(table)
    if any(finding.remedy and finding.needed for finding in findings):
        raise typer.Exit(3)


@app.command(name="list", epilog=EXIT_CODES)
def list_components() -> None:
    """List what a config can choose by name: presets, objectives, estimators, task sources, learners, strategies."""
    from metacl.adaptation import INNER_OPTIMIZERS, PRECONDITIONERS
    from metacl.aggregation import AGGREGATORS
    from metacl.continual.strategies import STRATEGIES
    from metacl.continual.streams import STREAMS
    from metacl.evaluation import METHODS, PROTOCOLS
    from metacl.learners import LEARNERS
    from metacl.metagradients import ESTIMATORS
    from metacl.objectives import OBJECTIVES, REWARDS
    from metacl.presets import preset_names, preset_summary
    from metacl.tasks import TASK_SOURCES

    presets = Table("name", "what it is", title="presets (preset)", title_justify="left", box=None)
    for name in preset_names():
        presets.add_row(name, escape(preset_summary(name)))
    out.print(presets, "")
    kinds = (
        *(OBJECTIVES, REWARDS, ESTIMATORS, INNER_OPTIMIZERS, PRECONDITIONERS, AGGREGATORS, TASK_SOURCES, LEARNERS),
        *(METHODS, STREAMS, STRATEGIES),
    )
    protocols = Table("name", "what it is", title="protocols (--protocol)", title_justify="left", box=None)
    for protocol in PROTOCOLS.values():
        protocols.add_row(protocol.name, escape(protocol.source))
    out.print(protocols, "")
    for registry in kinds:
        plural = f"{registry.kind}s".replace("ys", "ies")
        table = Table("name", "what it is", title=f"{plural} ({registry.key})", title_justify="left", box=None)
        for name in registry.names():
            table.add_row(name, escape(registry.summary(name)))
        out.print(table, "")
