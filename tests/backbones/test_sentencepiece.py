"""SentencePiece models give the ids and text that their own library gives; faults are named."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lightning_mono.backbones import sentencepiece as module
from lightning_mono.backbones.sentencepiece import tokenizer_from_sentencepiece
from lightning_mono.errors import CheckpointError

sentencepiece = pytest.importorskip("sentencepiece", reason="the reference is not installed")
pb2 = pytest.importorskip("sentencepiece.sentencepiece_model_pb2", reason="protobuf is missing")

LINES = (
    "The quick brown fox jumps over the lazy dog, don't you think? It isn't 12 or 345.",
    "What colour is the car in the picture? The car is red, and the sky is blue.",
    "图片里有什么？图片里有一只猫和一条狗。这是一个测试，今天天气很好。",
    "def area(width, height):\n\tif width < 0:\n\t\treturn None\n    return width * height  # cm²",
    "for index in range(10):\n        print(f'{index}: {value[index]!r}')\n\n\n",
    "café, naïve, Straße; ｆｕｌｌ　ｗｉｄｔｈ ① ﬁne Ⅻ “quotes” … 3½",
)
TEXTS = (
    *LINES,
    "",
    " ",
    "   ",
    "\n",
    "\t\t x",
    "leading" + " " * 17 + "and trailing   ",
    "  two in front",
    "🙂 emoji 👩‍👩‍👧 and 🇨🇳, 日本語テキスト, русский, עברית",
    "a literal ▁ and ▁▁, ▁",
    "<0x0A> and <0x41>, \x00 too, [UNUSED_TOKEN_1] [UNUSED_TOKEN_12]",
    "They do n't , he 's here ! ' x ' I 'm . No ' s ,  .",
    "<|im_start|>user\n<img><IMG_CONTEXT><IMG_CONTEXT></img>\nWhat? <|im_end|><|im_end|> x</s>",
    "<s><|im_start|> a<box>[[1, 2]]</box><unk><|im_start|im_end|>  <img>  </img> ",
)
NEW = ("<img>", "</img>", "<IMG_CONTEXT>", "<box>", "</box>", "<img>>")
# Changes to a model of InternLM2's kind.
KINDS: tuple[dict[str, Any], ...] = (
    {"user_defined_symbols": [*(f"[UNUSED_TOKEN_{i}]" for i in range(4)), "▁▁▁"]},
    {},
    {"add_dummy_prefix": True},
    {"remove_extra_whitespaces": True},
    {"add_dummy_prefix": True, "remove_extra_whitespaces": True},
    {"byte_fallback": False, "character_coverage": 0.98, "add_dummy_prefix": True},
    {"control_symbols": ["<mask>", "<|a.b|>"]},
)
NORMALISED: tuple[dict[str, Any], ...] = (
    {},
    {"add_dummy_prefix": True},
    {"add_dummy_prefix": True, "remove_extra_whitespaces": True},
)


@cache
def _trained(changes: str) -> bytes:
    out = io.BytesIO()
    options = {
        "model_type": "bpe",
        "vocab_size": 800,
        "byte_fallback": True,
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity",
        "allow_whitespace_only_pieces": True,
        "hard_vocab_limit": False,
        "minloglevel": 2,
        **json.loads(changes),
    }
    lines = LINES * 3 + tuple(" ".join(LINES).split(",")) * 2
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, **options
    )
    return out.getvalue()


def trained(changes: Mapping[str, Any]) -> bytes:
    """A small model; with no changes of the kind that InternLM2 has."""
    return _trained(json.dumps(changes))


class Folder:
    """A folder with a model, the tokens that its files add to it, and both tokenizers of it."""

    def __init__(self, content: bytes) -> None:
        self.reference = sentencepiece.SentencePieceProcessor(model_proto=content)
        size = self.reference.get_piece_size()
        taken = {"<|im_end|>": "[UNUSED_TOKEN_2]", "<|im_start|>": "[UNUSED_TOKEN_3]"}
        self.added = {name: self.reference.piece_to_id(name) for name in ("<unk>", "<s>", "</s>")}
        for token, piece in taken.items():
            if not self.reference.is_unknown(self.reference.piece_to_id(piece)):
                self.added[token] = self.reference.piece_to_id(piece)
        for token in (*NEW, *taken):
            self.added.setdefault(token, size + len([i for i in self.added.values() if i >= size]))
        tokens = {str(id): {"content": text, "special": True} for text, id in self.added.items()}
        config = {"added_tokens_decoder": tokens, "additional_special_tokens": [*NEW, *taken]}
        self.ours = read(content, tokenizer_config=config)

    def official_ids(self, text: str) -> list[int]:
        """Cuts the text at the longest added tokens; the reference encodes what lies between."""
        longest = sorted(self.added, key=len, reverse=True)
        ids: list[int] = []
        for part in re.split(f"({'|'.join(map(re.escape, longest))})", text):
            ids += [self.added[part]] if part in self.added else self.reference.encode(part)
        return ids

    def official_text(self, ids: Sequence[int]) -> str:
        """What InternLM2's tokenizer makes of ids: special tokens out, then the reference.

        It puts a space in front and cuts the first character off, which comes to nothing.
        """
        special = set(self.added.values())
        text = self.reference.decode(
            [self.reference.id_to_piece(i) for i in ids if i not in special]
        )
        for mark in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
            text = text.replace(mark, mark.strip())
        return text


def read(content: bytes, **files: Any) -> Tokenizer:
    """Our tokenizer of a folder with this model and these JSON files."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.model").write_bytes(content)
        for name, values in files.items():
            (Path(folder) / f"{name}.json").write_text(json.dumps(values), "utf-8")
        return tokenizer_from_sentencepiece(Path(folder))


@cache
def _folder(changes: str) -> Folder:
    return Folder(_trained(changes))


def folder_of(changes: Mapping[str, Any]) -> Folder:
    return _folder(json.dumps(changes))


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def texts(names: Sequence[str]) -> st.SearchStrategy[str]:
    """Random texts in which added tokens, spaces and trained words meet often."""
    words = st.sampled_from((*names, " ", "  ", "\n", "\t", "▁", "the", " the ", "图片", "re", "<"))
    return st.lists(st.one_of(words, st.text(max_size=3)), max_size=8).map("".join)


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_ids_are_those_of_the_reference(changes: dict[str, Any]) -> None:
    folder = folder_of(changes)
    pairs = ("".join(pair) for pair in product(folder.added, ("", " ", "a"), folder.added))
    for text in (*TEXTS, *pairs):
        assert ids_of(folder.ours, text) == folder.official_ids(text), text


@pytest.mark.parametrize("changes", KINDS, ids=str)
@settings(max_examples=80)
@given(data=st.data())
def test_any_text_gets_the_reference_s_ids_and_comes_back_as_its_text(
    changes: dict[str, Any], data: st.DataObject
) -> None:
    folder = folder_of(changes)
    text = data.draw(texts(tuple(folder.added)))
    ids = folder.official_ids(text)
    assert ids_of(folder.ours, text) == ids
    assert folder.ours.decode(ids) == folder.official_text(ids)


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_text_is_that_of_the_reference(changes: dict[str, Any]) -> None:
    folder = folder_of(changes)
    for text in TEXTS:
        ids = folder.official_ids(text)
        assert folder.ours.decode(ids) == folder.official_text(ids), text


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_every_id_alone_and_twice_decodes_as_the_reference_s_does(changes: dict[str, Any]) -> None:
    folder = folder_of(changes)
    own = folder.reference.get_piece_size()
    for id in range(folder.ours.get_vocab_size()):
        if id >= own or not folder.reference.is_byte(id):
            for ids in ([id], [id, id]):
                assert folder.ours.decode(ids) == folder.official_text(ids), ids


@pytest.mark.parametrize("changes", KINDS, ids=str)
@settings(max_examples=60)
@given(data=st.data())
def test_any_ids_decode_as_the_reference_s_do(changes: dict[str, Any], data: st.DataObject) -> None:
    """Bytes aside: a run of them that is no UTF-8 has other replacement characters."""
    folder = folder_of(changes)
    size = folder.ours.get_vocab_size()
    own = folder.reference.get_piece_size()
    spelled = [id for id in range(size) if id >= own or not folder.reference.is_byte(id)]
    ids = data.draw(st.lists(st.sampled_from(spelled), max_size=12))
    assert folder.ours.decode(ids) == folder.official_text(ids)


def made(scores: Mapping[str, float], **kinds: int) -> Any:
    """A model by hand: bytes, plain pieces with scores, and pieces of other kinds."""
    model = pb2.ModelProto()
    bytes_ = {f"<0x{byte:02X}>": 6 for byte in range(256)}
    for text, kind in {"<unk>": 2, "<s>": 3, "</s>": 3, **bytes_, **kinds}.items():
        model.pieces.add(piece=text, score=0.0, type=kind)
    for text, score in scores.items():
        model.pieces.add(piece=text, score=score, type=1)
    model.trainer_spec.model_type, model.trainer_spec.byte_fallback = 2, True
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    return model


@settings(max_examples=120)
@given(st.data())
def test_pieces_merge_in_the_order_of_their_scores(data: st.DataObject) -> None:
    """Whatever the pieces and their order: overlaps, runs, pieces that nothing makes."""
    longer = data.draw(st.sets(st.text("ab▁", min_size=2, max_size=6), max_size=12))
    order = data.draw(st.permutations(["a", "b", "▁", *sorted(longer)]))
    scores = {text: -float(order.index(text)) for text in sorted(order)}
    content = made(scores).SerializeToString()
    reference = sentencepiece.SentencePieceProcessor(model_proto=content)
    ours = read(content)
    for text in data.draw(st.lists(st.text("ab c", max_size=16), min_size=4, max_size=4)):
        assert ids_of(ours, text) == reference.encode(text), text


@pytest.mark.parametrize("changes", NORMALISED, ids=str)
def test_normalised_text_gets_the_reference_s_ids(changes: dict[str, Any]) -> None:
    content = trained({"normalization_rule_name": "nmt_nfkc", **changes})
    with pytest.warns(UserWarning, match=r"tokenizer\.model: normalisation goes by"):
        folder = Folder(content)
    for text in (*TEXTS, "\x01", "\x01 a"):
        assert ids_of(folder.ours, text) == folder.official_ids(text), text


@pytest.mark.parametrize(
    ("scores", "doubt"),
    [
        ({"a": -3.0, "aa": -1.0, "ab": -1.0, "b": -3.0}, "pieces share scores"),
        ({"a": -3.0, "ab": -1.0}, "piece 'ab' has characters that are none"),
    ],
)
def test_ids_that_cannot_be_promised_are_warned_of(scores: dict[str, float], doubt: str) -> None:
    with pytest.warns(UserWarning, match=doubt):
        read(made(scores).SerializeToString())


def test_a_model_that_can_be_followed_is_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(trained(KINDS[0]))
        read(made({"a": -1.0, "b": -1.0}).SerializeToString())


def test_the_saved_tokenizer_is_the_same() -> None:
    folder = folder_of(KINDS[0])
    saved = Tokenizer.from_str(folder.ours.to_str())
    for text in TEXTS:
        ids = folder.official_ids(text)
        assert (ids_of(saved, text), saved.decode(ids)) == (ids, folder.official_text(ids))


@pytest.mark.parametrize(
    ("config", "before", "behind"),
    [({}, [1], []), ({"add_bos_token": False}, [], []), ({"add_eos_token": True}, [1], [2])],
)
def test_the_ends_of_a_text_are_put_where_asked_for(
    config: dict[str, Any], before: list[int], behind: list[int]
) -> None:
    tokenizer = read(trained({}), tokenizer_config=config)
    text = "The car <s>"
    assert tokenizer.encode(text).ids == before + ids_of(tokenizer, text) + behind


def test_older_files_add_the_same_tokens() -> None:
    folder = folder_of(KINDS[0])
    newer = {text: id for text, id in folder.added.items() if text not in ("<unk>", "<s>", "</s>")}
    roles = {"additional_special_tokens": [{"content": text} for text in newer], "bos_token": "<s>"}
    older = read(trained(KINDS[0]), added_tokens=newer, special_tokens_map=roles)
    assert older.to_str() == folder.ours.to_str()


def test_a_special_token_that_no_file_gives_an_id_comes_behind_all() -> None:
    size = len(pb2.ModelProto.FromString(trained({})).pieces)
    config = {"additional_special_tokens": ["<a>", "<b>"], "pad_token": "<pad>"}
    tokenizer = read(trained({}), tokenizer_config=config)
    assert ids_of(tokenizer, "<pad><a><b>") == [size, size + 1, size + 2]


def test_flags_of_added_tokens_are_kept() -> None:
    size = len(pb2.ModelProto.FromString(trained({})).pieces)
    tokens = {
        str(size): {"content": "<plain>", "special": False, "rstrip": True},
        str(size + 1): {"content": "<hidden>", "special": True, "lstrip": True},
    }
    tokenizer = read(trained({}), tokenizer_config={"added_tokens_decoder": tokens})
    ids = ids_of(tokenizer, "a  <hidden><plain>  b")
    assert ids == [*ids_of(tokenizer, "a"), size + 1, size, *ids_of(tokenizer, "b")]
    assert tokenizer.decode(ids) == "a<plain>b"


def test_the_fields_are_the_format_s() -> None:
    """Numbers, types and defaults against the reference's own description of its files."""
    messages = {
        pb2.ModelProto.SentencePiece: module._PIECE,
        pb2.TrainerSpec: module._TRAINING,
        pb2.NormalizerSpec: module._NORMALIZATION,
    }
    names = {"text": "piece", "kind": "type"}
    for message, schema in messages.items():
        for number, (name, kind, default) in schema.items():
            field = message.DESCRIPTOR.fields_by_number[number]
            assert field.name == names.get(name, name)
            assert (kind(field.default_value), type(default)) == (default, kind)
    assert [pb2.ModelProto.DESCRIPTOR.fields_by_number[n].name for n in module._FILE] == [
        "pieces",
        "trainer_spec",
        "normalizer_spec",
    ]


def refusal(content: bytes, **files: Any) -> str:
    with pytest.raises(CheckpointError) as error:
        read(content, **files)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"model_type": "unigram", "vocab_size": 400}, "a model that is not BPE"),
        ({"treat_whitespace_as_suffix": True}, "spaces that end words"),
    ],
)
def test_models_that_are_not_supported_are_refused(changes: dict[str, Any], part: str) -> None:
    message = refusal(trained(changes))
    assert part in message
    assert "tokenizer.model: " in message
    assert "use a tokenizer.json" in message


def test_unused_pieces_are_refused_only_where_text_merges_to_them() -> None:
    scores = {"a": -1.0, "b": -2.0, "ab": -3.0}
    assert "unused pieces that merge" in refusal(made(scores, aab=5).SerializeToString())
    assert ids_of(read(made(scores, baba=5).SerializeToString()), "ab") == [259 + 3]


@pytest.mark.parametrize(
    ("tokens", "part"),
    [
        ({"<s>": 5}, "added token <s> has id 5, but also 1"),
        ({"<a>": 2000}, "added token <a> has id 2000, but none has 1999"),
        ({"<a>": -1}, "added token <a> has id -1, but none has -2"),
        ({"<a>": 40}, "added token <a> has id 40, which is piece <0x25>"),
        ({"<a>": 300}, "added token <a> has id 300, which is piece"),
        ({"": 300}, "is no token: give its text"),
        ({"<a>": "b"}, "invalid literal for int"),
    ],
)
def test_added_tokens_that_do_not_fit_are_refused(tokens: dict[str, Any], part: str) -> None:
    message = refusal(trained({}), added_tokens=tokens)
    assert part in message
    assert "added_tokens.json: " in message
    decoder = {str(id): {"content": text} for text, id in tokens.items()}
    message = refusal(trained({}), tokenizer_config={"added_tokens_decoder": decoder})
    assert part in message
    assert "tokenizer_config.json: " in message


def test_a_missing_or_foreign_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.model is missing: copy it"):
        tokenizer_from_sentencepiece(tmp_path)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 1477754\n"
    for content in (b"", pointer, b"PK\3\4" * 20, b"{}", b"\xff" * 30, b"\n\x00"):
        assert "tokenizer.model: " in refusal(content)


def test_a_model_cut_short_anywhere_is_refused() -> None:
    content = trained({})
    for end in (*range(0, len(content) - 400, 97), *range(len(content) - 400, len(content), 3)):
        message = refusal(content[:end])
        assert "cut short" in message, end


@settings(max_examples=120)
@given(st.data())
def test_a_damaged_model_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(trained({}))
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[at] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings(), contextlib.suppress(CheckpointError):
        warnings.simplefilter("ignore")
        assert isinstance(read(bytes(content)), Tokenizer)


def test_user_defined_pieces_beside_a_dummy_prefix_are_warned_of() -> None:
    content = trained({"user_defined_symbols": ["<x>"], "add_dummy_prefix": True})
    with pytest.warns(UserWarning, match="around user-defined pieces"):
        ours = read(content)
    reference = sentencepiece.SentencePieceProcessor(model_proto=content)
    for text in ("a plain text", "", "  spaces ", "你好 world"):
        assert ids_of(ours, text) == reference.encode(text), text
