"""Requests in their slots: what is known of each, and which id comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mono.engine.ticket import Ticket
from lightning_mono.model.sampling import Sampling


@dataclass(eq=False)
class Row:
    """A request that has a slot.

    Attributes:
        ticket: the answer as it grows.
        keys: of each piece of its prompt, for the prefix cache; none where that is off.
        length: tokens whose keys and values are in the slot.
        piece: which piece of the prompt is read next.
        generator: what its sampling draws from; None for greedy ones.
        seen: ids that its repetition penalty counts, (1, vocabulary) bool; None where it has none.
    """

    ticket: Ticket
    keys: list[bytes]
    length: int = 0
    piece: int = 0
    generator: torch.Generator | None = None
    seen: Tensor | None = None

    @classmethod
    def open(cls, ticket: Ticket, keys: list[bytes], vocabulary: int, device: torch.device) -> Row:
        """A row of which nothing is read."""
        row, request = cls(ticket, keys), ticket.request
        if not request.sampling.greedy:
            row.generator = torch.Generator(device)
            if request.seed is None:
                row.generator.seed()
            else:
                row.generator.manual_seed(request.seed)
        if request.sampling.repetition_penalty != 1.0:
            words = torch.from_numpy(ticket.prompt.ids[~ticket.prompt.visual]).to(device)
            row.seen = torch.zeros(1, vocabulary, dtype=torch.bool, device=device)
            row.seen[0, words] = True
        return row

    @property
    def plain(self) -> bool:
        """Takes the most likely id, whatever was seen."""
        return self.generator is None and self.seen is None


def pick(logits: Tensor, rows: list[Row]) -> Tensor:
    """Chooses the next id of each row, by its own settings: (rows,) int64.

    Where logits are not finite it is -1: what the caller reads anyway says so.

    Args:
        logits: (rows, vocabulary) fp32.
    """
    ids = logits.argmax(-1)
    finite = logits.gather(1, ids[:, None])[:, 0].isfinite()
    others: dict[Sampling, list[int]] = {}
    for at, row in enumerate(rows):
        if not row.plain:
            others.setdefault(row.ticket.request.sampling, []).append(at)
    if others:
        logits = logits.where(finite[:, None], 0.0)  # drawing from NaN would end the process
    for sampling, places in others.items():
        some = [rows[at] for at in places]
        picked = _pick_alike(logits if len(places) == len(rows) else logits[places], sampling, some)
        for at, row, id in zip(places, some, picked, strict=True):
            ids[at] = id
            if row.seen is not None:
                row.seen.scatter_(1, id.view(1, 1), True)
    return ids.where(finite, -1)


def _pick_alike(logits: Tensor, sampling: Sampling, rows: list[Row]) -> Sequence[Tensor]:
    """An id for each of some rows that choose alike; all but the draws is done at once."""
    seen = [row.seen for row in rows if row.seen is not None]
    counted = torch.cat(seen) if seen else None
    if sampling.greedy:
        return sampling.pick(logits, counted, None).unbind()
    chances = sampling.chances(logits, counted)
    draws = zip(chances, rows, strict=True)
    return [torch.multinomial(chance, 1, generator=row.generator)[0] for chance, row in draws]
