"""Few bits against whole weights: ``OMP_NUM_THREADS=1 python -m tests.quantise.measure``.

Two layers of the 2B model's shape, text alone, on one thread. All contestants take a step in turn,
in an order drawn anew each round; what is printed are medians of processor time, which other work
on the machine does not lengthen as it does the wall's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from lightning_mono.bench.timing import Contestant, interleaved
from lightning_mono.model import MonoModel
from lightning_mono.model.few_bits import round_to_answer
from lightning_mono.testing import tiny_config

SHAPE = {"hidden_size": 2048, "ffn_size": 8192, "heads": 16, "kv_heads": 8, "head_dim": 128}
PROMPT = 64
KINDS = (
    ("fp32", torch.float32, None),
    ("nf4 in fp32", torch.float32, "nf4"),
    ("int8 in fp32", torch.float32, "int8"),
    ("bf16", torch.bfloat16, None),
    ("nf4 in bf16", torch.bfloat16, "nf4"),
    ("int8 in bf16", torch.bfloat16, "int8"),
)


class ProcessorClock:
    def mark(self) -> float:
        return time.process_time()

    def seconds(self, start: float, end: float) -> float:
        return end - start


def build(dtype: torch.dtype, scheme: str | None) -> MonoModel:
    config = tiny_config(layers=2, vocab_size=1024, max_positions=2048, **SHAPE)
    model = MonoModel(type(config)(config.decoder)).eval().to(dtype)
    if scheme is not None:
        round_to_answer(model, scheme)
    return model


def layer_megabytes(model: MonoModel) -> float:
    held = (*model.layers.parameters(), *model.layers.buffers())
    return sum(tensor.nbytes for tensor in held) / 1e6


def prompt(rows: int, tokens: int) -> torch.Tensor:
    return torch.randint(8, 1024, (rows, tokens), generator=torch.Generator().manual_seed(0))


def reading(model: MonoModel, tokens: int) -> Callable[[], object]:
    """A prompt of one row, read by a new session."""
    ids = prompt(1, tokens)
    return lambda: model.session().read(ids)


def stepping(model: MonoModel, rows: int, steps: int) -> Callable[[], object]:
    """One more token of each row, at every call."""
    answer = model.session(rows).stream(prompt(rows, PROMPT), max_new_tokens=steps)
    next(answer)
    return lambda: next(answer)


def medians(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds by contestant."""
    contestants = {
        name: Contestant(lambda: None, call, lambda _: None) for name, call in work.items()
    }
    taken = interleaved(contestants, rounds, ProcessorClock())
    return {name: 1e3 * median(each.forward for each in taken[name]) for name in work}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    models = {name: build(dtype, scheme) for name, dtype, scheme in KINDS}
    columns = {"MB": {name: layer_megabytes(model) for name, model in models.items()}}
    for rows in (1, 4, 8, 16, 32):
        work = {name: stepping(model, rows, rounds + 4) for name, model in models.items()}
        columns[f"{rows} rows"] = medians(work, rounds)
    work = {name: reading(model, 256) for name, model in models.items()}
    columns["prompt of 256"] = medians(work, max(rounds // 3, 3))
    print("|", " | ".join(["weights", *columns]), "|")
    for name in models:
        cells = (f"{column[name]:.1f}" for column in columns.values())
        print("|", " | ".join([name, *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
