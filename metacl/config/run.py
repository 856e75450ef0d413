"""What a run is."""

from __future__ import annotations

from pydantic import model_validator

from metacl.config.fitting import check_fits_together
from metacl.config.sections import Sections


class RunConfig(Sections):
    """Everything a run depends on, whose parts fit together. `Sections` names them."""

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        check_fits_together(self)
        return self
