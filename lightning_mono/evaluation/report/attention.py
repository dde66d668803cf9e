"""Where in a picture a model reads while it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lightning_mono.attention.capture import Capture
from lightning_mono.attention.paint import blend, enlarged, gray_pixels
from lightning_mono.attention.places import Mosaic
from lightning_mono.data.images import decode
from lightning_mono.errors import DataError
from lightning_mono.inference import Assistant


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
    @torch.inference_mode()
    def of(cls, assistant: Assistant, image: bytes, question: str, answer: str) -> AttentionPicture:
        """Look at a picture once more, and keep where the position looks that predicts the answer.

        Args:
            assistant: the model that answered.
            image: the encoded picture.
            question: what was asked.
            answer: what the model said.

        Raises:
            ValueError: the model takes no pictures.
        """
        model, renderer = assistant.model, assistant.renderer
        if renderer.images is None or model.config.patchifier is None:
            raise ValueError("a model that takes no pictures has no attention on them")
        prompt = renderer.prompt(question, [image])
        inputs = assistant.inputs([prompt])
        batch = model.batch(inputs["input_ids"], inputs["pixel_values"])
        last = len(prompt.input_ids) - 1
        capture = Capture(model.config.decoder, rows=[last], mean=True)
        model.hidden(batch, watch=capture)
        size = decode(image, "of the attention map").size
        mosaic = Mosaic.of(size, renderer.images, model.config.patchifier)
        visual = batch.layout.mask[0].cpu().numpy()
        rows = [capture.weights(layer)[0, 0, 0].numpy() for layer in capture.layers]
        weights = np.stack([mosaic.heat(row[visual]).whole for row in rows])
        return cls(image, question, answer, weights)

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
    base = decode(picture.image, "of the attention map")
    scale = side / max(base.size)
    size = (max(round(base.width * scale), 1), max(round(base.height * scale), 1))
    enlarge = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    gray = gray_pixels(base.resize(size, enlarge))
    weights = picture.weights[layer]
    relative = weights / max(float(weights.max()), 1e-12)
    return Image.fromarray(blend(gray, enlarged(relative, size[1], size[0])))
