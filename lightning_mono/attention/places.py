"""What each token of a prompt is: a word of the system message, a square of a picture, a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lightning_mono.data.images import ImageProcessor
from lightning_mono.model.config import PatchifierConfig

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the original picture."""


@dataclass(frozen=True)
class Segment:
    """A run of tokens of one kind.

    Attributes:
        kind: ``system``, ``image``, ``question`` or ``answer``.
        start, stop: its columns, the last one exclusive.
    """

    kind: str
    start: int
    stop: int


@dataclass(frozen=True)
class Heat:
    """A row of attention by place in one picture.

    Attributes:
        tiles: (rows of tiles x grid, columns of tiles x grid) fp32: the picture's own tiles, put
            back together.
        thumbnail: (grid, grid) fp32, or None where the picture has none.
        whole: as ``tiles``, with the thumbnail's weights spread evenly over what they stand for.
            Its sum is the sum of both.
    """

    tiles: NDArray[np.float32]
    thumbnail: NDArray[np.float32] | None
    whole: NDArray[np.float32]


@dataclass(frozen=True)
class Mosaic:
    """How the visual tokens of one picture lie over it.

    A picture is stretched to a grid of tiles, and again to one tile for the thumbnail, so a token
    stands for a rectangle of the original that is square only where the aspect ratios agree.

    Attributes:
        width, height: of the original, in pixels.
        columns, rows: of tiles.
        thumbnail: whether a tile of the whole picture follows.
        grid: tokens along one side of a tile.
        by_column: tokens of a tile stand column by column (pixel shuffle v1).
    """

    width: int
    height: int
    columns: int
    rows: int
    thumbnail: bool
    grid: int
    by_column: bool = False

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        processor: ImageProcessor,
        patchifier: PatchifierConfig,
        images: int = 1,
    ) -> Mosaic:
        """Of a picture of this size, (width, height), that shares a turn with ``images`` - 1."""
        columns, rows = processor.grid(*size, images)
        thumbnail = processor.tile_count(*size, images) > columns * rows
        return cls(*size, columns, rows, thumbnail, patchifier.grid, patchifier.by_column)

    @property
    def tiles(self) -> int:
        """Tiles, the thumbnail included."""
        return self.columns * self.rows + self.thumbnail

    @property
    def tokens(self) -> int:
        return self.tiles * self.grid**2

    def box(self, token: int) -> Box:
        """The rectangle of the original picture that a token stands for.

        Args:
            token: its number among the picture's visual tokens, from 0.

        Raises:
            IndexError: the picture has no such token.
        """
        if not 0 <= token < self.tokens:
            raise IndexError(f"token {token} is none of the picture's {self.tokens}")
        tile, cell = divmod(token, self.grid**2)
        row, column = divmod(cell, self.grid)
        if self.by_column:
            row, column = column, row
        across, down = self.grid, self.grid
        if tile < self.columns * self.rows:
            row += tile // self.columns * self.grid
            column += tile % self.columns * self.grid
            across, down = self.columns * self.grid, self.rows * self.grid
        wide, high = self.width / across, self.height / down
        return (column * wide, row * high, (column + 1) * wide, (row + 1) * high)

    def heat(self, weights: NDArray[np.float32]) -> Heat:
        """Lays the weights of the picture's tokens, (tokens,), where they belong."""
        if weights.shape != (self.tokens,):
            raise ValueError(f"weights of {self.tokens} tokens are needed, got {weights.shape}")
        cells = weights.astype(np.float32).reshape(self.tiles, self.grid, self.grid)
        if self.by_column:
            cells = cells.swapaxes(1, 2)
        own = self.columns * self.rows
        apart = cells[:own].reshape(self.rows, self.columns, self.grid, self.grid)
        tiles = apart.swapaxes(1, 2).reshape(self.rows * self.grid, self.columns * self.grid)
        if not self.thumbnail:
            return Heat(tiles, None, tiles)
        spread = np.kron(cells[own], np.full((self.rows, self.columns), 1 / own, np.float32))
        return Heat(tiles, cells[own], tiles + spread)


def segments(
    kinds: Sequence[str],
) -> list[Segment]:
    """Runs of equal kinds, one a token, as segments."""
    edges = [0, *(i for i in range(1, len(kinds)) if kinds[i] != kinds[i - 1]), len(kinds)]
    return [Segment(kinds[a], a, b) for a, b in pairwise(edges) if a < b]
