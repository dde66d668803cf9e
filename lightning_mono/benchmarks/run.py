"""From benchmarks and a model to results: ask, score, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning_mono.benchmarks.answers import Answers, model_digest, settings_of
from lightning_mono.benchmarks.ask import ask
from lightning_mono.benchmarks.benchmark import Benchmark
from lightning_mono.benchmarks.judges import Kept
from lightning_mono.benchmarks.page import write_page
from lightning_mono.benchmarks.ranks import World
from lightning_mono.benchmarks.results import as_json, averages, write_json, write_samples
from lightning_mono.benchmarks.score import Metric, Scored, make_metric, score
from lightning_mono.errors import DataError
from lightning_mono.inference import Assistant
from lightning_mono.metrics import Judge

Others = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Benchmark to the name of another model to what it said, by id."""


def run_benchmarks(
    assistant: Assistant,
    benchmarks: Sequence[Benchmark],
    out: Path,
    *,
    target: str = "model",
    batch_size: int = 16,
    judge: Judge | None = None,
    fresh: bool = False,
    others: Others | None = None,
    world: World | None = None,
) -> dict[str, Any]:
    """Ask a model all benchmarks and write what comes of it.

    Answers are kept in `out`, in a folder named by the model's and the benchmark's content: the
    same call asks nothing again, a killed one goes on, and a changed model is asked anew.

    Args:
        assistant: the model under test.
        benchmarks: what to ask.
        out: gets results.json, samples.html, and for each benchmark a folder with its answers, a
            file of samples and the judge's verdicts.
        target: what the model is called in results.
        batch_size: questions in a batch.
        judge: for the benchmarks that need one; asked in the first process alone.
        fresh: ask all anew.
        others: what other models said, to be scored beside.
        world: this process among others that call this with the same arguments.

    Returns:
        What results.json holds.

    Raises:
        DataError: a benchmark needs a judge, cannot be scored or asked, or `out` not written.
    """
    world = world or World()
    kept = {b.name: None if judge is None else Kept(judge) for b in benchmarks}
    metrics: dict[str, Metric] = {}
    scored: list[Scored] = []
    folders: list[Path] = []

    def begin() -> str:
        """What can be wrong is wrong before anything is asked."""
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{out}: cannot be made: {error.strerror}; give another") from error
        metrics.update((b.name, make_metric(b, kept[b.name])) for b in benchmarks)
        return model_digest(assistant)

    def finish(benchmark: Benchmark, said: dict[str, str], folder: Path) -> None:
        beside = (others or {}).get(benchmark.name)
        scored.append(score(benchmark, said, metrics[benchmark.name], beside))
        folders.append(folder)
        write_samples(scored[-1], folder / "samples.jsonl")
        verdicts = kept[benchmark.name]
        if verdicts is not None:
            verdicts.write(folder / "verdicts.jsonl")

    digest = world.agree(begin)
    for benchmark in benchmarks:
        answers = Answers(out, settings_of(digest, benchmark, batch_size))
        said = ask(assistant, benchmark, answers, batch_size=batch_size, world=world, fresh=fresh)
        world.agree(partial(finish, benchmark, said, answers.folder))
    return world.agree(lambda: _written(scored, folders, out, target, digest))


def _written(
    scored: Sequence[Scored], folders: Sequence[Path], out: Path, target: str, digest: str
) -> dict[str, Any]:
    """Write the page and results.json."""
    page = out / "samples.html"
    write_page(scored, target, page)
    results = {
        "target": target,
        "model_digest": digest,
        "benchmarks": [as_json(s, folder) for s, folder in zip(scored, folders, strict=True)],
        "averages": averages(scored),
        "page": str(page),
    }
    write_json(out / "results.json", results)
    return results
