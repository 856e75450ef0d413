"""Showing a run to a person: a live display on a terminal, plain lines everywhere else.

Not a log: what every step did is in the run's metrics.jsonl.
"""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from metacl.coordination.step import StepMetrics
from metacl.reporting.standing import Evaluating, Standing, Training
from metacl.reporting.wording import duration

LINE_EVERY_S = 10.0
"""Without a terminal, a line at most this often: a log of a day of training stays readable."""


class QuietProgress:
    """Shows nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def task_done(self, step: int, done: int, of: int) -> None:
        """Nothing."""

    def step_done(self, metrics: StepMetrics, steps: int) -> None:
        """Nothing."""

    def evaluation_progress(self, done: int, of: int) -> None:
        """Nothing."""


class RichProgress:
    """Shows one run. Use it as a context manager, so that the terminal is given back whatever happens.

    Parameters
    ----------
    console : rich.console.Console
        Where to show it. If it writes to a terminal there is a live display with notes above it; if not (CI,
        ``ray job logs``, ``| tee``) there are plain lines, the progress at most every `LINE_EVERY_S` seconds.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = self._heard_at = console.get_time()
        self._said_at: float | None = None
        self._unsaid = False
        self._training = Training()
        self._evaluating: Evaluating | None = None
        self._current: Standing | None = None
        self._spinner = Spinner("dots")
        # FORCE_COLOR makes rich call a pipe a terminal: colours are welcome there, a moving display is not.
        self._has_terminal = console.is_interactive and console.file.isatty()
        self._live = Live(get_renderable=self._display, console=console, transient=True, refresh_per_second=8)

    def __enter__(self) -> RichProgress:
        if self._has_terminal:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if self._current is not None and self._unsaid:  # the display is gone: say how far it came
            self._line(f"{self._current.title}: {self._current.line(self._console.get_time())}")

    def note(self, text: str) -> None:
        """A line, with the seconds since the beginning."""
        self._heard_at = self._console.get_time()
        self._line(text)

    def task_done(self, step: int, done: int, of: int) -> None:
        """One more task of the step after `step` finished ones is back."""
        self._training.task_done(step, done, of)
        self._show(self._training, finished=False)

    def step_done(self, metrics: StepMetrics, steps: int) -> None:
        """An outer step is taken, of `steps`."""
        self._heard_at = self._console.get_time()
        self._training.step_done(metrics, steps, self._heard_at)
        self._show(self._training, self._training.finished)

    def evaluation_progress(self, done: int, of: int) -> None:
        """`done` of `of` episodes are scored."""
        now = self._console.get_time()
        if self._evaluating is None:  # it began when what came before it was last heard of
            self._evaluating = Evaluating(self._heard_at)
        self._evaluating.episodes_done(done, of, now)
        self._show(self._evaluating, self._evaluating.finished)

    def _show(self, standing: Standing, finished: bool) -> None:
        """Keep it for the display; say it in a line if it is the end, or without a display when it is time."""
        self._current, self._unsaid = standing, True
        now = self._console.get_time()
        due = self._said_at is None or now - self._said_at >= LINE_EVERY_S
        if finished or (due and not self._has_terminal):
            self._line(f"{standing.title}: {standing.line(now)}")
            self._said_at, self._unsaid = now, False

    def _line(self, text: str) -> None:
        elapsed = self._console.get_time() - self._started
        # Text, not str: brackets in a note are no markup. soft_wrap: a log has no width.
        self._console.print(Text(f"{elapsed:7.1f} s  {text}"), soft_wrap=True)

    def _display(self) -> RenderableType:
        now = self._console.get_time()
        title, line, fraction = "starting", "", None
        if self._current is not None:
            title, line, fraction = self._current.title, self._current.line(now), self._current.fraction()
        bar = ProgressBar(total=None if fraction is None else 1.0, completed=fraction or 0.0, width=30)
        head = Table.grid(padding=(0, 1))
        head.add_row(self._spinner, Text(title), bar, Text(f"elapsed {duration(now - self._started)}"))
        return Group(head, Text(line, style="dim"))
