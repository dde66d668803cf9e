"""A trained model and all it needs to be asked: images and a question in, an answer out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer

from lightning_mono.answer import Answer
from lightning_mono.backbones import PACKAGED, load_backbone
from lightning_mono.backbones.huggingface import folder_chat
from lightning_mono.backbones.tokenizer import image_tokens, read_tokenizer
from lightning_mono.backbones.tokenizer_files import TokenizerFiles
from lightning_mono.checkpoints.atomic import explained
from lightning_mono.checkpoints.folder import load_model, save_model
from lightning_mono.checkpoints.locate import model_folder
from lightning_mono.conversation import Conversation
from lightning_mono.data.images import ImageProcessor
from lightning_mono.data.render import Prompt, Renderer
from lightning_mono.data.templates import CHAT_TEMPLATES
from lightning_mono.errors import CheckpointError
from lightning_mono.model import MonoModel
from lightning_mono.model.few_bits import placing, round_to_answer

Picture = bytes | Image.Image


class Assistant:
    """Answers questions about images, one by one, in batches, or word by word.

    Args:
        model: the model, on the device it is to run on.
        renderer: turns questions and images into the tokens the model was trained on.
        chat: name of the renderer's chat template.
        files: what stands beside the tokenizer when the assistant is saved.
    """

    def __init__(
        self,
        model: MonoModel,
        renderer: Renderer,
        chat: str,
        files: TokenizerFiles | None = None,
    ) -> None:
        self.model = model.eval()
        self.renderer = renderer
        self.chat = chat
        self.files = files or TokenizerFiles()

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        system: str | None = None,
        quantize: str | None = None,
    ) -> Assistant:
        """Loads a model with its tokenizer.

        Args:
            path: a model folder in the published layout, a run folder, a hub id such as
                ``OpenGVLab/Mono-InternVL-2B``, or a text LLM (also a packaged name or GGUF file).
            device: by default an accelerator where there is one.
            dtype: of the weights; by default that of the files.
            system: the system message, where it is not to be the chat template's own.
            quantize: ``nf4`` or ``int8``, to keep the layers' matrices in few bits, text and visual
                ones; the model then answers and cannot be saved.

        Raises:
            CheckpointError: the folder holds no model, or a broken one; or it cannot be rounded.
            AssetError: it cannot be fetched.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if str(path) in PACKAGED or str(path).endswith(".gguf"):
            backbone = load_backbone(str(path), dtype or torch.float32)
            renderer = Renderer(backbone.tokenizer, CHAT_TEMPLATES[backbone.chat], system=system)
            files = TokenizerFiles.of_backbone(backbone)
            model = MonoModel.graft(backbone)
            if quantize is not None:
                round_to_answer(model, quantize, device)
            return cls(model.to(device), renderer, backbone.chat, files)
        folder = model_folder(path)
        if quantize is None:
            model = MonoModel.from_pretrained(folder, dtype=dtype).to(device)
        else:
            model = load_model(folder, dtype=dtype, place=placing(quantize, device)).to(device)
        tokenizer = read_tokenizer(folder)
        chat = chat_template(folder, model.config.decoder.family)
        images = _images(model, folder)
        renderer = make_renderer(model, tokenizer, chat, images, system=system)
        return cls(model, renderer, chat, TokenizerFiles.of_folder(folder))

    def save(self, folder: Path) -> None:
        """Writes model, tokenizer and the settings of images and chat, in the published layout."""
        further: dict[str, Any] = {"template": self.chat}
        images = self.renderer.images
        if images is not None:
            further |= {
                "dynamic_image_size": images.max_tiles > 1,
                "min_dynamic_patch": images.min_tiles,
                "max_dynamic_patch": images.max_tiles,
                "use_thumbnail": images.thumbnail,
            }
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.files.write(folder, self.renderer.tokenizer)
        save_model(self.model, folder, further)

    def answer(
        self,
        items: Sequence[tuple[Sequence[Picture], str]],
        max_new_tokens: int = 32,
        *,
        stop: Sequence[str] = (),
        **sampling: Any,
    ) -> list[str]:
        """Answers a batch of (images, question).

        Args:
            stop: an answer ends before the first of these strings.
            sampling: temperature, top_p, top_k, repetition_penalty and seed of
                ``MonoModel.generate``.
        """
        prompts = [self.renderer.prompt(question, images) for images, question in items]
        answers = self.complete(prompts, max_new_tokens, stop=stop, **sampling)
        return [answer.text for answer in answers]

    def complete(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        *,
        stop: Sequence[str] = (),
        **sampling: Any,
    ) -> list[Answer]:
        """Answers a batch of prompts, rendered or other; arguments as in :meth:`answer`."""
        answers = [self.new_answer(stop) for _ in prompts]
        steps = self.model.stream(
            **self.inputs(prompts),
            max_new_tokens=max_new_tokens,
            stop_ids=self.renderer.stop_ids,
            **sampling,
        )
        for step in steps:
            for answer, token in zip(answers, step.tolist(), strict=True):
                if not answer.done:
                    answer.add(token)
            if all(answer.done for answer in answers):
                break
        return answers

    def stream(
        self,
        question: str,
        images: Sequence[Picture] = (),
        *,
        max_new_tokens: int = 256,
        stop: Sequence[str] = (),
        **sampling: Any,
    ) -> Iterator[str]:
        """Yields the answer to one question piece by piece; arguments as in :meth:`answer`."""
        turn = self.conversation()
        return turn.ask(question, images, max_new_tokens=max_new_tokens, stop=stop, **sampling)

    def conversation(self, *, system: str | None = None) -> Conversation:
        """Opens a conversation of several turns, with images in any of them.

        Args:
            system: the system message, where it is not to be the renderer's own.
        """
        return Conversation(self, system=system)

    def new_answer(self, stop: Sequence[str] = ()) -> Answer:
        """An empty answer of this model's tokenizer."""
        return Answer(self.renderer.tokenizer.decode, self.renderer.stop_ids, stop)

    def inputs(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """Pads prompts in front to one (batch, tokens) and joins their tiles."""
        device = self.model.device
        longest = max(len(prompt.input_ids) for prompt in prompts)
        ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt.input_ids) :] = torch.from_numpy(prompt.input_ids)
            mask[row, longest - len(prompt.input_ids) :] = 1
        inputs: dict[str, Any] = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        tiles = [torch.from_numpy(p.pixel_values) for p in prompts if p.pixel_values.shape[0]]
        if tiles:
            inputs["pixel_values"] = torch.cat(tiles).to(device)
        return inputs


def chat_template(folder: Path, family: str) -> str:
    """The name of the chat template that suits a model folder.

    Raises:
        CheckpointError: it names one that is not known.
    """
    chat = folder_chat(folder, family)
    if chat not in CHAT_TEMPLATES:
        known = ", ".join(CHAT_TEMPLATES)
        path = folder / "config.json"
        raise CheckpointError(f"{path}: no chat template {chat!r}; set template to one of {known}")
    return chat


def make_renderer(
    model: MonoModel,
    tokenizer: Tokenizer,
    chat: str,
    images: ImageProcessor | None,
    *,
    system: str | None = None,
) -> Renderer:
    """The renderer that goes with a model.

    Args:
        chat: name of a chat template.
        images: how pictures are cut; None for a model that reads text only.
        system: the system message; None for the template's own.
    """
    template = CHAT_TEMPLATES[chat]
    patchifier = model.config.patchifier
    if patchifier is None or images is None:
        return Renderer(tokenizer, template, system=system)
    tokens = image_tokens(tokenizer)
    return Renderer(tokenizer, template, tokens, images, patchifier.tokens_per_tile, system=system)


def _images(model: MonoModel, folder: Path) -> ImageProcessor | None:
    """How pictures are cut, as config.json says it; absent keys are the published defaults."""
    if model.config.patchifier is None:
        return None
    entries = model.entries
    if entries.get("pad2square"):
        raise CheckpointError(f"{folder / 'config.json'}: pad2square is not supported; remove it")
    dynamic = entries.get("dynamic_image_size", False)
    return ImageProcessor(
        size=model.config.patchifier.image_size,
        min_tiles=entries.get("min_dynamic_patch", 1) if dynamic else 1,
        max_tiles=entries.get("max_dynamic_patch", 6) if dynamic else 1,
        thumbnail=bool(entries.get("use_thumbnail", False)),
    )
