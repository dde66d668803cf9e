"""One question, its answer, and all that the model looked at meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lightning_mono.attention.capture import Capture, both
from lightning_mono.attention.measures import Ground, Measures
from lightning_mono.attention.places import Heat, Mosaic, Segment, segments
from lightning_mono.attention.rollout import Rollout
from lightning_mono.data.images import decode
from lightning_mono.inference import Assistant, Picture
from lightning_mono.model.batch import Batch
from lightning_mono.model.wanted import Wanted

CELL = "▪"
"""How the token of a piece of a picture is written."""

Row = NDArray[np.float32]
"""A row of attention, (columns,): what one position gives to each that it sees."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture of the prompt.

    Attributes:
        image: the original, upright RGB.
        mosaic: how its tokens lie over it.
        start: column of its first visual token; the others follow.
    """

    image: Image.Image
    mosaic: Mosaic
    start: int

    def heat(self, row: Row) -> Heat:
        """What of a row of attention falls on this picture, laid over it."""
        return self.mosaic.heat(row[self.start : self.start + self.mosaic.tokens])


@dataclass(frozen=True, eq=False)
class Look:
    """What a model attended to while it answered.

    Columns are the prompt's tokens and the answer's, but for the answer's last: the model never
    read it. The row of column i is the attention of the position that predicts token i + 1.

    Attributes:
        tokens: the text of each column.
        said: the text of each token of the answer, what ended it included.
        answer: the text of all of them, without what ended it.
        segments: what the columns are.
        pictures: those of the prompt.
        prompt: columns of the prompt.
        heads: by layer, (heads, tokens said, columns) fp32: the rows that predicted the answer.
        maps: by layer, (columns, columns) fp32, averaged over heads.
        rollout: (columns, columns) fp32 through all layers; see :class:`Rollout`.
        measures: by name, (layers, heads); see :data:`MEASURES`. The answer's tokens are what is
            supervised.
    """

    tokens: list[str]
    said: list[str]
    answer: str
    segments: list[Segment]
    pictures: list[Seen]
    prompt: int
    heads: dict[int, NDArray[np.float32]]
    maps: dict[int, NDArray[np.float32]]
    rollout: NDArray[np.float32]
    measures: dict[str, NDArray[np.float64]]

    @property
    def layers(self) -> list[int]:
        """Those that were captured."""
        return list(self.maps)

    def row(self, layer: int, token: int, head: int | None = None) -> Row:
        """The attention that predicted a token of the answer, (columns,).

        Args:
            layer: one of :attr:`layers`.
            token: of the answer, from 0.
            head: from 0; by default the average over all.
        """
        rows = self.heads[layer][:, token]
        return rows.mean(0) if head is None else rows[head]

    def image_share(self, row: Row) -> float:
        """How much of a row falls on pictures, 0 to 1."""
        return float(sum(seen.heat(row).whole.sum() for seen in self.pictures))


@torch.inference_mode()
def look(
    assistant: Assistant,
    question: str,
    images: Sequence[Picture] = (),
    *,
    layers: Sequence[int] | None = None,
    max_new_tokens: int = 16,
    **sampling: Any,
) -> Look:
    """Has a question answered, then reads prompt and answer once more and captures the attention.

    Under a causal mask the second pass attends as the first did, token by token.

    Memory: for each layer asked for, (columns x columns) and (heads x tokens said x columns)
    numbers, and as much as two such squares for the rollout.

    Args:
        layers: to keep, from 0; by default all.
        max_new_tokens: at most so many.
        sampling: as :meth:`MonoModel.generate` takes it; greedy by default.

    Raises:
        DataError: an image cannot be read, or the model takes none.
        ValueError: the model has no such layer.
    """
    model, renderer = assistant.model, assistant.renderer
    Capture(model.config.decoder, layers=layers)  # a wrong layer, before anything is computed
    prompt = renderer.prompt(question, images)
    inputs = assistant.inputs([prompt])
    steps = model.stream(
        **inputs, max_new_tokens=max_new_tokens, stop_ids=renderer.stop_ids, **sampling
    )
    said = [int(step[0]) for step in islice(steps, max_new_tokens)]
    answer = assistant.new_answer()
    for token in said:
        answer.add(token)
    asked = len(prompt.input_ids)
    ids = [*prompt.input_ids.tolist(), *said[:-1]]
    batch = _read_again(assistant, ids, asked, said, inputs.get("pixel_values"))

    decoder = model.config.decoder
    heads = Capture(decoder, layers=layers, rows=range(asked - 1, len(ids)))
    maps = Capture(decoder, layers=layers, mean=True)
    rollout = Rollout()
    watches: list[Any] = [heads, maps, rollout]
    patchifier = model.config.patchifier
    measures = None
    if patchifier is not None:
        measures = Measures(Ground.of(batch, patchifier))
        watches.append(measures)
    model.hidden(batch, watch=both(*watches))
    return Look(
        tokens=[
            CELL if visual else _text(assistant, i)
            for i, visual in zip(ids, batch.layout.mask[0].tolist(), strict=True)
        ],
        said=[_text(assistant, i) for i in said],
        answer=answer.text,
        segments=segments(_kinds(assistant, ids, prompt.question_at, asked)),
        pictures=_pictures(assistant, images, batch.layout.mask[0]),
        prompt=asked,
        heads={layer: heads.weights(layer)[0].numpy() for layer in heads.layers},
        maps={layer: maps.weights(layer)[0, 0].numpy() for layer in maps.layers},
        rollout=rollout.flow[0].numpy(),
        measures={k: v.cpu().numpy() for k, v in (measures.by_head if measures else {}).items()},
    )


def _read_again(
    assistant: Assistant, ids: list[int], asked: int, said: list[int], pixels: Tensor | None
) -> Batch:
    """Prompt and answer as a batch in which the answer is what is learnt."""
    model = assistant.model
    batch = model.batch(torch.tensor([ids], device=model.device), pixels)
    asking = torch.arange(asked - 1, len(ids), device=model.device)
    batch.wanted = Wanted.of(asking, batch.layout)
    batch.targets = torch.tensor(said, device=model.device)
    batch.weights = torch.ones(len(said), device=model.device)
    return batch


def _kinds(assistant: Assistant, ids: list[int], question_at: int, asked: int) -> list[str]:
    """What each token is; pictures with the tokens that open and close them."""
    marks = assistant.renderer.image_tokens
    of_images = set() if marks is None else {marks.start, marks.context, marks.end}
    first = next((at for at, i in enumerate(ids) if i in of_images), question_at)
    kinds = []
    for at, i in enumerate(ids):
        if at >= asked:
            kinds.append("answer")
        elif i in of_images:
            kinds.append("image")
        else:
            kinds.append("system" if at < min(first, question_at) else "question")
    return kinds


def _pictures(assistant: Assistant, images: Sequence[Picture], visual: Tensor) -> list[Seen]:
    processor, patchifier = assistant.renderer.images, assistant.model.config.patchifier
    if processor is None or patchifier is None:
        return []
    columns = visual.nonzero()[:, 0].tolist()
    seen, at = [], 0
    for number, encoded in enumerate(images):
        image = decode(encoded, f"picture {number + 1}")
        mosaic = Mosaic.of(image.size, processor, patchifier, len(images))
        seen.append(Seen(image, mosaic, columns[at]))
        at += mosaic.tokens
    return seen


def _text(assistant: Assistant, token: int) -> str:
    """A token's text, special ones by name."""
    tokenizer = assistant.renderer.tokenizer
    text: str = tokenizer.decode([token], skip_special_tokens=False)
    return text or str(tokenizer.id_to_token(token))
