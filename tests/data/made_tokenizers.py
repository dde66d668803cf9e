"""One small tokenizer of every kind that the model families use, with every template's tokens."""

from __future__ import annotations

from functools import cache

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from lightning_mono.backbones.tokenizer import add_image_tokens

SPECIALS = (
    "<s>",
    "</s>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
KINDS = ("words", "words with a space", "llama 3", "prefix", "first", "always")
CORPUS = [
    "user assistant system Question: Answer: is there a red triangle in the image?",
    "what color is the shape? yes, it is a blue circle; no, 12 of 345 are red.",
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL",
    "def f(x): return {'red': [x, x + 1], 'blue': \"it's\"}  # é ñ 😀",
    "View 1: View 2: compare this with that image and describe both",
]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@cache
def made(kind: str) -> Tokenizer:
    """A tokenizer of one of ``KINDS``, or ``"newlines"``: one that merges across line breaks."""
    tokenizer = _byte_level(kind) if kind in KINDS[:3] else _sentencepiece(kind)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    add_image_tokens(tokenizer)
    return tokenizer


def _byte_level(kind: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama 3"))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if kind == "llama 3":
        tokenizer.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
        into_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, into_bytes])
    else:
        spaced = kind == "words with a space"
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(kind: str) -> Tokenizer:
    """Pieces learnt with spaces as "▁" in front of words, then bytes for all that they lack."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    corpus = CORPUS
    if kind == "newlines":
        corpus = [line.replace(" ", "\n") for line in CORPUS] + ["user\nwhat assistant\nyes"] * 9
    trainer = trainers.BpeTrainer(vocab_size=350, show_progress=False)
    learner.train_from_iterator(corpus * 4, trainer)
    learnt = sorted(learner.get_vocab(), key=learner.get_vocab().__getitem__)
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *learnt]
    vocab = {piece: id for id, piece in enumerate(pieces)}
    merges = [
        (text[:cut], text[cut:])
        for text in learnt
        for cut in range(1, len(text))
        if text[:cut] in vocab and text[cut:] in vocab
    ]
    model = models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    if kind in ("first", "always"):
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
    else:
        spaces = normalizers.Replace(" ", "▁")
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return tokenizer
