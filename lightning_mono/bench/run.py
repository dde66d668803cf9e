"""The command ``lightning-mono bench kernels``: measure, write files, give what is printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from lightning_mono.bench.cases import Case
from lightning_mono.bench.kernels import bench
from lightning_mono.bench.plot import plot
from lightning_mono.bench.table import table
from lightning_mono.errors import UserError


def run(
    cases: Sequence[Case],
    *,
    kernels: Sequence[str],
    device: str | None,
    dtype: str | None,
    rounds: int,
    threads: int | None,
    as_json: bool,
    out: str | None,
) -> str:
    """Measures, and writes ``kernels.json`` and ``kernels.png`` into ``out``.

    Returns:
        The report: a table, or JSON.

    Raises:
        UserError: no such device, a kernel that cannot run on it, or no folder to write to.
    """
    place = _device(device)
    folder = _folder(out) if out else None
    if threads is not None:
        torch.set_num_threads(threads)
    report = bench(
        cases,
        kernels=kernels,
        device=place,
        dtype=getattr(torch, dtype or ("bfloat16" if place.type == "cuda" else "float32")),
        rounds=rounds,
        progress=lambda todo: tqdm(todo, unit="case", leave=False, disable=_unseen()),
    )
    text = json.dumps(report.to_json())
    if folder:
        (folder / "kernels.json").write_text(text + "\n", encoding="utf-8")
        plot(report, folder / "kernels.png")
    return text if as_json else table(report)


def _unseen() -> bool:
    return not sys.stderr.isatty()


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
