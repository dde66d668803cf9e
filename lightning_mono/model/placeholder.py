"""Which id stands for image tokens, where a checkpoint does not say: the one the tiles fit."""

from __future__ import annotations

import torch
from torch import Tensor


def placeholder_id(input_ids: Tensor, real: Tensor, wanted: int, a_tile: int) -> int:
    """The id that occurs once for every visual token, in whole tiles.

    The published config.json does not name the placeholder; the tokenizer does, and a folder of
    weights alone has none. The batch itself then leaves no choice, or is refused.

    Args:
        input_ids: (batch, tokens) int64.
        real: (batch, tokens) bool; False marks padding.
        wanted: visual tokens that the batch's tiles make.
        a_tile: visual tokens of one tile.

    Raises:
        ValueError: no id fits, or more than one.
    """
    ids, counts = input_ids[real].unique(return_counts=True)
    fitting = [id for id in ids[counts == wanted].tolist() if _in_tiles(input_ids == id, a_tile)]
    if len(fitting) != 1:
        raise ValueError(
            "the id of the image placeholder is not known, and "
            f"{len(fitting) or 'no'} ids occur {wanted} times in runs of {a_tile}: "
            "name it in config.json as img_context_token_id, or put the tokenizer in the folder"
        )
    return int(fitting[0])


def _in_tiles(mask: Tensor, a_tile: int) -> bool:
    """Whether every run of True in each row is as long as some number of tiles."""
    padded = torch.nn.functional.pad(mask.int(), (1, 1))
    edges = padded.diff(dim=1)
    starts, ends = (edges == 1).nonzero()[:, 1], (edges == -1).nonzero()[:, 1]
    return bool(((ends - starts) % a_tile == 0).all())
