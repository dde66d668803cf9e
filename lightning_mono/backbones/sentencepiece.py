"""SentencePiece models of the BPE kind, as InternLM2's folders hold them, made into tokenizers.

The file is a protobuf in three parts: the pieces, how they were trained, how text is normalised.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors

from lightning_mono.backbones.located import located
from lightning_mono.backbones.protobuf import Schema, read_message
from lightning_mono.backbones.shards import read_json
from lightning_mono.errors import CheckpointError

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_BPE = 2
_SPACE = "▁"

_FILE: Schema = {1: ("pieces", list, ()), 2: ("training", list, ()), 3: ("normalization", list, ())}
_PIECE: Schema = {1: ("text", str, ""), 2: ("score", float, 0.0), 3: ("kind", int, _NORMAL)}
_TRAINING: Schema = {
    3: ("model_type", int, 1),
    24: ("treat_whitespace_as_suffix", int, 0),
    46: ("bos_piece", str, "<s>"),
    47: ("eos_piece", str, "</s>"),
}
_NORMALIZATION: Schema = {
    2: ("precompiled_charsmap", bytes, b""),
    3: ("add_dummy_prefix", int, 1),
    4: ("remove_extra_whitespaces", int, 1),
    5: ("escape_whitespaces", int, 1),
}

# Special tokens that have a role, and what InternLM2's tokenizer takes where the files are silent.
_ROLES: dict[str, Any] = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": None,
    "pad_token": "</s>",
    "cls_token": None,
    "mask_token": None,
}


@dataclass(frozen=True)
class _Piece:
    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class _Model:
    pieces: list[_Piece]
    training: dict[str, Any]
    normalization: dict[str, Any]

    @cached_property
    def ids(self) -> dict[str, int]:
        return {piece.text: id for id, piece in enumerate(self.pieces)}

    @cached_property
    def plain(self) -> dict[str, float]:
        """Scores of the pieces that text can be merged to."""
        return {p.text: p.score for p in self.pieces if p.kind in (_NORMAL, _UNUSED)}

    @cached_property
    def merges(self) -> list[tuple[str, str]]:
        """Every two pieces that make a third, in the order in which they are merged: by its score.

        Where several pairs make the same piece the leftmost in the text goes first; in a run, such
        as "aaa" of "aa" and "a", that is the one with the longer left part.
        """
        pairs = [
            (score, text[:cut], text[cut:])
            for text, score in self.plain.items()
            for cut in range(len(text) - 1, 0, -1)
            if text[:cut] in self.plain and text[cut:] in self.plain
        ]
        pairs.sort(key=lambda pair: -pair[0])
        return [(left, right) for _, left, right in pairs]


def tokenizer_from_sentencepiece(folder: Path) -> Tokenizer:
    """Reads ``tokenizer.model``, and the tokens that the JSON files beside it add.

    Ids are those of InternLM2's own (slow) tokenizer: SentencePiece on each stretch between added
    tokens. Where that cannot be promised a warning says why. The name of a piece whose id an added
    token takes is text like any other.

    ``decode`` gives the same text as that tokenizer with special tokens skipped, spaces before
    punctuation taken out included, but for two things: a run of byte pieces that is not UTF-8
    becomes as many replacement characters as it has bytes, and an added token that is not special
    gets no spaces around it. With special tokens kept, the other puts spaces around them too.

    Raises:
        CheckpointError: a file is missing, damaged or of a kind not supported, or an added token
            has an id that the vocabulary gives to something else or that leaves a gap.
    """
    path = folder / "tokenizer.model"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: copy it from the model's own folder")
    with located(path):
        model = _read_model(path.read_bytes())
        normalizer = normalizers.Sequence(_normalizers(model.normalization))
    _warn_of_doubts(path, model)
    settings = read_json(folder / "tokenizer_config.json", optional=True)
    added = _added_tokens(folder, settings, model)
    names = [added[id].content if id in added else p.text for id, p in enumerate(model.pieces)]
    kinds = [piece.kind for piece in model.pieces]
    bpe = models.BPE(
        {name: id for id, name in enumerate(names)},
        model.merges,
        unk_token=names[kinds.index(_UNKNOWN)],
        fuse_unk=True,
        byte_fallback=_BYTE in kinds,
    )
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizer
    tokenizer.add_tokens([added[id] for id in sorted(added)])
    silent = [names[id] for id, kind in enumerate(kinds) if kind == _CONTROL and id not in added]
    tokenizer.decoder = decoders.Sequence(_decoders(model.normalization, silent))
    tokenizer.post_processor = _ends(settings, model, names)
    return tokenizer


def _read_model(content: bytes) -> _Model:
    file = read_message(content, _FILE)
    pieces = [_Piece(**read_message(piece, _PIECE)) for piece in file["pieces"]]
    if not file["training"] or not file["normalization"]:
        raise CheckpointError("cut short, or not a SentencePiece model: copy the file again")
    training = read_message(file["training"][-1], _TRAINING)
    model = _Model(pieces, training, read_message(file["normalization"][-1], _NORMALIZATION))
    if len(model.ids) < len(pieces) or _UNKNOWN not in {piece.kind for piece in pieces}:
        raise CheckpointError("damaged: a piece is there twice, or none for what is unknown")
    _check_supported(model)
    return model


def _check_supported(model: _Model) -> None:
    text = model.normalization
    unused = {piece.text for piece in model.pieces if piece.kind == _UNUSED}
    reasons = {
        "a model that is not BPE": model.training["model_type"] != _BPE,
        "spaces that are not escaped": not text["escape_whitespaces"],
        "spaces that end words": model.training["treat_whitespace_as_suffix"],
        "unused pieces that merge": any(left + right in unused for left, right in model.merges),
    }
    for reason, found in reasons.items():
        if found:
            raise CheckpointError(f"{reason}: not supported; use a tokenizer.json in its place")


def _warn_of_doubts(path: Path, model: _Model) -> None:
    """Says in what this tokenizer cannot be held to SentencePiece's ids."""
    made = {left + right for left, right in model.merges}
    own = any(piece.kind == _USER_DEFINED for piece in model.pieces)
    changed = ("precompiled_charsmap", "add_dummy_prefix", "remove_extra_whitespaces")
    foreign = [text for text in model.plain if len(text) > 1 and not set(text) <= model.ids.keys()]
    doubts = {
        "pieces share scores": len({model.plain[text] for text in made}) < len(made),
        f"piece {next(iter(foreign), '')!r} has characters that are none": foreign,
        "text around user-defined pieces is normalised apart": own
        and any(model.normalization[name] for name in changed),
        "normalisation goes by whole graphemes": model.normalization["precompiled_charsmap"],
    }
    for doubt, found in doubts.items():
        if found:
            warnings.warn(f"{path}: {doubt}; ids may differ from SentencePiece's", stacklevel=3)


def _added_tokens(folder: Path, settings: dict[str, Any], model: _Model) -> dict[int, AddedToken]:
    """The tokens that are cut out of a text before its pieces are sought, by id."""
    roles = _ROLES | settings
    declared, path = settings.get("added_tokens_decoder"), folder / "tokenizer_config.json"
    if declared is None:
        path = folder / "added_tokens.json"
        declared = {id: text for text, id in read_json(path, optional=True).items()}
        roles |= read_json(folder / "special_tokens_map.json", optional=True)
    with located(path):
        named = [*(roles[role] for role in _ROLES), *(roles.get("additional_special_tokens") or ())]
        special = dict.fromkeys(_text(token) for token in named if token is not None)
        added = {int(id): _added(token, special) for id, token in declared.items()}
        present = {token.content for token in added.values()}
        for text in [text for text in special if text not in present]:
            behind = max([len(model.pieces) - 1, *added]) + 1
            added[model.ids.get(text, behind)] = _added(text, special)
        _check_ids(added, model)
    for id, piece in enumerate(model.pieces):
        if piece.kind == _USER_DEFINED:
            # Found in normalised text, as SentencePiece does: their spaces are escaped.
            added.setdefault(id, AddedToken(piece.text, special=False, normalized=True))
    return added


def _added(token: Any, special: Iterable[str]) -> AddedToken:
    text = _text(token)
    flags = token if isinstance(token, dict) else {}
    return AddedToken(
        text,
        special=text in special or flags.get("special", False),
        normalized=False,
        **{name: flags.get(name, False) for name in ("single_word", "lstrip", "rstrip")},
    )


def _text(token: Any) -> str:
    text = token["content"] if isinstance(token, dict) else token
    if not isinstance(text, str) or not text:
        raise CheckpointError(f"{token!r} is no token: give its text")
    return text


def _check_ids(added: dict[int, AddedToken], model: _Model) -> None:
    """A token has the id of its own piece, of one that no text is merged to, or one behind all."""
    merged = {text for left, right in model.merges for text in (left, right, left + right)}
    ids = dict(model.ids)
    for id, token in sorted(added.items()):
        text = token.content
        if ids.setdefault(text, id) != id:
            raise CheckpointError(f"added token {text} has id {id}, but also {ids[text]}: keep one")
        if 0 <= id < len(model.pieces):
            piece = model.pieces[id]
            needed = piece.kind == _BYTE or piece.text in merged
            needed |= piece.text in model.plain and len(piece.text) == 1
            if needed and piece.text != text:
                raise CheckpointError(
                    f"added token {text} has id {id}, which is piece {piece.text}: give it another"
                )
        elif id != len(model.pieces) and id - 1 not in added:
            raise CheckpointError(
                f"added token {text} has id {id}, but none has {id - 1}: close the gap"
            )


def _normalizers(spec: dict[str, Any]) -> list[Any]:
    prefix = [normalizers.Prepend(_SPACE)] if spec["add_dummy_prefix"] else []
    rules = spec["precompiled_charsmap"]
    change = [normalizers.Precompiled(rules)] if rules else []
    escape = normalizers.Replace(" ", _SPACE)
    if not spec["remove_extra_whitespaces"]:
        return [*prefix, *change, escape]
    return [
        *change,
        normalizers.Replace(Regex(r"\A +"), ""),
        normalizers.Replace(Regex(" +"), " "),
        escape,
        *prefix,
        normalizers.Replace(Regex(rf"{_SPACE}+\z"), ""),
    ]


def _decoders(spec: dict[str, Any], silent: list[str]) -> list[Any]:
    names = "|".join(map(re.escape, silent))
    first = r"\A" + _SPACE + ("+" if spec["remove_extra_whitespaces"] else "")
    strip = spec["remove_extra_whitespaces"] or spec["add_dummy_prefix"]
    return [
        *([decoders.Replace(Regex(rf"\A(?:{names})\z"), "")] if silent else []),
        decoders.ByteFallback(),
        decoders.Fuse(),
        *([decoders.Replace(Regex(first), "")] if strip else []),
        decoders.Replace(_SPACE, " "),
        # InternLM2's tokenizer closes up punctuation and contractions in whatever it decodes.
        decoders.Replace(Regex(" (?=[.?!,])"), ""),
        decoders.Replace(" ' ", "'"),
        decoders.Replace(Regex(" (?=n't|'(?:m|s|ve|re))"), ""),
    ]


def _ends(settings: dict[str, Any], model: _Model, names: list[str]) -> Any:
    """Puts the tokens of a text's ends around it, where special tokens are asked for."""
    around: dict[str, list[tuple[str, int]]] = {"bos": [], "eos": []}
    for end, default in (("bos", True), ("eos", False)):
        id = model.ids.get(model.training[f"{end}_piece"])
        if id is not None and settings.get(f"add_{end}_token", default):
            around[end] = [(names[id], id)]
    bos, eos = around["bos"], around["eos"]
    single = [*(name for name, _ in bos), "$A", *(name for name, _ in eos)]
    return processors.TemplateProcessing(single=single, special_tokens=bos + eos)
