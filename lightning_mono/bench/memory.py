"""The peak memory of a contestant: one turn in a process of its own, apart from all timing.

On a GPU it is what PyTorch has allocated at most. On a CPU it is the highest resident size during
the turn, less what was there before it and the pages of files, with an allocator that gives freed
blocks back (:data:`lightning_mono.plan.measure.GIVING_BACK`).

    python -m lightning_mono.bench.memory SPEC      # JSON, as :class:`Turn` has it
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from lightning_mono.errors import UserError
from lightning_mono.plan.measure import GIVING_BACK, resident


@dataclass(frozen=True)
class Peak:
    """Bytes.

    Attributes:
        weights: of the model.
        beside: what a turn takes beside them at most: activations, cache, gradients. AdamW's
            moments, which stand between turns, are in neither.
    """

    weights: int
    beside: int


@dataclass(frozen=True)
class Turn:
    """All that a process has to know to run one turn of one contestant."""

    kind: str
    contestant: str
    recipe: str
    overrides: tuple[str, ...]
    layers: int
    device: str
    dtype: str
    threads: int
    prompt: dict[str, int]
    settings: dict[str, int]


def peak_of(turn: Turn) -> Peak:
    """Runs a turn in a new process.

    Raises:
        UserError: it failed there.
    """
    command = [sys.executable, "-m", __name__, json.dumps(asdict(turn))]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **GIVING_BACK}
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it was killed: out of memory?"]
        raise UserError(f"the memory of {turn.contestant} cannot be measured: {said[-1]}")
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def _run(turn: Turn) -> Peak:
    import torch

    from lightning_mono.bench.kinds import KINDS
    from lightning_mono.bench.prompts import Prompt
    from lightning_mono.bench.subject import Subject

    torch.set_num_threads(turn.threads)
    device, dtype = torch.device(turn.device), getattr(torch, turn.dtype)
    subject = Subject.of(turn.recipe, turn.overrides, turn.layers, device, dtype)
    kind = KINDS[turn.kind](subject, **turn.settings)
    prompt = Prompt(**turn.prompt)
    weights = kind.weights(turn.contestant)
    # A turn before: libraries load what they need, and AdamW gets its moments.
    before_it = kind.line_up(prompt.shortest(subject.config), [turn.contestant])[turn.contestant]
    before_it.backward(before_it.forward())
    contestant = kind.line_up(prompt, [turn.contestant])[turn.contestant]
    contestant.reset()
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = resident("RssAnon")
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    contestant.backward(contestant.forward())
    if on_gpu:
        return Peak(weights, torch.cuda.max_memory_allocated() - before)
    return Peak(weights, resident("VmHWM") - resident("RssFile") - before)


if __name__ == "__main__":
    try:
        print(json.dumps(asdict(_run(Turn(**json.loads(sys.argv[1]))))))
    except UserError as error:
        sys.exit(str(error))
