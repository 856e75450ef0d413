"""Progress with a clock of its own, on a log and on a terminal that is a string."""

import io

import pytest
from rich.console import Console

from metacl.coordination.step import StepMetrics
from metacl.reporting import QuietProgress, RichProgress
from metacl.reporting.standing import Training


class Clock:
    """Stands still until told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    """A string that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(clock):
    return Console(file=io.StringIO(), get_time=clock, width=80)


@pytest.fixture
def terminal(clock):
    return Console(file=Terminal(), force_terminal=True, get_time=clock, width=100, _environ={"TERM": "xterm"})


def metrics(step, seconds=10.0, query=0.5, first=1.25, last=0.75):
    return StepMetrics(step, query, first, last, 1.0, 4, seconds, 0.01)


def lines(console):
    return console.file.getvalue().splitlines()


def test_notes_carry_elapsed_seconds_and_no_markup(log, clock):
    with RichProgress(log) as progress:
        clock.now += 2.5
        progress.note("rank [0] of group [bold]1[/bold] " + "is slow " * 20)
    assert lines(log) == ["    2.5 s  rank [0] of group [bold]1[/bold] " + ("is slow " * 20)]


def test_a_log_is_not_flooded_but_hears_the_beginning_and_the_end(log, clock):
    with RichProgress(log) as progress:
        for step in range(250):
            for task in range(4):
                clock.now += 0.025
                progress.task_done(step, task + 1, 4)
            progress.step_done(metrics(step + 1, seconds=0.1), 250)
    said = lines(log)  # 1000 tasks in 25 s: the first, one after 10 s, one after 20 s, the last step
    assert len(said) == 4
    assert said[0].endswith("training: step 1, task 1/4")
    assert said[-1].endswith(
        "training: step 250/250 done · 2400.0 tasks/min · query loss 0.500 · support loss 1.250 → 0.750"
    )


def test_a_slow_step_is_heard_of_before_it_is_done(log, clock):
    with RichProgress(log) as progress:
        for task in range(3):
            clock.now += 60
            progress.task_done(0, task + 1, 4)
    assert [line.split("  ")[-1] for line in lines(log)] == [f"training: step 1, task {task}/4" for task in (1, 2, 3)]


def test_speed_and_time_left_count_this_session_only(log, clock):
    with RichProgress(log) as progress:
        clock.now += 500  # starting workers is not training
        progress.note("continuing after step 90")
        clock.now += 30
        progress.step_done(metrics(91, seconds=30.0), 100)
        clock.now += 20
        progress.step_done(metrics(92, seconds=20.0), 100)
    first, second = lines(log)[1:]
    assert "step 91/100 done · 8.0 tasks/min" in first  # 4 tasks in 30 s
    assert first.endswith("4:30 left")  # 9 steps of 30 s
    assert "step 92/100 done · 9.6 tasks/min" in second  # 8 tasks in 50 s
    assert second.endswith("3:20 left")  # 8 steps of 25 s


def test_without_inner_steps_there_is_no_support_loss(log):
    with RichProgress(log) as progress:
        progress.step_done(metrics(1, first=None, last=None), 2)
    assert "query loss 0.500" in lines(log)[0]
    assert "support" not in lines(log)[0]


def test_evaluation_has_its_own_speed(log, clock):
    with RichProgress(log) as progress:
        progress.step_done(metrics(1), 1)
        clock.now += 5
        progress.note("evaluating")
        for done in range(1, 31):
            clock.now += 2
            progress.evaluation_progress(done, 30)
    said = [line for line in lines(log) if "evaluating:" in line]
    assert len(said) <= 8  # a minute of work
    assert said[1].endswith("episode 8/30 · 30.0 episodes/min · 0:44 left")  # 8 in 16 s, and 22 are left
    assert said[-1].endswith("evaluating: episode 30/30 done · 30.0 episodes/min")


def test_an_exception_leaves_how_far_it_came(log, clock):
    with pytest.raises(ZeroDivisionError), RichProgress(log) as progress:
        progress.step_done(metrics(1), 9)
        clock.now += 1
        progress.task_done(1, 3, 4)
        raise ZeroDivisionError
    assert "step 2/9, task 3/4" in lines(log)[-1]


def test_a_pipe_with_forced_colour_is_no_terminal(clock):
    console = Console(file=io.StringIO(), force_terminal=True, get_time=clock, _environ={"TERM": "xterm"})
    with RichProgress(console) as progress:
        progress.task_done(0, 1, 4)
    assert "\x1b[?25l" not in console.file.getvalue()  # "hide the cursor", the mark of a live display
    assert "step 1, task 1/4" in console.file.getvalue()


def test_a_terminal_shows_life_before_the_first_step_is_done(terminal):
    with RichProgress(terminal) as progress:
        progress.task_done(0, 1, 4)
    written = terminal.file.getvalue()
    assert "step 1, task 1/4" in written[: written.rindex("\x1b[?25h")]


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_a_terminal_is_given_back(terminal, error):
    try:
        with RichProgress(terminal) as progress:
            progress.note("hello")
            progress.step_done(metrics(1), 3)
            if error is not None:
                raise error
    except KeyboardInterrupt:
        pass
    written = terminal.file.getvalue()
    assert written.index("\x1b[?25l") < written.index("hello") < written.rindex("\x1b[?25h")  # cursor off … on
    assert "training: step 1/3 done" in written[written.rindex("\x1b[?25h") :]


def test_the_bar_moves_with_steps_and_their_tasks():
    training = Training()
    training.task_done(4, 1, 4)
    assert training.fraction() is None  # nobody has said yet how many steps there are
    training.step_done(metrics(5), 10, now=0.0)
    assert training.fraction() == pytest.approx(0.5)
    training.task_done(5, 2, 4)
    assert training.fraction() == pytest.approx(0.55)


def test_quiet_is_quiet(capsys):
    quiet = QuietProgress()
    quiet.note("x")
    quiet.task_done(0, 1, 2)
    quiet.step_done(metrics(1), 2)
    quiet.evaluation_progress(1, 2)
    assert capsys.readouterr() == ("", "")
