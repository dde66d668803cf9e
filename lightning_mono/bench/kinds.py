"""Benchmarks of models by name."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from lightning_mono.bench.decode import Decode
from lightning_mono.bench.names import TRANSFORMERS
from lightning_mono.bench.prefill import Prefill
from lightning_mono.bench.race import Kind
from lightning_mono.bench.subject import Subject
from lightning_mono.bench.training import Training
from lightning_mono.bench.twin import without_transformers

KINDS: dict[str, Callable[..., Kind]] = {"prefill": Prefill, "decode": Decode, "train": Training}
"""Each is called with the subject and its settings."""


def settings_of(arguments: Namespace) -> dict[str, int]:
    """Of a benchmark, beside model and prompts."""
    return {"rounds": arguments.rounds} if arguments.what == "decode" else {}


def missing(name: str, subject: Subject) -> str | None:
    """Why a contestant cannot run here; None if it can."""
    return without_transformers(subject.config.decoder) if name == TRANSFORMERS else None
