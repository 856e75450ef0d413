"""Writes the tables of README.md, between its marks, from results.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shares import GROUPS, MILLION, SIZES, share_of_step

BEGIN, END = "<!-- results: made by table.py -->", "<!-- end of results -->"


def write_table(results: dict[str, Any], readme: Path) -> None:
    """Replace what stands between the marks."""
    text = readme.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    readme.write_text(f"{before}\n{tables(results)}\n{after}")


def tables(results: dict[str, Any]) -> str:
    """Simulated groups with one process and with shards, then real groups, then Ray's calls."""
    machine, calls = results["machine"], results.get("ray calls")
    loads = [row["load"] for row in results.values() if "load" in row]
    lines = [
        f"Measured on {machine['cpus']} cores with {machine['memory_gb']} GB, used by others, too (load "
        f"{min(loads):.1f} to {max(loads):.1f}).",
        "",
        "| parameters | groups | tasks | one process: s | part of a step | as many shards as groups: coordinator, s "
        "| **part of a step** | a shard beside the tasks, s | after them, s | all but the tasks |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for parameters in SIZES:
        for groups in GROUPS:
            keys = [f"{kind} {parameters} {groups}" for kind in ("shards", "shard work")]
            if not results.keys() >= set(keys):
                continue
            many, work = (results[key] for key in keys)
            alone, apart = _one_process(results, parameters, groups), share_of_step(many, calls, work)
            lines.append(
                f"| {parameters // MILLION} M | {groups} | {many['tasks']} | {alone} | {apart.own_s:.2f} "
                f"| **{100 * apart.own:.1f} %** | {work['check_s']:.2f} | {work['combine_s']:.2f} "
                f"| {100 * apart.critical:.1f} % |"
            )
    real = [row for key, row in results.items() if key.startswith("real ")]
    if real:
        lines += [
            "",
            "| real groups | shards | next tasks made ahead | tasks a step | s a step | coordinator, ms | its part |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in real:
            share = row["coordinator_s"] / row["step_s"]
            lines.append(
                f"| {row['groups']} | {row['shards']} | {'yes' if row['ahead'] else 'no'} | {row['tasks']} "
                f"| {row['step_s']:.2f} | {1000 * row['coordinator_s']:.0f} | {100 * share:.2f} % |"
            )
    if calls is None:
        return "\n".join([*lines, "", "Ray's calls were not measured: they are missing in the coordinator's columns."])
    lines += [
        "",
        f"Ray's calls cost the coordinator's process {1000 * calls['a_task_s']:.2f} ms of CPU a task and "
        f"{1000 * calls['a_shard_s']:.2f} ms a shard and step; that is in the columns with shards.",
    ]
    return "\n".join(lines)


def _one_process(results: dict[str, Any], parameters: int, groups: int) -> str:
    row = results.get(f"one {parameters} {groups}")
    if row is None:  # as many seconds a task as with the most groups that were measured
        measured = [results[f"one {parameters} {g}"] for g in GROUPS if f"one {parameters} {g}" in results]
        if len(measured) < 2:
            return "– | –"
        few, most = measured[0], measured[-1]
        a_task = (most["coordinator_s"] - few["coordinator_s"]) / (most["tasks"] - few["tasks"])
        tasks = results[f"shards {parameters} {groups}"]["tasks"]
        row = {**most, "coordinator_s": most["coordinator_s"] + (tasks - most["tasks"]) * a_task}
        found = share_of_step(row, None, None)
        return f"({found.own_s:.0f}) | ({100 * found.own:.0f} %)"
    found = share_of_step(row, None, None)
    return f"{found.own_s:.2f} | {100 * found.own:.1f} %"
