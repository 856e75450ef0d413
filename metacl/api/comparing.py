"""What an initialization is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from metacl.config import RunConfig
from metacl.errors import ConfigError, DataError
from metacl.evaluation import AdaptationMethod, chosen_methods
from metacl.evaluation.methods.choosing import Options


def compared_methods(
    names: Sequence[str], config: RunConfig, notify: Callable[[str], None], options: Options | None = None
) -> list[AdaptationMethod]:
    """What an initialization is compared with, by names or ["all"], each of which can be run.

    Raises
    ------
    ConfigError, DataError
        One that is named cannot; of "all" it is left out, with a note where the data stands in its way.
    """
    assert config.evaluation is not None, "checked before"
    methods = chosen_methods(names, config.evaluation.steps, config, options)
    tuned = [method for method in methods if len(method.candidates()) > 1]
    if not tuned:
        return methods
    if config.evaluation.split == "valid":
        raise ConfigError(
            f"--methods {tuned[0].registered_name}: it is tuned on validation classes, so it cannot be measured on "
            f"them. Set evaluation.split=test."
        )
    try:
        config.data.open().check("valid", config.evaluation.shape)
    except DataError as error:
        if tuple(names) == ("all",):
            left_out = ", ".join(dict.fromkeys(str(method.registered_name) for method in tuned))
            notify(f"left out, for they are tuned on validation classes and the data has too few: {left_out}")
            return [method for method in methods if method not in tuned]
        raise DataError(
            f"--methods {tuned[0].registered_name}: it is tuned on validation classes; there are too few. {error} "
            f"frozen_prototypes, nearest_neighbour, label_names and pretrained need no tuning."
        ) from None
    return methods
