"""Evaluations, and their results side by side."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from metacl.cli.app import EXIT_CODES, DataOption, LabelColumn, TextColumn, app, out
from metacl.errors import ConfigError

if TYPE_CHECKING:
    from metacl.initialization import StoredInitialization


@app.command(epilog=EXIT_CODES)
def evaluate(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_OR_INIT…", help="Its folder; for a protocol over class splits one for each."),
    ],
    data: DataOption = None,
    protocol: Annotated[str | None, typer.Option(help="A named, mostly published protocol (metacl list).")] = None,
    class_split: Annotated[str | None, typer.Option(help="Which published class split of a bundled data set.")] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    ways: Annotated[int | None, typer.Option(min=2, help="N, classes an episode.")] = None,
    shots: Annotated[str | None, typer.Option(help="K, support examples a class; several: 1,5.")] = None,
    queries: Annotated[int | None, typer.Option(min=1, help="Query examples a class; default 5.")] = None,
    steps: Annotated[str, typer.Option(help="Inner steps after which the query is asked.")] = "0,1,3,5,10",
    episodes: Annotated[
        int | None, typer.Option(min=2, help="Episodes, the same for every method; default 300.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the episodes.")] = 1,
    groups: Annotated[int | None, typer.Option(min=0, help="Ray worker groups; 0: in this process.")] = None,
    methods: Annotated[
        str | None, typer.Option(help="What it is compared with: names (metacl list) with commas between, or all.")
    ] = None,
    method_option: Annotated[
        list[str] | None,
        typer.Option(help="METHOD.OPTION=VALUE, may be given several times: fine_tuning.steps=[10,100]"),
    ] = None,
    step_size_factors: Annotated[
        str | None, typer.Option(help="Also both starts with all inner step sizes times each: 0.1,0.3,1,3,10.")
    ] = None,
    new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Language model: also generate completions of at most so many tokens.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for the report (HTML), its figure, JSON and CSV.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results there.")] = None,
) -> None:
    """Measure an initialization against its baselines on the same few-shot episodes.

    Rows: frozen prototypes, the pretrained model after k inner steps, the initialization after k inner steps, or what
    --methods names; accuracy with 95 % intervals and paired differences. Without --data: the unseen classes of its own
    data. --protocol measures as it says; one over class splits takes a run for each split, or one run on --data that
    it was not trained on. Fine-tuning takes the learning rate that does best on episodes of the validation classes;
    full fine-tuning takes seconds an episode.
    A language model: perplexity on held-out domains or texts, from the pretrained and the meta-learned start, with
    --new-tokens BLEU, ROUGE and exact match of what it says, and the reward of a run that adapts by one; with
    --data of classes: accuracy, a class being as likely as its name is after the text (--methods zero_shot_prompt,
    in_context).
    """
    from metacl import api
    from metacl.cli import asked
    from metacl.config import config_from_dict, config_to_yaml
    from metacl.evaluation import named_protocol
    from metacl.initialization import read_initialization
    from metacl.reporting import RichProgress, check_report_folder, closing_table, write_evaluation

    if report is not None:
        check_report_folder(report)
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise ConfigError(f"--json {json_file}: the folder {json_file.parent} does not exist.")
    named = None if protocol is None else named_protocol(protocol)
    if len(sources) > 1 and (named is None or not named.class_splits):
        raise ConfigError(
            "several runs are for a protocol over class splits. Give --protocol intents, or evaluate one by one with "
            "--json and put them side by side: metacl report."
        )
    runs = [
        read_initialization(source / "init" if (source / "init" / "adaptation.json").exists() else source)
        for source in sources
    ]
    trees = [_to_evaluate(run.config.to_dict(), groups) for run in runs]
    shape, first = runs[0].config.episodes, runs[0].config
    shots_asked = _numbers("--shots", shots, 1) if shots else None
    tells_apart = first.data.classes and (ways or shape.ways) > 1
    if not first.learner.classifies and data is None and not tells_apart:
        given = {
            "--class-split": class_split,
            "--ways": ways,
            "--protocol": protocol,
            "--methods": methods,
            "--method-option": method_option,
            "--step-size-factors": step_size_factors,
            "--text-column": text_column,
            "--label-column": label_column,
        }
        unfit = [option for option, value in given.items() if value is not None]
        if unfit:
            raise ConfigError(
                f"{unfit[0]}: without --data a language model is measured by its perplexity on the held-out part of "
                f"its own data. Name data with classes, too, for its accuracy."
            )
        run = replace(runs[0], config=config_from_dict(trees[0], origin=str(sources[0])))
        evaluations = [
            {
                "shape": {**of_shot, "ways": 1},
                "episodes": number,
                "steps": _numbers("--steps", steps, 0),
                "seed": seed,
            }
            for of_shot, number in asked.settings(None, None, shots_asked, queries, episodes, shape)
        ]
        _write_results(json_file, _perplexities(run, evaluations, new_tokens, report))
        return
    if new_tokens is not None:
        raise ConfigError("--new-tokens: it is for the perplexity of a language model, and this measures accuracy.")
    if data is not None:
        for tree in trees:
            tree["data"] = _data_section(data, text_column, label_column)
    if (text_column or label_column) and (data is None or "path" not in trees[0]["data"]):
        raise ConfigError("--text-column and --label-column name the columns of a file; give one with --data.")
    if class_split is not None:
        if named is not None and named.class_splits:
            raise ConfigError(f"--class-split: protocol {named.name} has {', '.join(named.class_splits)}.")
        if trees[0]["data"].get("path") is not None:
            raise ConfigError("--class-split is of a bundled data set; all classes of a file are evaluated.")
        trees[0]["data"]["class_split"] = class_split
    if named is None and (ways or shape.ways) < 2:
        raise ConfigError("--ways: missing; this run's own episodes have one class. Give --ways 5, for example.")
    compared = None if methods is None else [name.strip() for name in methods.split(",")]
    if method_option and compared is None:
        raise ConfigError("--method-option: it is for the methods that --methods names. Give --methods, too.")
    options = asked.method_options(method_option or [])
    factors = [] if step_size_factors is None else asked.step_size_factors(step_size_factors)
    placed = list(zip(runs, trees, strict=True))
    if named is not None:
        placed = asked.placed(named, placed, data is not None)
    settings = asked.settings(named, ways, shots_asked, queries, episodes, shape)
    work = []
    for asked_shape, number in settings:
        parts = []
        for run, tree in placed:
            evaluation = {
                "shape": asked_shape,
                "episodes": number,
                "steps": _numbers("--steps", steps, 0),
                "seed": seed,
            }
            config = config_from_dict({**tree, "evaluation": evaluation}, origin=", ".join(map(str, sources)))
            api.check_data(config, training=False)
            if compared is not None:
                api.compared_methods(compared, config, lambda text: None, options)
            parts.append((run, config))
        work.append(parts)
    results = []
    for parts in work:
        with RichProgress(out) as progress:
            if len(parts) > 1:
                results.append(api.evaluate_on_splits(parts, progress, compared, options, report is not None, factors))
            else:
                results.append(api.evaluate(*parts[0], progress, compared, options, report is not None, factors))
        if named is not None:
            results[-1]["protocol"].update(named.stated())
        closing_table(results[-1], out)
        if report is not None:
            page = write_evaluation(report, results[-1], config_to_yaml(parts[0][1]))
            out.print(f"report          {page}", soft_wrap=True)
    _write_results(json_file, results)


def _perplexities(
    run: StoredInitialization, evaluations: list[dict[str, Any]], new_tokens: int | None, report: Path | None
) -> list[dict[str, Any]]:
    from metacl import api
    from metacl.config import Evaluation, config_to_yaml
    from metacl.learners.generation import Generation
    from metacl.reporting import perplexity_table, write_language_evaluation

    results = []
    for one in evaluations:
        generation = None if new_tokens is None else Generation(new_tokens=new_tokens)
        results.append(api.evaluate_perplexity(run, Evaluation.model_validate(one), generation=generation))
        perplexity_table(results[-1], out)
        if report is not None:
            page = write_language_evaluation(report, results[-1], config_to_yaml(run.config))
            out.print(f"report          {page}", soft_wrap=True)
    return results


def _write_results(path: Path | None, results: list[dict[str, Any]]) -> None:
    from metacl.coordination.run_folder import write_text

    if path is not None:
        write_text(path, json.dumps(results if len(results) > 1 else results[0], indent=2) + "\n")
        out.print(f"results written to {path}", soft_wrap=True)


def _data_section(data: str, text_column: str | None, label_column: str | None) -> dict[str, object]:
    from metacl.tasks.bundled import BUNDLED

    if data in BUNDLED:
        return {"name": "labelled_text", "dataset": data}
    return {
        "name": "labelled_text",
        "path": data,
        "text_column": text_column,
        "label_column": label_column,
        "fractions": (0.0, 0.0, 1.0),
    }


def _to_evaluate(tree: dict[str, Any], groups: int | None) -> dict[str, Any]:
    """A run's config without what is for training alone, on as many worker groups; 0: in this process."""
    tree["faults"], tree["outer"]["asynchronous"], tree["workers"]["gradient_shards"] = (), None, 1
    if groups is not None:
        tree["workers"].update(executor="ray" if groups else "local", groups=max(groups, 1), min_groups=None)
    if groups == 0:
        tree["workers"].update(ranks_per_group=1, gpus_per_group=0, zero_stage=0, offload="none", nvme_path=None)
    return tree


def _numbers(option: str, text: str, least: int) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < least:
        raise ConfigError(
            f"{option} {text!r}: expected whole numbers of at least {least} with commas between, for example 1,5."
        )
    return numbers


@app.command(epilog=EXIT_CODES)
def report(
    sources: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Folders of evaluated runs, or JSON files of evaluations.")
    ],
    latex: Annotated[bool, typer.Option("--latex", help="As a LaTeX table (booktabs) instead.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Instead: the fewest inner steps and shots to so many percent."),
    ] = None,
    cost: Annotated[bool, typer.Option("--cost", help="Instead: time, tokens and memory to adapt.")] = False,
) -> None:
    """Put the results of several runs side by side; differences are paired only within a run's own report.

    --cost: the milliseconds, tokens and megabytes that each method took to adapt to an episode.
    --threshold 90: how many of the measured inner steps, and where they are one run's with several shots how
    many examples a class, each method needs for that mean accuracy.
    """
    from metacl.reporting import as_latex, compare, costs, reaching, read_results

    if cost and threshold is not None:
        raise ConfigError("--cost and --threshold are tables of their own. Give one of them.")
    results = [one for source in sources for one in read_results(source)]
    if threshold is not None:
        found = reaching(results, threshold / 100)
    else:
        found = costs(results) if cost else compare(results)
    if latex:
        print(as_latex(found), end="")
        return
    table = Table(box=None)
    for header in found.headers:
        table.add_column(escape(header), overflow="fold")
    for line in found.lines:
        table.add_row(*(escape(cell) for cell in line))
    out.print(table)
    for note in found.notes:
        out.print(escape(note), soft_wrap=True, highlight=False)
    if not found.same:
        out.print("[yellow]![/] These are not the same episodes: compare columns with care.", soft_wrap=True)
