"""A plugin whose strategy ends one of the processes that learn with it, once, in the middle of an experience."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from metacl.continual.moment import Moment
from metacl.continual.strategies import STRATEGIES, State, Strategy
from metacl.learners.base import Params


@STRATEGIES.register("killed_once")
class KilledOnce(Strategy):
    """SIGKILL at the third step of the second experience, unless the file `mark` is there, which it leaves."""

    mark: Path

    def gradient(self, moment: Moment, params: Params, gradient: Params, state: State) -> Params:
        """Changes nothing."""
        if (moment.experience, moment.step) == (1, 2):
            with contextlib.suppress(FileExistsError):
                self.mark.touch(exist_ok=False)  # of several ranks one does
                os.kill(os.getpid(), signal.SIGKILL)
        return gradient
