"""Continuing prompts, once: a session of one turn, with just the room that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_mono.model.session import Session

if TYPE_CHECKING:
    from lightning_mono.model.mono import MonoModel


def generate(model: MonoModel, input_ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Continues every row of a batch; takes what :meth:`Session.stream` takes.

    Returns:
        (batch, new) int64, new ids only, new <= max_new_tokens.
    """
    return Session(model, len(input_ids)).generate(input_ids, *args, **kwargs)


def stream(model: MonoModel, input_ids: Tensor, *args: Any, **kwargs: Any) -> Iterator[Tensor]:
    """Yields one id a row, (batch,) int64, until all rows stopped; see :meth:`Session.stream`."""
    return Session(model, len(input_ids)).stream(input_ids, *args, **kwargs)
