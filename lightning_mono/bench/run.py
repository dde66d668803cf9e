"""The command ``lightning-mono bench``: measure, write files, give what is printed."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lightning_mono.bench.cases import sweep
from lightning_mono.bench.kernels import bench
from lightning_mono.bench.kinds import KINDS, missing, settings_of
from lightning_mono.bench.memory import Peak, Turn, peak_of
from lightning_mono.bench.names import CONTESTANTS, OURS, TRANSFORMERS, TWIN
from lightning_mono.bench.plot import plot
from lightning_mono.bench.prompts import Prompt
from lightning_mono.bench.race import Kind, race
from lightning_mono.bench.race_plot import race_plot
from lightning_mono.bench.race_table import race_table
from lightning_mono.bench.subject import Subject
from lightning_mono.bench.table import table
from lightning_mono.errors import UserError


def run_kernels(arguments: Namespace) -> str:
    """Measures kernels, and writes ``kernels.json`` and ``kernels.png`` into ``--out``.

    Returns:
        The report: a table, or JSON.

    Raises:
        UserError: no such device, a kernel that cannot run on it, or no folder to write to.
    """
    device, dtype, folder = _set_up(arguments)
    report = bench(
        sweep(arguments.shape, arguments.tokens, arguments.visual_share, arguments.run_length),
        kernels=arguments.kernels,
        device=device,
        dtype=dtype,
        rounds=arguments.repeats,
        progress=_bar("case"),
    )
    return _written(arguments, folder, report, table, plot)


def run_model(arguments: Namespace) -> str:
    """Measures a model, and writes its JSON and picture into ``--out``.

    Returns:
        The report: a table, or JSON.

    Raises:
        UserError: a device, a recipe, a prompt or a folder that will not do; results that differ.
    """
    device, dtype, folder = _set_up(arguments)
    subject = Subject.of(arguments.recipe, arguments.overrides, arguments.layers, device, dtype)
    settings = settings_of(arguments)
    kind = KINDS[arguments.what](subject, **settings)
    prompts = [
        Prompt(tokens, arguments.text, rows)
        for rows in dict.fromkeys(arguments.concurrency)
        for tokens in dict.fromkeys(arguments.lengths)
    ]
    asked = {*(arguments.contestants or CONTESTANTS[kind.name]), OURS}  # all are held to it
    asked |= {TWIN} if TRANSFORMERS in asked else set()
    skipped = {name: why for name in asked if (why := missing(name, subject)) is not None}
    if arguments.contestants and skipped:
        raise UserError("; ".join(f"{name} cannot run: {why}" for name, why in skipped.items()))
    names = [name for name in CONTESTANTS[kind.name] if name in asked and name not in skipped]
    longest = max(prompts, key=lambda prompt: prompt.batch * prompt.tokens)
    report = race(
        kind,
        prompts,
        names=names,
        skipped=skipped,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        progress=_bar("prompt"),
        peaks={} if arguments.no_memory else {longest: _peaks_of(kind, settings, longest)},
        profile=longest if arguments.profile else None,
    )
    return _written(arguments, folder, report, race_table, race_plot)


def _peaks_of(kind: Kind, settings: Mapping[str, int], prompt: Prompt) -> Callable[[str], Peak]:
    """Measures the memory of a contestant by name."""
    subject = kind.subject
    layers = subject.config.decoder.layers

    def measure(name: str) -> Peak:
        return peak_of(
            Turn(
                kind=kind.name,
                contestant=name,
                recipe=subject.name,
                overrides=subject.overrides,
                layers=min(layers, kind.memory_layers or layers),
                device=subject.device.type,
                dtype=str(subject.dtype).removeprefix("torch."),
                threads=torch.get_num_threads(),
                prompt=asdict(prompt),
                settings=dict(settings),
            )
        )

    return measure


def _written(
    arguments: Namespace,
    folder: Path | None,
    report: Any,
    words: Callable[[Any], str],
    picture: Callable[[Any, Path], None],
) -> str:
    text = json.dumps(report.to_json())
    if folder:
        (folder / f"{arguments.what}.json").write_text(text + "\n", encoding="utf-8")
        picture(report, folder / f"{arguments.what}.png")
    return text if arguments.json else words(report)


def _set_up(arguments: Namespace) -> tuple[torch.device, torch.dtype, Path | None]:
    """Device, dtype and folder; nothing is measured before they are there."""
    device = _device(arguments.device)
    folder = _folder(arguments.out) if arguments.out else None
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    dtype = arguments.dtype or ("bfloat16" if device.type == "cuda" else "float32")
    return device, getattr(torch, dtype), folder


def _bar(unit: str) -> Callable[[Sequence[Any]], Any]:
    unseen = not sys.stderr.isatty()
    return lambda todo: tqdm(todo, unit=unit, leave=False, disable=unseen)


def _device(name: str | None) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU; leave the option out")
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def _folder(path: str) -> Path:
    """Makes the folder before anything is measured."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {path}: cannot be made: {error.strerror}") from error
    return folder
