"""The errors a user can cause or meet, each with the exit code the command line returns for it.

Every message says what was read, where, what was expected and what to do. Anything that is not a
`MetaclError` is a bug of metacl and keeps its traceback.
"""


class MetaclError(Exception):
    """Base of all expected failures. `exit_code` is what the process returns."""

    exit_code = 1


class ConfigError(MetaclError):
    """The configuration cannot work: unknown key, wrong type, impossible combination."""

    exit_code = 2


class DataError(MetaclError):
    """The data cannot work: missing, unreadable, wrong columns, too few examples."""

    exit_code = 2


class ResourceError(MetaclError):
    """The machine or the cluster cannot do it: no Ray, no GPU, no memory, a full disk, a dead worker."""

    exit_code = 3


class TrainingError(MetaclError):
    """Training itself failed: a loss that is not finite, a checkpoint that cannot be read."""

    exit_code = 4


class RunInterrupted(MetaclError):
    """Stopped from outside with everything saved; the message says how to continue."""

    exit_code = 75
