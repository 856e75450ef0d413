"""Training, and one task of a training again."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from metacl.cli.app import EXIT_CODES, ConfigPath, Overrides, app, err, out
from metacl.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from metacl.coordination.coordinator import Resume


@app.command(epilog=EXIT_CODES)
def train(
    config: ConfigPath,
    overrides: Overrides = None,
    resume: Annotated[
        str,
        typer.Option(help="auto: continue what lies in the output folder; never: refuse to; or a checkpoint's path."),
    ] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; start nothing.")] = False,
) -> None:
    """Meta-train an initialization, evaluate it on unseen classes, write the report.

    Leaves runs/NAME/: config.yaml, metrics.jsonl, checkpoints/, init/ (a plain PEFT adapter with adaptation.json),
    results.json, report.html. Ctrl-C saves and stops; the same command continues, bit for bit.
    """
    from metacl import api
    from metacl.config import config_to_yaml, load_config
    from metacl.plan import make_plan
    from metacl.reporting import RichProgress, closing_table, cost

    resolved = load_config(config, overrides or [])
    choice = _resume_choice(resume)
    if dry_run:
        plan = make_plan(resolved, choice)
        out.print(escape(config_to_yaml(resolved)))
        for what, value in plan.lines:
            out.print(f"[bold]{what}[/]: {escape(value)}", soft_wrap=True)
        if plan.obstacles:
            raise ResourceError("this run cannot start here: " + "; ".join(plan.obstacles))
        out.print("It can start.")
        return
    with RichProgress(out) as progress:
        run = api.train(resolved, progress, choice)
    if run.results is not None:
        closing_table(run.results, out)
        out.print(f"\nIt cost {cost(run.results)}.", soft_wrap=True)
    out.print(f"\ninitialization  {run.initialization}\nrun folder      {run.folder}", soft_wrap=True)
    if run.results is not None:
        out.print(f"report          {run.folder / 'report.html'}", soft_wrap=True)
    if resolved.learner.takes != "text":
        return
    out.print("\n[bold]Try next[/]", soft_wrap=True)
    commands = _next_commands(run.folder) if resolved.learner.classifies else [_next_for_language(run.folder)]
    for command in commands:
        out.print(f"  {command}", soft_wrap=True, highlight=False)


def _resume_choice(resume: str) -> Resume:
    if resume == "auto":
        return "auto"
    if resume == "never":
        return "never"
    if not Path(resume).is_dir():
        raise ConfigError(f"--resume {resume}: expected auto, never, or the folder of a checkpoint (…/step-N).")
    return Path(resume)


def _next_commands(folder: Path) -> list[str]:
    """Lines to paste into the shell that this was started from."""
    tool, run = _tool(), shlex.quote(str(folder))
    example = Path("configs/example_tickets.csv")
    data = str(example) if example.exists() else "YOUR_TEXTS.csv"
    return [
        f"{tool} evaluate {run} --data hwu64 --ways 5 --shots 1,5 --episodes 50",
        f"{tool} adapt {run} --data {data} --steps 5 --output my_model",
        f"{tool} predict my_model --text 'I was charged twice for the same thing'",
    ]


def _next_for_language(folder: Path) -> str:
    return f"{_tool()} evaluate {shlex.quote(str(folder))} --steps 0,1,3 --episodes 20"


def _tool() -> str:
    """How this installation's command line is called from the current folder."""
    script = Path(sys.executable).with_name("metacl")
    if not script.exists():
        return f"{shlex.quote(_from_here(Path(sys.executable)))} -m metacl.cli"
    found = shutil.which("metacl")
    if found is not None and Path(found).absolute() == script.absolute():
        return "metacl"
    return shlex.quote(_from_here(script))


def _from_here(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@app.command(epilog=EXIT_CODES)
def replay(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    step: Annotated[int, typer.Argument(min=0, help="The outer step, from 0, as in the task's address.")],
    index: Annotated[int, typer.Argument(min=0, help="The task's index in its step.")],
) -> None:
    """Compute one task of a run again, alone, and say what happened in it.

    The parameters of a step are kept for tasks that were left out, and in checkpoints.
    """
    from metacl.coordination.replay import replay as compute_again
    from metacl.coordination.run_folder import RunFolder

    config = RunFolder(run).stored_config()
    with err.status(f"computing task {index} of step {step}"):
        found = compute_again(config, step, index)
    lines = {
        "task": str(found.address),
        "in the run": f"left out: {found.recorded}" if found.recorded else "no failure on record",
        "now": f"no usable result: {found.failure}" if found.failure else "a usable result",
        "support losses": " ".join(f"{loss:.6g}" for loss in found.support_losses),
        "query loss": "" if found.query_loss is None else f"{found.query_loss:.6g}",
        "gradient norm": "" if found.gradient_norm is None else f"{found.gradient_norm:.6g}",
        "not finite": ", ".join(f"{name}: {count}" for name, count in (found.not_finite or {}).items()),
        "sha256": found.checksum or "",
    }
    for what, value in lines.items():
        if value:
            out.print(f"{what:<15} {escape(value)}", soft_wrap=True, highlight=False)
