"""Weights on disk: one safetensors file, or several shards with an index. Never a pickle."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_mono.errors import CheckpointError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000

# float16 joined with bfloat16 makes float32.
_DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


class Weights:
    """The tensors of a folder, read one at a time.

    Attributes:
        folder: where they are.
        files: the file of every tensor, by its name there.
    """

    def __init__(self, folder: Path) -> None:
        """Finds the tensors; reads no values.

        Raises:
            CheckpointError: a shard is missing, damaged or cut short, or there are only pickles.
        """
        self.folder = folder
        self.files = _files(folder)
        for path in sorted(set(self.files.values())):
            with _opened(path) as file:
                held = set(file.keys())
            lost = {name for name, home in self.files.items() if home == path} - held
            if lost:
                raise CheckpointError(f"{path}: no tensor {min(lost)}, which {INDEX} says it holds")

    def read(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """A tensor in memory of its own; the file is not kept mapped.

        A mapping for all tensors would hold the file's pages in memory beside their copies.

        Args:
            shape: what it has to be, where that is known.

        Raises:
            CheckpointError: it has another shape.
        """
        path = self.files[name]
        with _opened(path) as file:
            found = tuple(file.get_slice(name).get_shape())
            if shape is not None and found != shape:
                raise CheckpointError(f"{path}: {name} has shape {found}, config.json says {shape}")
            return file.get_tensor(name).clone()

    def dtype(self) -> torch.dtype:
        """The narrowest dtype that holds every tensor exactly and is safe to compute in.

        float16 overflows in these models, so what is stored in it is read as float32.

        Raises:
            CheckpointError: weights are stored as integers or in 8 bits: they are quantised.
        """
        widest = torch.bfloat16
        for path in sorted(set(self.files.values())):
            with _opened(path) as file:
                for name in sorted(file.keys()):
                    kind = file.get_slice(name).get_dtype()
                    if kind not in _DTYPES:
                        known = ", ".join(_DTYPES)
                        raise CheckpointError(f"{path}: {name} is stored as {kind}, not as {known}")
                    widest = torch.promote_types(widest, _DTYPES[kind])
        return widest

    def check_names(self, wanted: set[str], ignored: Iterable[str] = ()) -> None:
        """Nothing may be missing, nor left over: an unread tensor would change the model.

        Args:
            wanted: names that the model needs.
            ignored: names that may be there and are not read.

        Raises:
            CheckpointError: names the first that is missing or left over.
        """
        found = set(self.files)
        if wanted - found:
            first, count = min(wanted - found), len(wanted - found)
            raise CheckpointError(f"{self.folder}: no tensor {first} ({count} missing in all)")
        left = {n for n in found - wanted if not n.endswith("rotary_emb.inv_freq")} - set(ignored)
        if left:
            raise CheckpointError(f"{self.folder}: tensor {min(left)} has no place in this model")


def write_weights(
    folder: Path, tensors: Iterable[tuple[str, Tensor]], shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes tensors aside, then puts them in the place of what the folder holds.

    No more than one shard is held in memory.

    Args:
        folder: an existing folder.
        tensors: names and contiguous tensors, made as they are asked for.
        shard_bytes: a file holds no more than this, unless one tensor alone does.
    """
    try:
        _put_in_place(folder, _written_aside(folder, tensors, shard_bytes))
    finally:
        for left in folder.glob(f".*.{os.getpid()}.tmp"):
            left.unlink()


def _written_aside(
    folder: Path, tensors: Iterable[tuple[str, Tensor]], shard_bytes: int
) -> list[tuple[Path, Path]]:
    """(temporary path, final path) of every file."""
    parts: list[tuple[Path, list[str]]] = []
    sizes = 0
    for number, shard in enumerate(_filled(tensors, shard_bytes), 1):
        temporary = folder / f".shard-{number:05d}.{os.getpid()}.tmp"
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(shard, temporary, metadata={"format": "pt"})
        temporary.chmod(mode)  # safetensors makes files that only their owner can read
        parts.append((temporary, list(shard)))
        sizes += sum(value.nbytes for value in shard.values())
    if len(parts) == 1:
        return [(parts[0][0], folder / WEIGHTS)]
    moves, weight_map = [], {}
    for number, (temporary, names) in enumerate(parts, 1):
        file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        weight_map.update(dict.fromkeys(names, file))
        moves.append((temporary, folder / file))
    index = folder / f".index.{os.getpid()}.tmp"
    entries = {"metadata": {"total_size": sizes}, "weight_map": dict(sorted(weight_map.items()))}
    index.write_text(json.dumps(entries, indent=2) + "\n", "utf-8")
    return [*moves, (index, folder / INDEX)]


def _put_in_place(folder: Path, moves: list[tuple[Path, Path]]) -> None:
    """Flushes files to disk and renames them; then removes weights that they replace."""
    for temporary, _ in moves:
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
    for temporary, final in moves:
        os.replace(temporary, final)
    kept = {final.name for _, final in moves}
    for path in folder.iterdir():
        ours = path.name in (WEIGHTS, INDEX) or _SHARD.fullmatch(path.name)
        if ours and path.name not in kept:
            path.unlink()


def _filled(tensors: Iterable[tuple[str, Tensor]], limit: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    for name, value in tensors:
        if shard and sum(v.nbytes for v in shard.values()) + value.nbytes > limit:
            yield shard
            shard = {}
        shard[name] = value
    yield shard


def _files(folder: Path) -> dict[str, Path]:
    single, index = folder / WEIGHTS, folder / INDEX
    if index.is_file():
        files = read_json(index).get("weight_map")
        if not isinstance(files, dict) or not all(isinstance(f, str) for f in files.values()):
            raise CheckpointError(f"{index}: no key weight_map from names to files")
        outside = [file for file in files.values() if Path(file).name != file]
        if outside:
            raise CheckpointError(f"{index}: {outside[0]} is not a file of this folder")
        shards = {name: folder / file for name, file in files.items()}
        missing = sorted({shard for shard in shards.values() if not shard.is_file()})
        if missing:
            raise CheckpointError(f"{missing[0]} is missing: {INDEX} names it; fetch it again")
        return shards
    if single.is_file():
        with _opened(single) as file:
            return dict.fromkeys(file.keys(), single)
    pickles = sorted(path for end in ("bin", "pt", "pth") for path in folder.glob(f"*.{end}"))
    if pickles:
        raise CheckpointError(_pickled(pickles[0]))
    loose = sorted(folder.glob("*.safetensors"))
    hint = f"; there is {loose[0].name}, but no {INDEX}" if loose else ""
    raise CheckpointError(f"{single} is missing{hint}")


def _pickled(path: Path) -> str:
    script = (
        "import sys, torch, safetensors.torch as s; "
        "s.save_file({k: v.contiguous().clone() for k, v in "
        "torch.load(sys.argv[1], weights_only=True).items()}, sys.argv[1] + '.safetensors')"
    )
    return (
        f"{path} is a pickle, which can run code, and is not read; convert each such file with: "
        f'python -c "{script}" {path.name} and name the result {WEIGHTS}'
    )


def read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """A JSON object from a file; an empty one where an optional file is missing.

    Raises:
        CheckpointError: the file is missing, or holds something else.
    """
    if not path.is_file():
        if optional:
            return {}
        raise CheckpointError(f"{path} is missing: not a model folder in Hugging Face layout")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return content


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or cut short ({error}); fetch or copy it again"
        ) from error
