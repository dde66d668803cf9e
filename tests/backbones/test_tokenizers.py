"""The tokenizer.json of each family gives the ids and the text that transformers gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import pytest
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from lightning_mono.backbones.tokenizer import tokenizer_from_file

transformers = pytest.importorskip("transformers", reason="the reference is not installed")

LINES = (
    "The quick brown fox jumps over the lazy dog; it isn't 12 or 34567, they'll say.",
    "图片里有什么？图片里有一只猫和一条狗。这是一个测试，今天天气很好。",
    "def area(width, height):\n\tif width < 0:\n\t\treturn None\n    return width * height  # m²\n",
    "café, nai\u0308ve, Straße … ½ 🙂🙂 emoji 👩‍👩‍👧 русский",
)
TEXTS = (
    *LINES,
    "",
    " ",
    "\n\n\n  \t x   ",
    "  leading and trailing  ",
    "for i in range(10):\r\n        print(f'{i:>4}')  # ＷＩＤＥ １２３４５６\r\n",
    "日本語テキスト e\u0301 ▁ <0x0A> \x00 don't DON'T",
    "it does n't , he 's .",
)
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA = ("<unk>", "<s>", "</s>")
LLAMA_3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{%s}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def smollm2() -> Tokenizer:
    """Digits one by one, then GPT-2's words."""
    tokenizer = Tokenizer(models.BPE())
    digits, words = pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def llama() -> Tokenizer:
    """SentencePiece's ways: spaces are characters, one is put in front, bytes for what is new."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    start = LLAMA[1]
    tokenizer.post_processor = processors.TemplateProcessing(f"{start} $A", None, [(start, 1)])
    return tokenizer


def tinyllama() -> Tokenizer:
    """As Llama, in the older form: the space is put in front of every stretch."""
    tokenizer = llama()
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = None
    return tokenizer


def llama_3() -> Tokenizer:
    """Words by a pattern with numbers of up to three digits; whole words before merges."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split_words(tokenizer, digits="1,3")
    start = LLAMA_3[0]
    ends = processors.TemplateProcessing(f"{start} $A", None, [(start, 0)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(), ends])
    return tokenizer


def qwen() -> Tokenizer:
    """NFC, then words by a pattern with digits one by one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split_words(tokenizer, digits="1")
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def split_words(tokenizer: Tokenizer, digits: str) -> None:
    words = pre_tokenizers.Split(Regex(WORDS % digits), behavior="isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()


@dataclass(frozen=True)
class Style:
    """How a family's tokenizer is made, and the class that its folders name."""

    make: Callable[[], Tokenizer]
    special: tuple[str, ...]
    name: str

    def trained(self) -> Tokenizer:
        tokenizer = self.make()
        alphabet = [] if self.special == LLAMA else pre_tokenizers.ByteLevel.alphabet()
        pieces = BYTES if self.special == LLAMA else ()
        trainer = trainers.BpeTrainer(
            vocab_size=650,
            limit_alphabet=300,
            min_frequency=2,
            initial_alphabet=list(alphabet),
            special_tokens=[*self.special, *pieces],
            show_progress=False,
        )
        tokenizer.train_from_iterator(LINES[:3] * 3, trainer)
        content = json.loads(tokenizer.to_str())  # the bytes are pieces, not added tokens
        content["added_tokens"] = content["added_tokens"][: len(self.special)]
        return Tokenizer.from_str(json.dumps(content))


STYLES = {
    "smollm2": Style(smollm2, CHATML, "GPT2Tokenizer"),
    "llama": Style(llama, LLAMA, "LlamaTokenizer"),
    "tinyllama": Style(tinyllama, LLAMA, "PreTrainedTokenizerFast"),
    "llama_3": Style(llama_3, LLAMA_3, "PreTrainedTokenizerFast"),
    "qwen": Style(qwen, CHATML, "Qwen2Tokenizer"),
}


@pytest.fixture(scope="module", params=STYLES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same folder read by transformers and by us, and its special tokens."""
    style, folder = STYLES[request.param], tmp_path_factory.mktemp(request.param)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=style.trained(),
        bos_token=style.special[1],
        eos_token=style.special[-1],
        additional_special_tokens=list(style.special),
        clean_up_tokenization_spaces=False,
    )
    theirs.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": style.name}))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    return theirs, tokenizer_from_file(folder / "tokenizer.json"), style.special


@cache
def corpus(special: tuple[str, ...]) -> tuple[str, ...]:
    """Texts, and every special token beside every other and around words."""
    gaps = ("", " ", "\n", "a", " the ")
    return (*TEXTS, *map("".join, product(special, gaps, special, ("", " end"))))


@pytest.mark.parametrize("ends", [False, True])
def test_ids_are_those_of_transformers(pair: Any, ends: bool) -> None:
    theirs, ours, special = pair
    for text in corpus(special):
        expected = theirs(text, add_special_tokens=ends).input_ids
        assert ours.encode(text, add_special_tokens=ends).ids == expected, text


@pytest.mark.parametrize("skip", [False, True])
def test_text_is_that_of_transformers(pair: Any, skip: bool) -> None:
    theirs, ours, special = pair
    for text in corpus(special):
        ids = ours.encode(text).ids
        for part in (ids, ids[:-1], ids[1:]):
            expected = theirs.decode(part, skip_special_tokens=skip)
            assert ours.decode(part, skip_special_tokens=skip) == expected, text
