"""What one does with an initialization: adapt it, predict with what comes of that, take it elsewhere."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metacl.cli.app import EXIT_CODES, LabelColumn, TextColumn, app, err, out
from metacl.errors import ConfigError, DataError

if TYPE_CHECKING:
    from metacl.initialization import AdaptedClassifier, AdaptedLanguageModel
    from metacl.learners.generation import Generation


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
