"""Asks a model what a benchmark holds: in batches, shared out, going on where it stopped."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from PIL import Image
from tqdm import tqdm

from lightning_mono.benchmarks.answers import Answers
from lightning_mono.benchmarks.benchmark import Benchmark, Item
from lightning_mono.benchmarks.pictures import size
from lightning_mono.benchmarks.ranks import World
from lightning_mono.data.images import decode
from lightning_mono.data.render import Renderer
from lightning_mono.data.sample import Exchange, Sample, SampleError
from lightning_mono.errors import DataError
from lightning_mono.evaluation.benchmark import batches
from lightning_mono.inference import Assistant


def ask(
    assistant: Assistant,
    benchmark: Benchmark,
    answers: Answers,
    *,
    batch_size: int,
    world: World | None = None,
    fresh: bool = False,
) -> dict[str, str]:
    """Ask every question that has no answer yet.

    Whole batches are dealt out to the processes. Which questions share a batch depends on their
    lengths alone, so answers depend neither on how many processes there are nor on where an
    earlier call was killed.

    Args:
        assistant: the model under test.
        benchmark: what to ask.
        answers: where answers are, and are put as they come.
        batch_size: questions in a batch.
        world: this process among others that do the same.
        fresh: ask all of them anew.

    Returns:
        The answers by id, in the order of the benchmark; the same in every process.

    Raises:
        DataError: an image cannot be read, or the model takes none, or answers cannot be written.
    """
    world = world or World()
    with ExitStack() as stack:
        done = world.agree(lambda: stack.enter_context(answers.opened(fresh=fresh)))
        asked = world.gather(
            lambda: _ask_share(assistant, benchmark, answers, done, batch_size, world)
        )
        for part in asked:
            done.update(part)
    return {item.id: done[item.id] for item in benchmark.items}


def _ask_share(
    assistant: Assistant,
    benchmark: Benchmark,
    answers: Answers,
    done: dict[str, str],
    batch_size: int,
    world: World,
) -> dict[str, str]:
    """Ask what falls to this process of the batches in which something is missing."""
    items = benchmark.items
    if all(item.id in done for item in items):
        return {}
    lengths = [_length(benchmark, item, assistant.renderer) for item in items]
    plan = [[items[place] for place in places] for places in batches(lengths, batch_size)]
    todo = [batch for batch in plan if any(item.id not in done for item in batch)]
    said: dict[str, str] = {}
    mine = todo[world.rank :: world.size]
    with tqdm(
        total=len(mine), desc=benchmark.name, unit=" batches", disable=None, leave=False
    ) as bar:
        for batch in mine:
            asked = [(_pictures(benchmark, item), benchmark.ask(item)) for item in batch]
            told = assistant.answer(asked, benchmark.prompt.max_new_tokens)
            pairs = zip(batch, told, strict=True)
            new = {item.id: text for item, text in pairs if item.id not in done}
            answers.append(world.rank, new)
            said.update(new)
            bar.update()
    return said


def _length(benchmark: Benchmark, item: Item, renderer: Renderer) -> int:
    """Tokens of a prompt, those of its pictures included; no picture is decoded for it."""
    exchange = Exchange(benchmark.ask(item), "")
    sizes = tuple(size(picture) for picture in item.images)
    name = f"{benchmark.name}: {item.id}"
    sample = Sample(name, exchanges=(exchange,), dialogue=True, sizes=sizes)
    return renderer.length(sample, sys.maxsize)[0]


def _pictures(benchmark: Benchmark, item: Item) -> list[Image.Image]:
    """The pictures of an item, decoded, so that one that cannot be read is named."""
    name = f"{benchmark.origin}: {item.id}"
    try:
        return [decode(picture.read(), name) for picture in item.images]
    except SampleError as error:
        said = str(error) if str(error).startswith(name) else f"{name}: {error}"
        raise DataError(f"{said}; put the image right, or leave the question out") from error
