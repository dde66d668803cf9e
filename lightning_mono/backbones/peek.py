"""A backbone's shape without its weights, so that a recipe can be checked before anything loads.

The network is not asked: a hub id has the shape of its copy here, or of a table.
"""

from __future__ import annotations

from pathlib import Path

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.backbones.gguf import GgufFile
from lightning_mono.backbones.hub import is_hub_id, local_copy
from lightning_mono.backbones.huggingface import folder_config
from lightning_mono.backbones.known import known
from lightning_mono.backbones.located import located
from lightning_mono.backbones.tokenizer import VISUAL_TOKENS, read_tokenizer

PACKAGED_SHAPES = {
    "smollm2-135m": DecoderConfig(
        family="llama",
        vocab_size=49_152,
        hidden_size=576,
        layers=30,
        heads=9,
        kv_heads=3,
        head_dim=64,
        ffn_size=1536,
        rms_eps=1e-5,
        rope_theta=100_000.0,
        rope_scaling=None,
        max_positions=8192,
        tied=True,
    ),
}


def peek_config(spec: str) -> DecoderConfig | None:
    """The shape of a backbone by its name; None where loading would tell.

    Raises:
        CheckpointError: it is there but damaged, or of a family that is not supported.
    """
    if spec in PACKAGED_SHAPES:
        return PACKAGED_SHAPES[spec]
    path = Path(spec).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        with located(path):
            return GgufFile(path).config()
    folder = here(spec)
    if folder is not None:
        return folder_config(folder)
    listed = known(spec)
    return None if listed is None else listed.config


def here(spec: str) -> Path | None:
    """The folder of a backbone, where it is one or the hub's copy is here."""
    path = Path(spec).expanduser()
    if path.is_dir():
        return path
    return local_copy(spec) if is_hub_id(spec) else None


def peek_tokens(spec: str) -> int | None:
    """Tokens of a backbone's tokenizer once it has the visual ones; None where loading would tell.

    Raises:
        CheckpointError: the tokenizer is damaged.
    """
    if spec in PACKAGED_SHAPES:
        return PACKAGED_SHAPES[spec].vocab_size + len(VISUAL_TOKENS)
    path = Path(spec).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        with located(path):
            return GgufFile(path).config().vocab_size + len(VISUAL_TOKENS)
    folder = here(spec)
    if folder is None:
        listed = known(spec)
        return None if listed is None else listed.tokens + len(VISUAL_TOKENS)
    tokenizer = read_tokenizer(folder)
    lacking = [token for token in VISUAL_TOKENS if tokenizer.token_to_id(token) is None]
    return tokenizer.get_vocab_size() + len(lacking)
