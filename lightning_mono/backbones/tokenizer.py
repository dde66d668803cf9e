"""Tokenizers: read from files, trained from text, and given the tokens that stand for images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from lightning_mono.backbones.sentencepiece import tokenizer_from_sentencepiece
from lightning_mono.errors import CheckpointError

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
IMAGE_START, IMAGE_END, IMAGE_CONTEXT = "<img>", "</img>", "<IMG_CONTEXT>"
# What InternVL adds to a text LLM's vocabulary, in its order: images, quotes, references, boxes.
VISUAL_TOKENS = (
    IMAGE_START,
    IMAGE_END,
    IMAGE_CONTEXT,
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
)
SENTENCEPIECE = "tokenizer.model"

_GGUF_CONTROL, _GGUF_USER_DEFINED = 3, 4


@dataclass(frozen=True)
class ImageTokens:
    """Ids around an image's tokens (``start``, ``end``) and in the place of each (``context``)."""

    start: int
    end: int
    context: int


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder: ``tokenizer.json``, or a SentencePiece model.

    Raises:
        CheckpointError: the folder has neither, or it is damaged.
    """
    path = folder / "tokenizer.json"
    if not path.is_file() and (folder / SENTENCEPIECE).is_file():
        return tokenizer_from_sentencepiece(folder)
    return tokenizer_from_file(path)


def tokenizer_from_file(path: Path) -> Tokenizer:
    """Reads a ``tokenizer.json``, without the padding and truncation it may ask for.

    Raises:
        CheckpointError: the file is missing or not a tokenizer.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: write one with transformers' AutoTokenizer(...).save_pretrained"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise CheckpointError(f"{path} is no tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def tokenizer_from_gguf(meta: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that the metadata of a GGUF file describes.

    Raises:
        CheckpointError: it is not a byte-level BPE whose pre-tokenizer is known.
    """
    kind, pre = meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre")
    if (kind, pre) != ("gpt2", "smollm"):
        raise CheckpointError(
            f"its tokenizer ({kind}, {pre}) is not supported, only (gpt2, smollm): "
            "use the model's Hugging Face folder"
        )
    tokens = meta["tokenizer.ggml.tokens"]
    parts = (merge.partition(" ") for merge in meta["tokenizer.ggml.merges"])
    merges = [(left, right) for left, _, right in parts]
    tokenizer = _byte_level({token: i for i, token in enumerate(tokens)}, merges)
    kinds = list(zip(tokens, meta["tokenizer.ggml.token_type"], strict=True))
    tokenizer.add_special_tokens([_added(t) for t, kind in kinds if kind == _GGUF_CONTROL])
    tokenizer.add_tokens([_added(t, False) for t, kind in kinds if kind == _GGUF_USER_DEFINED])
    return tokenizer


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains a byte-level BPE that can spell any text; digits stand alone.

    Args:
        texts: what to learn merges from.
        vocab_size: tokens in all, at least 259: the bytes and ``<|endoftext|>``, ``<|im_start|>``,
            ``<|im_end|>``, which get ids 0, 1 and 2. Fewer come out where the text has too few
            pairs to merge.

    Returns:
        The tokenizer; the same for the same texts.
    """
    specials = [END_OF_TEXT, TURN_START, TURN_END]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(specials) + len(alphabet):
        raise ValueError(f"vocab_size {vocab_size} is less than {len(specials) + len(alphabet)}")
    tokenizer = _byte_level({}, [])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_added(token) for token in specials],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def add_image_tokens(tokenizer: Tokenizer) -> ImageTokens:
    """Adds those of ``VISUAL_TOKENS`` that a tokenizer lacks."""
    tokenizer.add_special_tokens([_added(name) for name in VISUAL_TOKENS])
    return image_tokens(tokenizer)


def image_tokens(tokenizer: Tokenizer) -> ImageTokens:
    """The ids of a tokenizer that has the image tokens.

    Raises:
        CheckpointError: it lacks one.
    """
    names = (IMAGE_START, IMAGE_END, IMAGE_CONTEXT)
    start, end, context = (tokenizer.token_to_id(name) for name in names)
    if start is None or end is None or context is None:
        raise CheckpointError(f"the tokenizer lacks one of the image tokens {', '.join(names)}")
    return ImageTokens(start, end, context)


def _added(token: str, special: bool = True) -> AddedToken:
    return AddedToken(token, special=special, normalized=False)


def _byte_level(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """SmolLM's splitting: digits one by one, then GPT-2's words, then bytes."""
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
