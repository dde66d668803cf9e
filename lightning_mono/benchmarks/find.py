"""From what `--benchmark` says to a benchmark."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from lightning_mono.benchmarks.benchmark import Benchmark, repeated
from lightning_mono.benchmarks.jsonl import read_jsonl
from lightning_mono.benchmarks.prompts import other_words
from lightning_mono.benchmarks.shipped import SHIPPED, read_shipped
from lightning_mono.benchmarks.tsv import read_tsv
from lightning_mono.errors import DataError
from lightning_mono.metrics import METRICS

READERS = {".jsonl": read_jsonl, ".tsv": read_tsv}


def open_benchmark(spec: str) -> Benchmark:
    """Read a benchmark.

    Args:
        spec: the name of one that ships, a file, or ``SCORING=FILE``.

    Raises:
        DataError: there is no such benchmark, or its file is faulty.
        AssetError: the data of one that ships cannot be had.
    """
    if spec in SHIPPED:
        return read_shipped(spec)
    scored_as, sign, name = spec.partition("=")
    if not sign or (scored_as not in METRICS and Path(spec).expanduser().exists()):
        scored_as, name = "", spec
    path = Path(name).expanduser()
    if scored_as and scored_as not in METRICS:
        raise DataError(f"--benchmark {spec}: no scoring {scored_as!r}{_near(scored_as, METRICS)}")
    if path.suffix in READERS:
        return READERS[path.suffix](path, scored_as or None)
    if path.exists():
        raise DataError(f"{path}: a benchmark is a .jsonl or .tsv file (docs/benchmarks.md)")
    raise DataError(f"no benchmark {spec!r}{_near(spec, SHIPPED)} Or give a .jsonl or .tsv file.")


def open_benchmarks(
    specs: Sequence[str],
    *,
    prompt: str | None = None,
    max_new_tokens: int | None = None,
    limit: int | None = None,
) -> list[Benchmark]:
    """Read several benchmarks, as they are asked in one call.

    Args:
        specs: as for :func:`open_benchmark`.
        prompt: a template, or the name of one, in place of the benchmarks' own.
        max_new_tokens: the longest answer, in place of the benchmarks' own.
        limit: only so many questions of each.

    Raises:
        DataError: as :func:`open_benchmark`, or two have one name.
    """
    found = []
    for spec in specs:
        benchmark = open_benchmark(spec)
        asked = benchmark.prompt if prompt is None else other_words(benchmark.prompt, prompt)
        asked = replace(asked, max_new_tokens=max_new_tokens or asked.max_new_tokens)
        benchmark = replace(benchmark, prompt=asked)
        found.append(benchmark if limit is None else benchmark.first(limit))
    twice = repeated(benchmark.name for benchmark in found)
    if twice:
        raise DataError(f"--benchmark: two are called {next(iter(twice))!r}; ask one at a time")
    return found


def _near(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}."
