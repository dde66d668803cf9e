"""What a model's attention comes to in numbers, layer by layer and head by head.

Every measure is a sum over queries divided by another, so that parts of a batch, and the devices of
a run, can be added up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mono.attention.capture import row_blocks
from lightning_mono.model import Batch, PatchifierConfig
from lightning_mono.model.attention import attention_weights
from lightning_mono.model.mask import batch_mask


@dataclass(frozen=True)
class Measure:
    """What a measure is called and what it is in; ``share`` runs from 0 to 1."""

    title: str
    unit: str


MEASURES: Mapping[str, Measure] = {
    "image_share": Measure("answers to image", "share"),
    "text_to_image": Measure("text to image", "share"),
    "image_to_image": Measure("image to image", "share"),
    "patch_distance": Measure("distance within a tile", "patches"),
    "own_row": Measure("within a row of patches", "share"),
    "entropy": Measure("entropy", "nats"),
    "sink": Measure("on the first token", "share"),
}
"""Measures by name.

With a(i, j) the weight that query i gives to key j:

- ``image_share``: the sum of a(i, j) over visual j, averaged over the i that predict a supervised
  token and see an image. The field's early sign of whether answers look.
- ``text_to_image``: the same, averaged over all text i that see an image.
- ``image_to_image``: the same, averaged over visual i.
- ``patch_distance``: the mean Euclidean distance between i and j in visual tokens, over visual i
  and all j of i's own tile, weighted with a(i, j). Near 0: a token looks at itself; half of the
  grid's side: anywhere. Shallow layers look at neighbours (Mono-InternVL, figure 5).
- ``own_row``: of the same weights, the share on tokens of i's own row of the tile.
- ``entropy``: minus the sum of a(i, j) ln a(i, j), averaged over all i but padding: 0 for one key,
  ln n for n keys alike.
- ``sink``: a(i, first token of i's document), averaged over all i but that token and padding
  (attention sinks: Xiao et al. 2024).
"""


@dataclass(frozen=True)
class Ground:
    """What the measures have to know of a batch's tokens; all are (batch, tokens).

    Attributes:
        real: bool, False for padding.
        visual: bool.
        sees: bool, an image can be looked at from there.
        answers: bool, it predicts a supervised token and sees an image.
        tile: int64, the number of a visual token's tile in the batch; -1 for text.
        row, column: fp32, of a visual token in its tile; 0 for text.
        first: int64, column of the first token of the token's document; its own for padding.
    """

    real: Tensor
    visual: Tensor
    sees: Tensor
    answers: Tensor
    tile: Tensor
    row: Tensor
    column: Tensor
    first: Tensor

    @classmethod
    def of(cls, batch: Batch, patchifier: PatchifierConfig) -> Ground:
        """Reads a batch; of tiles, all are taken to be of the configuration's size."""
        visual = batch.layout.mask
        shape, device = visual.shape, visual.device
        number = torch.arange(batch.layout.visual.count, device=device)
        cell = number % patchifier.tokens_per_tile
        row, column = cell // patchifier.grid, cell % patchifier.grid
        if patchifier.by_column:
            row, column = column, row
        tile = torch.full(shape, -1, device=device)
        tile[visual] = number // patchifier.tokens_per_tile
        places = torch.zeros(2, *shape, device=device)
        places[0][visual], places[1][visual] = row.float(), column.float()
        predicts = torch.zeros(visual.numel(), dtype=torch.bool, device=device)
        predicts[batch.predict] = True
        sees = _sees(batch)
        answers = predicts.view(shape) & sees
        real = batch.documents != 0
        return cls(real, visual, sees, answers, tile, places[0], places[1], _first(batch))


class Measures:
    """Adds up the :data:`MEASURES` of a pass; hand it on as ``watch``.

    Weights are never there for more than a block of rows. A model may be read through it several
    times, a batch each: figures are over all of them.

    Args:
        ground: of the batch that is read.
    """

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._sums: dict[int, Tensor] = {}

    @torch.no_grad()
    def __call__(self, layer: int, q: Tensor, k: Tensor, mask: Tensor | None) -> None:
        if q.shape[2] != k.shape[2]:
            raise ValueError("measures need the whole batch in one pass")
        total = torch.zeros(len(MEASURES), 2, q.shape[1], device=q.device, dtype=torch.float64)
        for rows in row_blocks(torch.arange(q.shape[2], device=q.device), q, k):
            weights = attention_weights(q, k, mask, rows)
            for at, parts in enumerate(measured(weights, rows, self.ground).values()):
                total[at] += torch.stack([part.double().sum((0, 2)) for part in parts])
        self._sums[layer] = total

    @property
    def sums(self) -> Tensor:
        """(layers, measures, 2, heads) fp64: what is divided, and by what."""
        return torch.stack([self._sums[layer] for layer in sorted(self._sums)])

    @property
    def by_head(self) -> dict[str, Tensor]:
        """Each measure, (layers, heads) fp64; NaN where no query counts."""
        sums = self.sums
        return dict(zip(MEASURES, (sums[:, :, 0] / sums[:, :, 1]).unbind(1), strict=True))

    @property
    def by_layer(self) -> dict[str, Tensor]:
        """Each measure over all heads, (layers,) fp64; NaN where no query counts."""
        return quotients(self.sums.sum(-1))


def quotients(sums: Tensor) -> dict[str, Tensor]:
    """(layers, measures, 2) of what is divided and by what -> each measure, (layers,)."""
    return dict(zip(MEASURES, (sums[..., 0] / sums[..., 1]).unbind(1), strict=True))


def measured(weights: Tensor, rows: Tensor, ground: Ground) -> dict[str, tuple[Tensor, Tensor]]:
    """What each row adds to the :data:`MEASURES`.

    Args:
        weights: (batch, heads, rows, keys) fp32.
        rows: columns of the queries, (rows,) int64.
        ground: of the batch.

    Returns:
        By measure, what is added above and below the line, (batch, heads, rows) each.
    """
    real, visual = ground.real[:, rows], ground.visual[:, rows]
    on_images = torch.einsum("bhnk,bk->bhn", weights, ground.visual.float())
    across = ground.column[:, rows, None] - ground.column[:, None, :]
    down = ground.row[:, rows, None] - ground.row[:, None, :]
    tile = ground.tile[:, rows, None]
    together = ((tile == ground.tile[:, None, :]) & (tile >= 0)).float()
    distance = (across.square() + down.square()).sqrt() * together
    inside, far, level = (
        torch.einsum("bhnk,bnk->bhn", weights, of)
        for of in (together, distance, together * (down == 0))
    )
    first = ground.first[:, rows]
    index = first[:, None, :, None].expand(-1, weights.shape[1], -1, 1)
    sink = weights.gather(3, index)[..., 0]
    behind = real & (first != rows)

    def mean(values: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        counts = counted[:, None].expand_as(values).to(values)
        return values * counts, counts

    return {
        "image_share": mean(on_images, ground.answers[:, rows]),
        "text_to_image": mean(on_images, ~visual & real & ground.sees[:, rows]),
        "image_to_image": mean(on_images, visual & real),
        "patch_distance": (far, inside),
        "own_row": (level, inside),
        "entropy": mean(torch.special.entr(weights).sum(-1), real),
        "sink": mean(sink, behind),
    }


def _sees(batch: Batch) -> Tensor:
    """From which positions an image token can be looked at: (batch, tokens) bool."""
    mask = batch_mask(batch)
    if mask is None:
        return batch.layout.mask.cumsum(1) > 0
    return (mask[:, 0] & batch.layout.mask[:, None, :]).any(-1)


def _first(batch: Batch) -> Tensor:
    """The column of the first token of each token's document; its own for padding."""
    documents = batch.documents
    column = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    count = int(documents.max()) + 1
    first = torch.full((len(documents), count), documents.shape[1], device=documents.device)
    first.scatter_reduce_(1, documents.long(), column, "amin")
    return first.gather(1, documents.long()).where(documents != 0, column)
