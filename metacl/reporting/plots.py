"""The report's figures as SVG: accuracy over inner steps, losses over outer steps.

Drawn through matplotlib's object interface: pyplot would keep global state and look for a display. The same
figures give the same bytes. What is black on a white page is ``currentColor``, so a page may be dark.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # matplotlib takes a second to import, which no command waits for that draws nothing
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe & Ito (2008): apart for every kind of colour vision, and from white and black."""
LOSSES = {
    "query_loss": "query",
    "support_loss_first": "support, before",
    "support_loss_last": "support, after",
}
INK = "#010203"
"""A colour nobody else uses: it stands for the page's own text colour until the SVG is written."""
STYLE: Any = {  # matplotlib 3.11 types the keys, 3.9 does not
    "svg.fonttype": "none",
    "svg.hashsalt": "metacl",
    "text.parse_math": False,  # a name with dollars in it is a name
    "font.size": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def adaptation_curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy over inner steps with 95 % intervals; methods that take no steps are horizontal bands.

    Parameters
    ----------
    rows : list of dict
        The rows of results.json.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    with _style():
        return _svg(_adaptation(rows), "adaptation")


def adaptation_picture(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The same as a PNG on white, 1080 × 720 pixels."""
    with _style():
        figure = _with_legend(_adaptation(rows))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=200, facecolor="white", metadata={"Software": None})
        return buffer.getvalue()


def _adaptation(rows: Sequence[Mapping[str, Any]]) -> Figure:
    figure, axes = _figure("inner steps", "query accuracy, %")
    adapting = [row for row in rows if row["steps"] is not None]
    methods = list(dict.fromkeys(row["method"] for row in adapting))
    for index, method in enumerate(methods):
        _curve(axes, [row for row in adapting if row["method"] == method], index)
    for row, dashes in zip([row for row in rows if row["steps"] is None], cycle(("--", ":", "-.")), strict=False):
        _, mean, low, high = _figures([row])
        axes.axhline(mean[0], color="0.5", linestyle=dashes, label=row["method"])
        axes.axhspan(low[0], high[0], color="0.5", alpha=0.2, linewidth=0)
    axes.set_xticks(sorted({row["steps"] for row in adapting}))
    return figure


def loss_curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """Loss in nats a token over inner steps with 95 % intervals, a line a start.

    Parameters
    ----------
    rows : list of dict
        Of `metacl.api.evaluate_perplexity`.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    with _style():
        figure, axes = _figure("inner steps", "query loss, nats a token")
        for index, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
            _curve(axes, [row for row in rows if row["method"] == method], index, "log_perplexity", 1)
        axes.set_xticks(sorted({row["steps"] for row in rows}))
        return _svg(figure, "perplexity")


def step_size_curves(robustness: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy over the factor on all inner step sizes, with 95 % intervals, a line a start.

    Parameters
    ----------
    robustness : list of dict
        results.json's, at least one.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    with _style():
        figure, axes = _figure("step sizes ×", "query accuracy, %")
        for index, start in enumerate(dict.fromkeys(one["start"] for one in robustness)):
            lines = [{**one, "method": start, "steps": one["factor"]} for one in robustness if one["start"] == start]
            _curve(axes, lines, index)
        factors = sorted({one["factor"] for one in robustness})
        axes.set_xscale("log")
        axes.set_xticks(factors, [f"{factor:g}" for factor in factors])
        axes.minorticks_off()
        return _svg(figure, "stepsizes")


def training_curves(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Query loss, and support loss before and after adapting, over outer steps: each step faint, running means strong.

    Parameters
    ----------
    metrics : list of dict
        The lines of metrics.jsonl, at least one.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    window = max(1, len(metrics) // 20)
    with _style():
        figure, axes = _figure("outer step", f"loss (strong: mean of {window} steps)" if window > 1 else "loss")
        steps = np.array([line["step"] for line in metrics])
        for (key, label), colour in zip(LOSSES.items(), COLOURS, strict=False):
            if metrics[0][key] is None:  # no inner steps, no support loss
                continue
            loss = np.array([line[key] for line in metrics])
            axes.plot(steps, loss, color=colour, alpha=0.3, linewidth=1)
            marker = "o" if len(loss) == 1 else ""  # a line through one point is invisible
            axes.plot(steps, running_mean(loss, window), color=colour, label=label, marker=marker)
        return _svg(figure, "training")


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of each value and up to ``window - 1`` before it; shape (n,) to (n,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _curve(
    axes: Axes, rows: Sequence[Mapping[str, Any]], index: int, key: str = "accuracy", scale: float = 100
) -> None:
    steps, mean, low, high = _figures(sorted(rows, key=lambda row: row["steps"]), key, scale)
    colour = COLOURS[index % len(COLOURS)]
    axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.errorbar(
        steps,
        mean,
        yerr=[mean - low, high - mean],
        color=colour,
        marker="os^Dvx"[index % 6],
        capsize=3,
        elinewidth=1,
        label=rows[0]["method"],
    )


def _figures(
    rows: Sequence[Mapping[str, Any]], key: str = "accuracy", scale: float = 100
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Steps, and mean, low and high of an estimate times `scale`; by default accuracy in percent."""
    mean, low, high = (scale * np.array([row[key][part] for row in rows]) for part in ("mean", "low", "high"))
    return np.array([row["steps"] for row in rows]), mean, low, high


@contextmanager
def _style() -> Iterator[None]:
    """Nothing of the user's own matplotlib settings: a report looks the same for everybody."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        with matplotlib.rc_context(STYLE):
            yield


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3.6), facecolor="none", layout="constrained")  # inches; small: phones shrink it
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _with_legend(figure: Figure) -> Figure:
    if any(axes.get_legend_handles_labels()[1] for axes in figure.axes):
        figure.legend(loc="outside upper center", ncols=3, columnspacing=1.2)  # never over what is drawn
    return figure


def _svg(figure: Figure, name: str) -> str:
    _with_legend(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # a page has no place for the XML declaration and its DTD
    text = text.replace(INK, "currentColor")
    for reference in ('id="', "url(#", 'href="#'):  # two figures on a page must not share ids
        text = text.replace(reference, f"{reference}{name}-")
    return text
