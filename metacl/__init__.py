"""metacl: distributed meta-learning and continual learning for language models.

>>> import metacl
>>> config = metacl.load_config("configs/demo.yaml", ["outer.steps=20"])  # doctest: +SKIP
>>> run = metacl.train(config)                                            # doctest: +SKIP
>>> model = metacl.load_initialization(run.initialization).adapt(texts, labels, steps=3)  # doctest: +SKIP
>>> model.predict(["where is my card?"])                                  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; at run time `__getattr__` loads them
    from metacl.api import evaluate as evaluate
    from metacl.api import train as train
    from metacl.config import RunConfig as RunConfig
    from metacl.config import config_from_dict as config_from_dict
    from metacl.config import load_config as load_config
    from metacl.initialization import load_adapted as load_adapted
    from metacl.initialization import load_initialization as load_initialization
    from metacl.initialization import read_initialization as read_initialization

__version__ = "0.1.0"

_PUBLIC = {
    "RunConfig": "metacl.config",
    "load_config": "metacl.config",
    "config_from_dict": "metacl.config",
    "train": "metacl.api",
    "evaluate": "metacl.api",
    "load_initialization": "metacl.initialization",
    "load_adapted": "metacl.initialization",
    "read_initialization": "metacl.initialization",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Load public names when they are first used, so that `import metacl` and ``metacl --help`` stay quick."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'metacl' has no attribute {name!r}")
