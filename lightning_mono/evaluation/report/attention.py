"""Where in a picture a model reads while it answers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_mono.attention.paint import blend, enlarged, gray_pixels
from lightning_mono.errors import DataError


@dataclass(frozen=True)
class AttentionPicture:
    """The attention of one answer on the visual tokens of one picture, in every layer.

    Attributes:
        image: the encoded picture.
        question: what was asked.
        answer: what the model said.
        weights: float32 (layers, rows, columns): the attention that the position which predicts the
            first token of the answer pays to each visual token, averaged over heads. A layer's sum
            is the share of its attention that goes to the picture, at most 1.
        layer: the layer to show large, from 0; the one that looks at the picture most if None.
    """

    image: bytes
    question: str
    answer: str
    weights: NDArray[np.float32]
    layer: int | None = None

    @classmethod
    def from_attentions(
        cls,
        attentions: Sequence[NDArray[np.float32]],
        visual: NDArray[np.bool_],
        grid: tuple[int, int],
        *,
        image: bytes,
        question: str,
        answer: str,
    ) -> AttentionPicture:
        """Take the weights out of a model's attention for a prompt with one picture.

        Args:
            attentions: one a layer, (heads, tokens, tokens), each row a distribution. The last row
                is the position that predicts the answer.
            visual: (tokens,), true at the visual tokens, which stand in row-major order.
            grid: rows and columns of visual tokens.
            image: the encoded picture.
            question: what was asked.
            answer: what the model said.
        """
        weights = np.stack([layer[:, -1, visual].mean(0).reshape(grid) for layer in attentions])
        return cls(image, question, answer, weights.astype(np.float32))

    @property
    def shown_layer(self) -> int:
        """The layer to show large."""
        return int(self.shares.argmax()) if self.layer is None else self.layer

    @property
    def shares(self) -> NDArray[np.float32]:
        """The share of each layer's attention that goes to the picture, (layers,)."""
        return self.weights.sum((1, 2))

    def save(self, path: Path) -> None:
        """Write to an .npz file."""
        np.savez_compressed(
            path,
            image=np.frombuffer(self.image, np.uint8),
            question=np.array(self.question),
            answer=np.array(self.answer),
            weights=self.weights,
            layer=np.array(-1 if self.layer is None else self.layer),
        )

    @classmethod
    def load(cls, path: Path) -> AttentionPicture:
        """Read what `save` wrote.

        Raises:
            DataError: the file is something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                layer = int(file["layer"])
                return cls(
                    image=file["image"].tobytes(),
                    question=str(file["question"]),
                    answer=str(file["answer"]),
                    weights=file["weights"],
                    layer=None if layer < 0 else layer,
                )
        except (KeyError, OSError, ValueError) as error:
            raise DataError(f"{path}: not an attention picture; evaluate the run again") from error


def overlay(picture: AttentionPicture, layer: int, side: int) -> Image.Image:
    """Lay a layer's attention over the picture: dark where it looks little, bright where much.

    Each visual token is a cell of one colour. Brightness is relative to the cell that gets most.

    Args:
        picture: the attention.
        layer: from 0.
        side: the longer side of the result, pixels.
    """
    with Image.open(io.BytesIO(picture.image)) as image:
        base = image.convert("RGB")
    scale = side / max(base.size)
    size = (max(round(base.width * scale), 1), max(round(base.height * scale), 1))
    enlarge = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    gray = gray_pixels(base.resize(size, enlarge))
    weights = picture.weights[layer]
    relative = weights / max(float(weights.max()), 1e-12)
    return Image.fromarray(blend(gray, enlarged(relative, size[1], size[0])))
