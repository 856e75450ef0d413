"""picture.svg: seconds of a meta-step and extra peak memory over the inner steps K, a row a case."""

from __future__ import annotations

from typing import Any

import matplotlib
from campaign import ORDER, RESULTS, STEPS, read
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from methods import METHODS

STYLES = {
    "reverse": ("#D55E00", "o", "-"),
    "reverse_all": ("#D55E00", "^", "--"),
    "reverse_compiled": ("#E69F00", "o", "-"),
    "reverse_last_compiled": ("#E69F00", "s", "-"),
    "reverse_all_compiled": ("#E69F00", "^", "--"),
    "reverse_bf16_compiled": ("#E69F00", "D", ":"),
    "side_by_side": ("#56B4E9", "o", "-"),
    "side_by_side_compiled": ("#56B4E9", "s", "--"),
    "one_sided_compiled": ("#CC79A7", "^", ":"),
    "one_sided": ("#CC79A7", "D", "-"),
    "finite_difference": ("#CC79A7", "s", "--"),
    "first_order": ("#009E73", "v", "-"),
    "first_order_loop": ("0.6", "v", ":"),
}
"""Ours in colour (Okabe & Ito 2008); the peers share blue and differ in their markers."""
PEER_MARKERS = "ospX*+"
TITLES = {
    "a": "(a) LoRA language model",
    "b": "(b) MiniLM on BANKING77",
    "c": "(c) four convolutions",
    "gpu": "(gpu) Llama of 1.2 B",
}


def main() -> None:
    """Draw what results.json holds."""
    rows = read()["alone"]
    cases = [case for case in STEPS if len(STEPS[case]) > 1 and any(key.startswith(f"{case} ") for key in rows)]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "metacl", "font.size": 10.0}):
        figure = Figure(figsize=(9.5, 3.0 * len(cases) + 1.0), layout="constrained")
        for index, case in enumerate(cases):
            for column, (key, label) in enumerate((("seconds", "s a meta-step"), ("extra_mb", "extra peak MB"))):
                axes = figure.add_subplot(len(cases), 2, 2 * index + column + 1)
                _curves(axes, rows, case, key)
                axes.set(title=TITLES[case], xlabel="inner steps K", ylabel=label, xscale="log", yscale="log")
                axes.set_xticks(sorted(STEPS[case]), [str(steps) for steps in sorted(STEPS[case])])
                axes.minorticks_off()
        handles = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
        figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False)
        figure.savefig(RESULTS.with_name("picture.svg"), metadata={"Date": None})


def _curves(axes: Axes, rows: dict[str, Any], case: str, key: str) -> None:
    peers = [method for method in ORDER if METHODS[method].kind == "peer"]
    for method in ORDER:
        points = [(steps, rows.get(f"{case} {steps} {method}", {}).get(key)) for steps in sorted(STEPS[case])]
        points = [(steps, value) for steps, value in points if value is not None]
        if not points:
            continue
        colour, marker, line = STYLES.get(method) or ("#0072B2", PEER_MARKERS[peers.index(method)], "-")
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, linestyle=line, label=METHODS[method].label,
                  linewidth=1.2, markersize=5)  # fmt: skip


if __name__ == "__main__":
    main()
