"""What the model is asked: prompts of text and images, of given lengths."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_mono.errors import UserError
from lightning_mono.model import MonoConfig


@dataclass(frozen=True)
class Prompt:
    """Rows of one image, cut into tiles, with text before and behind it.

    Attributes:
        tokens: of a row.
        text: of these, not visual.
        batch: rows.
    """

    tokens: int
    text: int
    batch: int = 1

    @property
    def visual(self) -> int:
        return self.tokens - self.text

    @property
    def front(self) -> int:
        """Text before the image; a quarter, as system message and template are."""
        return self.text // 4

    def tiles(self, config: MonoConfig) -> int:
        """Of a row."""
        assert config.patchifier is not None
        return self.visual // config.patchifier.tokens_per_tile

    def shortest(self, config: MonoConfig) -> Prompt:
        """The same with one tile."""
        assert config.patchifier is not None
        return replace(self, tokens=config.patchifier.tokens_per_tile + self.text)

    def check(self, config: MonoConfig) -> None:
        """Refuses what no whole number of tiles makes.

        Raises:
            UserError: so, or no text is left to predict from.
        """
        assert config.patchifier is not None
        a_tile = config.patchifier.tokens_per_tile
        tiles = max(self.visual // a_tile, 1)
        if self.text < 2 or self.visual < a_tile or self.visual % a_tile:
            raise UserError(
                f"{self.tokens:,} tokens of which {self.text:,} are text: the rest has to be tiles "
                f"of {a_tile:,} tokens; {tiles * a_tile + max(self.text, 2):,} would do"
            )

    def inputs(self, config: MonoConfig) -> tuple[Tensor, Tensor]:
        """Random ids (batch, tokens) and tiles (batch * tiles, 3, size, size), on the CPU."""
        assert config.patchifier is not None
        assert config.image_context_id is not None
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch, self.tokens)
        ids = torch.randint(0, config.image_context_id, shape, generator=generator)
        ids[:, self.front : self.front + self.visual] = config.image_context_id
        tiles, size = self.batch * self.tiles(config), config.patchifier.image_size
        return ids, torch.randn(tiles, 3, size, size, generator=generator)
