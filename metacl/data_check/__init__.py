"""What `metacl data check` finds out about a run's data before it costs anything, and `metacl data split`."""

from metacl.data_check.check import DataReport, check_config_data
from metacl.data_check.finding import Finding
from metacl.data_check.split import propose_splits

__all__ = ["DataReport", "Finding", "check_config_data", "propose_splits"]
