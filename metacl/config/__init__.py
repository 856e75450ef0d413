"""What a run is: one typed tree, read from YAML with dotted overrides, written back next to what it made.

Components (objective, estimator, …) are chosen by name and built while the config is read, so a config that
loads is one whose every key is known and whose parts fit together.
"""

from metacl.config.evaluation import Evaluation
from metacl.config.faults import Fault
from metacl.config.outer import Asynchronous, HeldOut, OuterLoop
from metacl.config.reading import config_from_dict, config_to_yaml, load_config, read_tree
from metacl.config.run import RunConfig
from metacl.config.sections import Checkpoints
from metacl.config.workers import Stragglers, Workers

__all__ = [
    "Asynchronous",
    "Checkpoints",
    "Evaluation",
    "Fault",
    "HeldOut",
    "OuterLoop",
    "RunConfig",
    "Stragglers",
    "Workers",
    "config_from_dict",
    "config_to_yaml",
    "load_config",
    "read_tree",
]
