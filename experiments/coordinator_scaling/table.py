"""Writes the tables of README.md, between its marks, from results.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results: made by table.py -->", "<!-- end of results -->"
MILLION = 1_000_000


def write_table(results: dict[str, Any], readme: Path) -> None:
    """Replace what stands between the marks."""
    text = readme.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    readme.write_text(f"{before}\n{tables(results)}\n{after}")


def tables(results: dict[str, Any]) -> str:
    """Real groups, cost by size, simulated steps, shards."""
    machine = results["machine"]
    lines = [
        f"Measured on {machine['cpus']} cores with {machine['memory_gb']} GB, shared with others (load in brackets).",
        "",
        "| real groups | tasks a step | s a step | coordinator, ms | its part | s a task |",
        "|---|---|---|---|---|---|",
    ]
    for groups in (1, 2):
        row = results[f"real {groups}"]
        share = row["coordinator_s"] / row["step_s"]
        lines.append(
            f"| {groups} | {row['tasks']} | {row['step_s']:.2f} | {1000 * row['coordinator_s']:.0f} "
            f"| {100 * share:.2f} % | {row['task_s']:.2f} ({row['load']:.1f}) |"
        )
    lines += [
        "",
        "| parameters | coordinator, s a task | s a step | bytes | 64 groups × 4 tasks, s | shortest task for 5 % |",
        "|---|---|---|---|---|---|",
    ]
    for key, row in results.items():
        if key.startswith("cost "):
            own = row["a_step_s"] + 256 * row["a_task_s"]
            lines.append(
                f"| {row['parameters'] // MILLION} M | {row['a_task_s']:.4f} "
                f"| {row['a_step_s']:.2f} ({row['load']:.1f}) "
                f"| {4 * row['parameters'] // MILLION} MB | {own:.1f} | {19 * own / 4:.1f} s |"
            )
    lines += [
        "",
        "| simulated groups | parameters | tasks | s a step | coordinator, s | its part |",
        "|---|---|---|---|---|---|",
    ]
    for key, row in results.items():
        if key.startswith("simulated "):
            share = row["coordinator_s"] / row["step_s"]
            lines.append(
                f"| {row['groups']} | {row['parameters'] // MILLION} M | {row['tasks']} | {row['step_s']:.1f} "
                f"| {row['coordinator_s']:.2f} | {100 * share:.1f} % |"
            )
    lines += ["", "| shards | tasks of 40 M | slowest shard, s | sha256 of the sum |", "|---|---|---|---|"]
    for key, row in results.items():
        if key.startswith("shards "):
            lines.append(f"| {row['shards']} | {row['tasks']} | {row['slowest_s']:.2f} | {row['sha256'][:12]}… |")
    return "\n".join(lines)
