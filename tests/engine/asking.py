"""Requests for the tiny model, and what it says to each alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lightning_mono.engine import Engine, Request
from lightning_mono.model import MonoModel
from lightning_mono.testing import IMAGE

TILE = [IMAGE] * 4


def request(ids: list[int], *, seed: int = 0, **changes: Any) -> Request:
    """A request with random tiles for its image tokens."""
    tiles = np.random.default_rng(seed).standard_normal((ids.count(IMAGE) // 4, 3, 16, 16))
    settings = {"max_new_tokens": 5, "seed": seed, **changes}
    return Request(np.array(ids), tiles.astype(np.float32), **settings)


def alone(model: MonoModel, request: Request) -> list[int]:
    """What a session of its own says to a request."""
    sampling, tiles = request.sampling, request.pixel_values
    steps = model.session().stream(
        torch.from_numpy(request.input_ids)[None],
        None if tiles is None or not len(tiles) else torch.from_numpy(tiles),
        max_new_tokens=request.max_new_tokens,
        stop_ids=request.stop_ids,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        repetition_penalty=sampling.repetition_penalty,
        seed=request.seed,
    )
    return [int(step[0]) for step in steps]


def drive(engine: Engine) -> None:
    """Works until nothing is left to do."""
    while engine.step():
        pass
