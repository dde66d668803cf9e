"""Model folders from the Hugging Face hub: data files only, never code."""

from __future__ import annotations

import re
from pathlib import Path

from lightning_mono.errors import AssetError

_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]


def is_hub_id(spec: str) -> bool:
    """Whether ``spec`` reads like ``OpenGVLab/Mono-InternVL-2B`` and no such path exists here."""
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", spec)) and not Path(spec).exists()


def from_hub(spec: str) -> Path:
    """The local copy of a model on the hub, fetched if need be.

    Raises:
        AssetError: the client is not installed, or the hub did not give it.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise AssetError(
            f"no folder {spec}; to fetch it from the hub: pip install 'lightning-mono[hub]'"
        ) from None
    try:
        folder = snapshot_download(spec, allow_patterns=_FILES, ignore_patterns=["*/*"])
    except Exception as error:  # the client's own, its HTTP library's, or the system's
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise AssetError(f"no folder {spec}, and the hub did not give it: {said[0]}") from error
    return Path(folder)


def local_copy(spec: str) -> Path | None:
    """The copy of a model that was fetched before; the network is not asked."""
    try:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(spec, local_files_only=True))
    except Exception:  # no client, no copy, or no valid id: it is not here
        return None
    return folder if (folder / "config.json").is_file() else None
