"""A backbone's shape without its weights, so that a recipe can be checked before anything loads."""

from __future__ import annotations

from pathlib import Path

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.backbones.gguf import GgufFile
from lightning_mono.backbones.huggingface import folder_config
from lightning_mono.backbones.located import located

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
    """The shape of a packaged backbone, a folder or a GGUF file; None where loading would tell.

    Raises:
        CheckpointError: it is there but damaged, or of a family that is not supported.
    """
    if spec in PACKAGED_SHAPES:
        return PACKAGED_SHAPES[spec]
    path = Path(spec).expanduser()
    if path.is_dir():
        return folder_config(path)
    if path.is_file() and path.suffix == ".gguf":
        with located(path):
            return GgufFile(path).config()
    return None
