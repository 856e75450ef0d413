"""Continual learning: streams of experiences, strategies against forgetting, the loop, and what it is measured by."""
