"""Aggregators, one a file. Importing this registers them."""

from metacl.aggregation.base import AGGREGATORS, Aggregator, Contribution
from metacl.aggregation.clipped_mean import ClippedMean
from metacl.aggregation.coordinate_median import CoordinateMedian
from metacl.aggregation.example_weighted import ExampleWeighted
from metacl.aggregation.mean import Mean
from metacl.aggregation.pcgrad import PCGrad
from metacl.aggregation.trimmed_mean import TrimmedMean

__all__ = [
    "AGGREGATORS",
    "Aggregator",
    "ClippedMean",
    "Contribution",
    "CoordinateMedian",
    "ExampleWeighted",
    "Mean",
    "PCGrad",
    "TrimmedMean",
]
