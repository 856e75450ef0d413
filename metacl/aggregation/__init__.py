"""Aggregators, one a file. Importing this registers them."""

from metacl.aggregation.base import AGGREGATORS, Aggregator
from metacl.aggregation.mean import Mean

__all__ = ["AGGREGATORS", "Aggregator", "Mean"]
