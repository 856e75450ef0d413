"""Continual learning."""

from __future__ import annotations

from metacl.cli.app import EXIT_CODES, ConfigPath, Overrides, app, out


@app.command(epilog=EXIT_CODES)
def continual(config: ConfigPath, overrides: Overrides = None) -> None:
    """Learn a stream of experiences one after another, with strategies against forgetting; measure all after each.

    Leaves runs/NAME/: config.yaml, results.json (the R matrix of every seed), r_matrix.svg, mean.svg, and for each seed
    checkpoints and the model. Ctrl-C stops; the same command continues, bit for bit; a longer stream is learned on.
    """
    from metacl import api
    from metacl.continual.config import load_continual_config
    from metacl.reporting import RichProgress
    from metacl.reporting.continual import continual_table

    resolved = load_continual_config(config, overrides or [])
    with RichProgress(out) as progress:
        results = api.continual(resolved, progress.note)
    continual_table(results, out)
    out.print(f"\nrun folder  {resolved.folder}", soft_wrap=True)
