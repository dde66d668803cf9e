"""Measures of the field's benchmarks, as torchmetrics: right on one process and over many."""

from lightning_mono.metrics.accuracy import ExactMatch, matches, normalise

__all__ = ["ExactMatch", "matches", "normalise"]
