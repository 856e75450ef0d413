"""Initializations: what training makes, how it is stored, and how it is used."""

from metacl.initialization.adapt import (
    AdaptedClassifier,
    AdaptedLanguageModel,
    Initialization,
    Prediction,
    check_adapted_output,
    load_adapted,
    load_initialization,
)
from metacl.initialization.folder import StoredInitialization, read_initialization, write_initialization

__all__ = [
    "AdaptedClassifier",
    "AdaptedLanguageModel",
    "Initialization",
    "Prediction",
    "StoredInitialization",
    "check_adapted_output",
    "load_adapted",
    "load_initialization",
    "read_initialization",
    "write_initialization",
]
