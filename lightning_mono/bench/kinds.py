"""Benchmarks of models by name."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from lightning_mono.bench.names import TRANSFORMERS, TWIN
from lightning_mono.bench.prefill import Prefill
from lightning_mono.bench.race import Kind
from lightning_mono.bench.subject import Subject

KINDS: dict[str, Callable[..., Kind]] = {"prefill": Prefill}
"""Each is called with the subject and its settings."""


def settings_of(arguments: Namespace) -> dict[str, int]:
    """Of a benchmark, beside model and prompts."""
    return {}


def missing(name: str, subject: Subject) -> str | None:
    """Why a contestant cannot run here; None if it can."""
    if name in (TWIN, TRANSFORMERS):
        return "not yet"
    return None
