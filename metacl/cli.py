"""The command line: one function per verb, exit codes that say whose turn it is.

0 fine; 2 configuration or data; 3 resources (Ray, GPU, memory, disk); 4 training failed; 75 stopped, resumable.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metacl.errors import ConfigError, DataError, MetaclError, ResourceError

if TYPE_CHECKING:
    from metacl.coordination.coordinator import Resume
    from metacl.initialization import AdaptedClassifier, AdaptedLanguageModel
    from metacl.learners.generation import Generation

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
def evaluate(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_INIT", help="A run's folder or an initialization's.")],
    data: DataOption = None,
    class_split: Annotated[str | None, typer.Option(help="Which published class split of a bundled data set.")] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    ways: Annotated[int | None, typer.Option(min=2, help="N, classes an episode.")] = None,
    shots: Annotated[str | None, typer.Option(help="K, support examples a class; several: 1,5.")] = None,
    queries: Annotated[int, typer.Option(min=1, help="Query examples a class.")] = 5,
    steps: Annotated[str, typer.Option(help="Inner steps after which the query is asked.")] = "0,1,3,5,10",
    episodes: Annotated[int, typer.Option(min=2, help="Episodes, the same for every method.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the episodes.")] = 1,
    groups: Annotated[int | None, typer.Option(min=0, help="Ray worker groups; 0: in this process.")] = None,
    methods: Annotated[
        str | None, typer.Option(help="What it is compared with: names (metacl list) with commas between, or all.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for the report (HTML), its figure, JSON and CSV.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results there.")] = None,
) -> None:
    """Measure an initialization against its baselines on the same few-shot episodes.

    Rows: frozen prototypes, the pretrained model after k inner steps, the initialization after k inner steps, or what
    --methods names; accuracy with 95 % intervals and paired differences. Without --data: the unseen classes of its own
    data. Fine-tuning takes the learning rate that does best on episodes of the validation classes; full fine-tuning
    takes seconds an episode.
    A language model: perplexity on held-out domains or texts, from the pretrained and the meta-learned start.
    """
    from metacl import api
    from metacl.config import Evaluation, config_from_dict, config_to_yaml
    from metacl.initialization import read_initialization
    from metacl.reporting import RichProgress, check_report_folder, closing_table, perplexity_table, write_evaluation
    from metacl.tasks import EpisodeShape

    if report is not None:
        check_report_folder(report)
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise ConfigError(f"--json {json_file}: the folder {json_file.parent} does not exist.")
    stored = read_initialization(source / "init" if (source / "init" / "adaptation.json").exists() else source)
    tree = _to_evaluate(stored.config.to_dict(), groups)
    if not stored.config.learner.classifies:
        given = {
            "--data": data,
            "--class-split": class_split,
            "--ways": ways,
            "--methods": methods,
            "--report": report,
            "--text-column": text_column,
            "--label-column": label_column,
        }
        named = [option for option, value in given.items() if value is not None]
        if named:
            raise ConfigError(
                f"{named[0]}: a language model is measured by its perplexity on the held-out part of its own data."
            )
        stored = replace(stored, config=config_from_dict(tree, origin=str(source)))
        results = []
        for shot in _numbers("--shots", shots, 1) if shots else [stored.config.episodes.shots]:
            shape = EpisodeShape(ways=1, shots=shot, queries=queries)
            asked = Evaluation(shape=shape, episodes=episodes, steps=tuple(_numbers("--steps", steps, 0)), seed=seed)
            results.append(api.evaluate_perplexity(stored, asked))
            perplexity_table(results[-1], out)
        _write_results(json_file, results)
        return
    if data is not None:
        tree["data"] = _data_section(data, text_column, label_column)
    if (text_column or label_column) and (data is None or "path" not in tree["data"]):
        raise ConfigError("--text-column and --label-column name the columns of a file; give one with --data.")
    if class_split is not None:
        if tree["data"].get("path") is not None:
            raise ConfigError("--class-split is of a bundled data set; all classes of a file are evaluated.")
        tree["data"]["class_split"] = class_split
    shape = stored.config.episodes
    compared = None if methods is None else [name.strip() for name in methods.split(",")]
    configs = []
    for shot in _numbers("--shots", shots, 1) if shots else [shape.shots]:
        tree["evaluation"] = {
            "shape": {"ways": ways or shape.ways, "shots": shot, "queries": queries},
            "episodes": episodes,
            "steps": _numbers("--steps", steps, 0),
            "seed": seed,
        }
        configs.append(config_from_dict(tree, origin=str(source)))
        api.check_data(configs[-1], training=False)
        if compared is not None:
            api.compared_methods(compared, configs[-1], lambda text: None)
    results = []
    for config in configs:
        with RichProgress(out) as progress:
            results.append(api.evaluate(stored, config, progress, compared))
        closing_table(results[-1], out)
        if report is not None:
            page = write_evaluation(report, results[-1], config_to_yaml(config))
            out.print(f"report          {page}", soft_wrap=True)
    _write_results(json_file, results)


def _write_results(path: Path | None, results: list[dict[str, Any]]) -> None:
    from metacl.coordination.run_folder import write_text

    if path is not None:
        write_text(path, json.dumps(results if len(results) > 1 else results[0], indent=2) + "\n")
        out.print(f"results written to {path}", soft_wrap=True)


@app.command(epilog=EXIT_CODES)
def report(
    sources: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Folders of evaluated runs, or JSON files of evaluations.")
    ],
    latex: Annotated[bool, typer.Option("--latex", help="As a LaTeX table (booktabs) instead.")] = False,
) -> None:
    """Put the results of several runs side by side; differences are paired only within a run's own report."""
    from metacl.reporting import as_latex, compare, read_results

    found = compare([results for source in sources for results in read_results(source)])
    if latex:
        print(as_latex(found), end="")
        return
    table = Table(*(escape(header) for header in found.headers), box=None)
    for line in found.lines:
        table.add_row(*(escape(cell) for cell in line))
    out.print(table)
    for note in found.notes:
        out.print(escape(note), soft_wrap=True, highlight=False)
    if not found.same:
        out.print("[yellow]![/] These are not the same episodes: compare columns with care.", soft_wrap=True)


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


@app.command(epilog=EXIT_CODES)
def adapt(
    init: Annotated[Path, typer.Argument(metavar="INIT", help="An initialization's folder or its run's.")],
    data: Annotated[Path, typer.Option("--data", help="File or folder of texts: JSONL, CSV, Parquet, …")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the adapted model.")],
    steps: Annotated[int | None, typer.Option(min=0, help="Inner steps; default as trained.")] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
) -> None:
    """Adapt an initialization to your own texts (labelled, for a classifier) and save the adapted model."""
    from metacl.initialization import check_adapted_output, load_initialization
    from metacl.tasks.domain_source import DomainSource
    from metacl.tasks.readers import open_table

    check_adapted_output(output)
    with err.status(f"loading {init}"):
        initialization = load_initialization(init)
    model: AdaptedClassifier | AdaptedLanguageModel
    if not initialization.config.learner.classifies:
        if text_column or label_column:
            raise ConfigError("--text-column, --label-column: a language model's data are read as in its training.")
        source = initialization.config.data
        if not isinstance(source, DomainSource):
            raise ConfigError(
                f"{init}: it was trained on data {source.registered_name!r}; only of domain_text and prompt_completion "
                f"is known how {data} is to be read. In Python: load_initialization(…).adapt_to_texts(texts)."
            )
        texts = source.model_copy(update={"path": data}).texts()
        with err.status(f"adapting to {len(texts)} texts"):
            model = initialization.adapt_to_texts(texts, steps)
            model.save(output)
        out.print(f"adapted to {len(texts)} texts", soft_wrap=True)
        _said_of_adapting(model.support_losses, output)
        return
    table = open_table(data, text_column, label_column)
    if table.columns.guessed:
        err.print(f"{data}: columns {table.columns.guessed}", soft_wrap=True, highlight=False, markup=False)
    examples = list(table.examples())
    with err.status(f"adapting to {len(examples)} texts"):
        model = initialization.adapt([e.text for e in examples], [e.label for e in examples], steps)
        model.save(output)
    out.print(
        f"adapted to {len(examples)} texts of {len(model.labels)} labels: {', '.join(model.labels)}", soft_wrap=True
    )
    _said_of_adapting(model.support_losses, output)
    out.print("the texts are stored with it, for --explain", soft_wrap=True)


def _said_of_adapting(losses: list[float], output: Path) -> None:
    if losses:
        said = " ".join(f"{loss:.3f}" for loss in losses)
        out.print(f"loss on them before each step: {said}", soft_wrap=True)
    out.print(f"saved in {output}\ntry: metacl predict {output} --text '…'", soft_wrap=True)


@app.command(epilog=EXIT_CODES)
def predict(
    model: Annotated[Path, typer.Argument(metavar="DIR", help="What `metacl adapt` wrote.")],
    text: Annotated[list[str] | None, typer.Option("--text", help="A text; may be given several times.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="A UTF-8 file with one text a line.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with every probability.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Also say why: by tokens and by examples.")] = False,
    new_tokens: Annotated[int | None, typer.Option(help="Language model: at most so many tokens; default 64.")] = None,
    beams: Annotated[int | None, typer.Option(help="Language model: beam search; default 1, greedy.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Language model: sample, at this temperature.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Language model: sample from the likeliest tokens only.")] = None,
    seed: Annotated[int | None, typer.Option(help="Language model: of sampling; default 0.")] = None,
) -> None:
    """Label texts with an adapted classifier: the likeliest label with its probability, one line a text.

    --explain: what each token adds to the label's score (integrated gradients), and the nearest of the texts that the
    model was adapted to. An adapted language model goes on after each text instead.
    """
    from metacl.initialization import AdaptedLanguageModel, load_adapted
    from metacl.tasks.readers import read_lines

    texts = list(text or []) + (read_lines(file) if file is not None else [])
    if not texts:
        raise DataError("nothing to predict; give --text or --file.")
    adapted = load_adapted(model)
    chosen = dict(new_tokens=new_tokens, beams=beams, temperature=temperature, top_p=top_p, seed=seed)
    given = {name: value for name, value in chosen.items() if value is not None}
    if isinstance(adapted, AdaptedLanguageModel):
        if explain:
            raise ConfigError(f"--explain: {model} is a language model; this is for classifiers.")
        for line, said in zip(texts, adapted.generate(texts, _generation(given)), strict=True):
            print(json.dumps({"text": line, "said": said}, ensure_ascii=False) if as_json else " ".join(said.split()))
        return
    if given:
        raise ConfigError(f"--{min(given).replace('_', '-')}: {model} is a classifier; this is for language models.")
    for line, prediction in zip(texts, adapted.predict(texts), strict=True):
        reasons = adapted.explain(line) if explain else None
        if as_json:
            record: dict[str, Any] = {"text": line, "label": prediction.label}
            record["probabilities"] = prediction.probabilities
            if reasons is not None:
                record |= {"tokens": reasons.tokens, "examples": [asdict(one) for one in reasons.examples]}
            print(json.dumps(record, ensure_ascii=False))
            continue
        print(f"{prediction.label}\t{prediction.probabilities[prediction.label]:.3f}\t{line}")
        if reasons is not None:
            print("    tokens:   " + "  ".join(f"{token} {share:+.2f}" for token, share in reasons.tokens))
            for one in reasons.examples:
                print(f"    like:     {one.similarity:.2f}  {one.label}: {one.text}")


def _generation(given: dict[str, Any]) -> Generation:
    from pydantic import ValidationError

    from metacl.learners.generation import Generation
    from metacl.registry import explain

    if "temperature" not in given and (alone := {"seed", "top_p"} & set(given)):
        raise ConfigError(f"--{min(alone).replace('_', '-')}: it is for sampling. Give --temperature, too.")
    try:
        return Generation(**given)
    except ValidationError as error:
        raise ConfigError(explain(error, Generation, "--")) from None


@app.command(epilog=EXIT_CODES)
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put the initialization.")],
) -> None:
    """Copy a run's initialization to a folder of its own, checked on the way.

    The folder loads with peft.PeftModel.from_pretrained (or with transformers, where the whole model was learned) where
    metacl is not installed; adaptation.json says how to adapt, README.md is its model card.
    """
    from metacl.api import export_initialization

    tensors, numbers = export_initialization(run, folder)
    out.print(f"{tensors} tensors, {numbers:,} numbers, written to {folder}", soft_wrap=True)
    load = f"peft.PeftModel.from_pretrained(base_model, '{folder}')"
    if (folder / "config.json").exists():
        load = f"transformers.AutoModel.from_pretrained('{folder}')"
    out.print(f"load it with: {load}", soft_wrap=True, highlight=False)


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
    from metacl.evaluation import METHODS
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
    for registry in kinds:
        plural = f"{registry.kind}s".replace("ys", "ies")
        table = Table("name", "what it is", title=f"{plural} ({registry.key})", title_justify="left", box=None)
        for name in registry.names():
            table.add_row(name, escape(registry.summary(name)))
        out.print(table, "")


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


def main(arguments: list[str] | None = None) -> None:
    """Entry point: run a verb and turn expected failures into one message and an exit code."""
    try:
        app(arguments)
    except MetaclError as error:
        title = "stopped" if error.exit_code == 75 else "error"
        err.print(f"[bold red]{title}:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err.print("interrupted", soft_wrap=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
