"""A trained model and all it needs to be asked: images and a question in, an answer out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer

from lightning_mono.backbones.tokenizer import ImageTokens, tokenizer_from_file
from lightning_mono.checkpoints.atomic import replacing
from lightning_mono.checkpoints.folder import load_model, read_config, save_model
from lightning_mono.data.images import ImageProcessor
from lightning_mono.data.render import Prompt, Renderer
from lightning_mono.data.sample import Exchange
from lightning_mono.data.templates import CHAT_TEMPLATES
from lightning_mono.errors import CheckpointError
from lightning_mono.model import MonoModel

Picture = bytes | Image.Image


class Assistant:
    """Answers questions about images, one by one, in batches, or word by word.

    Args:
        model: the model, on the device it is to run on.
        renderer: turns questions and images into the tokens the model was trained on.
        chat: name of the renderer's chat template.
    """

    def __init__(self, model: MonoModel, renderer: Renderer, chat: str) -> None:
        self.model = model.eval()
        self.renderer = renderer
        self.chat = chat

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str | None = None) -> Assistant:
        """Loads a folder that :meth:`save` wrote, or a run folder that holds one.

        Raises:
            CheckpointError: the folder holds no model, or a broken one.
        """
        path = Path(folder)
        if not (path / "config.json").is_file() and (path / "model" / "config.json").is_file():
            path = path / "model"
        entries = read_config(path)
        model = load_model(path)
        for key in ("chat", "image"):
            if key not in entries:
                raise CheckpointError(
                    f"{path / 'config.json'} does not say how to ask ({key} is missing)"
                )
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        tokenizer = tokenizer_from_file(path / "tokenizer.json")
        chat, image = entries["chat"], entries["image"]
        return cls(model, make_renderer(model, tokenizer, chat, image), chat)

    def save(self, folder: Path) -> None:
        """Writes model, tokenizer and the settings of images and chat."""
        images = self.renderer.images
        image = (
            {"size": images.size, "max_tiles": images.max_tiles, "thumbnail": images.thumbnail}
            if images is not None
            else None
        )
        with replacing(folder / "tokenizer.json") as temporary:
            self.renderer.tokenizer.save(str(temporary))
        save_model(self.model, folder, {"chat": self.chat, "image": image})

    def answer(
        self,
        items: Sequence[tuple[Sequence[Picture], str]],
        max_new_tokens: int = 32,
        **sampling: Any,
    ) -> list[str]:
        """Answers a batch of (images, question).

        Args:
            sampling: temperature, top_p, top_k and seed of ``MonoModel.generate``.
        """
        prompts = [self.renderer.prompt(question, images) for images, question in items]
        inputs = self._inputs(prompts)
        ids = self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            stop_ids=self.renderer.stop_ids,
            **sampling,
        )
        return [self._text(row) for row in ids.tolist()]

    def stream(
        self,
        question: str,
        images: Sequence[Picture] = (),
        *,
        history: Sequence[Exchange] = (),
        max_new_tokens: int = 256,
        **sampling: Any,
    ) -> Iterator[str]:
        """Yields the answer piece by piece; pieces joined are the whole answer.

        Args:
            images: pictures that open the conversation.
            history: the turns before this question.
            sampling: temperature, top_p, top_k and seed of ``MonoModel.generate``.
        """
        inputs = self._inputs([self.renderer.prompt(question, images, history=history)])
        steps = self.model.stream(
            **inputs,
            max_new_tokens=max_new_tokens,
            stop_ids=self.renderer.stop_ids,
            **sampling,
        )
        ids: list[int] = []
        said = ""
        for step in steps:
            ids.append(int(step[0]))
            text = self._text(ids)
            if text.endswith("\ufffd"):  # half of a character; the next token brings the rest
                continue
            yield text[len(said) :]
            said = text

    def _text(self, ids: list[int]) -> str:
        for position, token in enumerate(ids):
            if token in self.renderer.stop_ids:
                ids = ids[:position]
                break
        return self.renderer.tokenizer.decode(ids).strip()

    def _inputs(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """Pads prompts in front to one (batch, tokens) and joins their tiles."""
        device = self.model.device
        longest = max(len(prompt.input_ids) for prompt in prompts)
        ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt.input_ids) :] = torch.from_numpy(prompt.input_ids)
            mask[row, longest - len(prompt.input_ids) :] = 1
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        tiles = [torch.from_numpy(p.pixel_values) for p in prompts if p.pixel_values.shape[0]]
        if tiles:
            inputs["pixel_values"] = torch.cat(tiles).to(device)
        return inputs


def make_renderer(
    model: MonoModel, tokenizer: Tokenizer, chat: str, image: dict[str, Any] | None
) -> Renderer:
    """The renderer that goes with a model.

    Args:
        chat: name of a chat template.
        image: settings of :class:`ImageProcessor`; None for a model that reads text only.
    """
    template = CHAT_TEMPLATES[chat]
    patchifier = model.config.patchifier
    if patchifier is None or image is None:
        return Renderer(tokenizer, template)
    names = ("<img>", "</img>", "<IMG_CONTEXT>")
    start, end, context = (tokenizer.token_to_id(name) for name in names)
    if start is None or end is None or context is None:
        raise CheckpointError("the tokenizer lacks the image tokens <img>, </img>, <IMG_CONTEXT>")
    return Renderer(
        tokenizer,
        template,
        ImageTokens(start, end, context),
        ImageProcessor(**image),
        patchifier.tokens_per_tile,
    )
