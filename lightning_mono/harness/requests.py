"""What both harnesses ask of a model: to score continuations of contexts, and to continue them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_mono.errors import UserError
from lightning_mono.inference import Assistant
from lightning_mono.model import MonoModel

POSITIONS = 256
"""Positions whose logits are taken at once."""

IGNORED = {"use_cache", "image_aspect_ratio", "pad_token_id", "eos_token_id"}
"""Keys of tasks that are about other models' generation; they change nothing here."""


class HarnessError(UserError):
    """A request that our models cannot serve."""


@dataclass(frozen=True, eq=False)
class Scoring:
    """A continuation to be scored.

    Attributes:
        context: ids before it, one at least.
        continuation: its ids, one at least.
        tiles: of the pictures in the context, (tiles, 3, size, size) fp32, or None.
    """

    context: list[int]
    continuation: list[int]
    tiles: Tensor | None = None


@dataclass(frozen=True)
class Decoding:
    """How a context is continued.

    Attributes:
        until: strings that end a continuation, which does not hold them.
        max_new_tokens: at most so many.
        sampling: temperature, top_p, top_k, repetition_penalty of ``MonoModel.generate``.
    """

    until: tuple[str, ...]
    max_new_tokens: int
    sampling: Mapping[str, Any]

    @classmethod
    def of(cls, asked: Mapping[str, Any], max_new_tokens: int = 256) -> Decoding:
        """From a task's generation settings, in any of the spellings that tasks use.

        Words are drawn only where ``do_sample`` is set and the temperature is above 0.

        Raises:
            HarnessError: a setting that is not supported.
        """
        left = {key: value for key, value in asked.items() if value is not None}
        until = left.pop("until", [])
        for key in ("max_length", "max_completion_tokens", "max_tokens", "max_new_tokens"):
            max_new_tokens = int(left.pop(key, max_new_tokens))
        max_new_tokens = int(left.pop("max_gen_toks", max_new_tokens))
        if left.pop("num_beams", 1) != 1:
            raise HarnessError("num_beams: beam search is not supported; set it to 1")
        draws, warmth = left.pop("do_sample", False), float(left.pop("temperature", 1.0))
        sampling = {"temperature": warmth if draws else 0.0}
        for key in ("top_p", "top_k", "repetition_penalty"):
            if key in left:
                sampling[key] = left.pop(key)
        unknown = sorted(left.keys() - IGNORED)
        if unknown:
            raise HarnessError(f"generation_kwargs: {', '.join(unknown)} not supported; remove it")
        words = (until,) if isinstance(until, str) else tuple(until)
        return cls(tuple(word for word in words if word), max_new_tokens, sampling)


@torch.inference_mode()
def scores(model: MonoModel, rows: Sequence[Scoring]) -> list[tuple[float, bool]]:
    """Log-likelihoods of continuations, in one batch.

    Padding stands behind, where no token sees it; logits are taken where they are needed only.

    Returns:
        For each row the sum over its continuation, in nats; and whether greedy decoding says it.
    """
    read = [[*row.context, *row.continuation][:-1] for row in rows]
    longest = max(map(len, read))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in read], device=model.device)
    tiles = [row.tiles.to(model.device) for row in rows if row.tiles is not None]
    real = None
    if tiles:  # else padding behind needs no mask
        real = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in read]).to(ids)
    batch = model.batch(ids, torch.cat(tiles) if tiles else None, real)
    hidden = model.hidden(batch)  # (rows, longest, hidden)
    found = []
    for number, row in enumerate(rows):
        start = len(row.context) - 1
        states = hidden[number, start : start + len(row.continuation)]
        found.append(_score(model, states, torch.tensor(row.continuation, device=ids.device)))
    return found


def _score(model: MonoModel, states: Tensor, said: Tensor) -> tuple[float, bool]:
    total, greedy = 0.0, True
    for some, ids in zip(states.split(POSITIONS), said.split(POSITIONS), strict=True):
        logits = model.logits(some).float()
        chosen = logits.log_softmax(-1).gather(1, ids[:, None])
        total += float(chosen.double().sum())
        greedy = greedy and torch.equal(logits.argmax(-1), ids)
    return total, greedy


def cut(text: str, until: Sequence[str]) -> str:
    """A text before the first of some strings."""
    return text[: min((at for word in until if (at := text.find(word)) >= 0), default=len(text))]


def whole_number(name: str, value: int | str) -> int:
    """A number that a harness hands on as text.

    Raises:
        HarnessError: it is none, or below 1.
    """
    if not str(value).isdecimal() or int(value) < 1:
        raise HarnessError(f"{name}: {value!r} must be a whole number of 1 or more")
    return int(value)


def open_assistant(pretrained: str, device: str | None, dtype: str | None) -> Assistant:
    """A model as a harness names it. A GPU where there is none is the CPU: they ask unasked.

    Raises:
        UserError: the model cannot be had, or the dtype is neither float32 nor bfloat16.
    """
    if dtype not in (None, "float32", "bfloat16"):
        raise HarnessError(f"dtype: {dtype!r} is none of float32, bfloat16")
    weights = None if dtype is None else getattr(torch, dtype)
    if (device or "").startswith("cuda") and not torch.cuda.is_available():
        device = None
    return Assistant.from_pretrained(pretrained, device=device, dtype=weights)
