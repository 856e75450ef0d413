"""The model card that is written beside an initialization: data, protocol, results, licence."""

from __future__ import annotations

from typing import Any

import yaml

from metacl.config import RunConfig


def model_card(config: RunConfig, steps: int, results: dict[str, Any] | None) -> str:
    """Markdown with the front matter the hub reads.

    steps : outer steps that the initialization was trained for. results : results.json's content, or None before
    evaluation.
    """
    learner = config.learner.to_dict()
    front: dict[str, Any] = {"tags": ["metacl", "meta-learning", "few-shot"]}
    if config.learner.adapts_whole_model:
        front = {"library_name": "transformers", "base_model": learner.get("model"), **front}
        model = f"base model: {learner.get('model')} (every parameter learned)"
        about = _MODEL.format(steps=config.inner.steps)
    elif config.learner.takes == "text":
        front = {"library_name": "peft", "base_model": learner.get("model"), **front}
        model = f"base model: {learner.get('model')} (frozen)"
        about = _ADAPTER.format(steps=config.inner.steps)
    else:
        model = f"network: {config.learner.registered_name}, trained from {config.learner.source()}"
        about = _NETWORK
    return f"""---
{yaml.safe_dump(front, sort_keys=False).strip()}
---

# {config.name}: a meta-learned initialization

{about}

## Training

- {model}
- data: {config.data.open().describe()}
- episodes: {config.episodes}
- objective: {config.objective.registered_name}; inner loop: {config.inner.steps} steps of
  {config.inner.optimizer.registered_name}; meta-gradient: {config.estimator.registered_name}
- {steps} outer steps of {config.outer.tasks_per_step * config.outer.accumulate} tasks, seed {config.seed}

## Results

{_table(results) if results else "Not evaluated."}

## Licence and limits

The weights may be used under the licence of the base model, if there is one, and of the training data
(bundled data sets: CC-BY-4.0 for BANKING77 and HWU64, CC-BY-3.0 for OOS/CLINC150, MIT for Omniglot). The figures
hold for the protocol stated above, and say nothing about other data, languages or class counts.
"""


_ADAPTER = """A PEFT adapter from which a few gradient steps on a handful of examples adapt the base model to classes it
has never seen. Load it with `peft.PeftModel.from_pretrained(base, folder)`, or adapt with
`metacl.load_initialization(folder).adapt(texts, labels, steps={steps}).predict(texts)`."""

_MODEL = """A transformers model from which a few gradient steps on a handful of examples adapt every parameter to
what it has never seen. Load it with `AutoModel.from_pretrained(folder)` (or the class of the base model), or adapt with
`metacl.load_initialization(folder).adapt(texts, labels, steps={steps}).predict(texts)`."""

_NETWORK = """Weights from which a few gradient steps on a handful of examples adapt the network to a task it has never
seen: learned.safetensors, and head.safetensors if there is a head. `metacl.read_initialization(folder)` reads them."""


def _table(results: dict[str, Any]) -> str:
    protocol = results["protocol"]
    lines = [
        f"{protocol['ways']}-way {protocol['shots']}-shot, {protocol['queries']} queries a class, "
        f"{protocol['episodes']} episodes of the {protocol['split']} classes ({protocol['data']}); "
        f"intervals: {protocol['interval']}.",
        "",
        "| method | inner steps | accuracy | 95 % interval |",
        "|---|---|---|---|",
    ]
    for row in results["rows"]:
        estimate = row["accuracy"]
        steps = "–" if row["steps"] is None else row["steps"]
        lines.append(
            f"| {row['method']} | {steps} | {100 * estimate['mean']:.2f} % | "
            f"{100 * estimate['low']:.2f} … {100 * estimate['high']:.2f} |"
        )
    return "\n".join(lines)
