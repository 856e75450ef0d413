"""A plugin whose strategy ends the process that learns with it, once, in the middle of an experience."""

from __future__ import annotations

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
        if (moment.experience, moment.step) == (1, 2) and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return gradient
