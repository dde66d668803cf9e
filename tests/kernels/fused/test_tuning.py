"""Tiles are chosen by device, measured on request and kept on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_mono.kernels.fused import autotune, tuning
from lightning_mono.kernels.fused.autotune import CANDIDATES, fastest
from lightning_mono.kernels.fused.examples import (
    Example,
    ffn_call,
    ffn_launches,
    linear_call,
    linear_launches,
)
from lightning_mono.kernels.fused.launch import Launch
from lightning_mono.kernels.fused.tuning import (
    DEFAULTS,
    FP32,
    INTERPRETED,
    LINEAR_DEFAULTS,
    LINEAR_FP32,
    LINEAR_INTERPRETED,
    ROUNDED,
    LinearTiles,
    Tiles,
    ffn_shape,
)

CPU = torch.device("cpu")
SMALL = Example(tokens=32, dtype=torch.float32, visual_dtype=torch.float32, device=CPU)
KINDS = {
    "ffn": (INTERPRETED, lambda tiles: ffn_launches(ffn_call(SMALL, 16, 16), tiles)),
    "linear": (
        LINEAR_INTERPRETED,
        lambda tiles: linear_launches(linear_call(SMALL, 16, (16, 16, 16)), tiles),
    ),
}


@pytest.mark.parametrize(
    ("capability", "known"), [(80, 80), (86, 80), (89, 80), (90, 90), (100, 90), (120, 90)]
)
def test_a_device_gets_the_newest_tiles_it_is_not_older_than(capability: int, known: int) -> None:
    bf16, fp32 = torch.bfloat16, torch.float32
    assert tuning.defaults(Tiles, capability, bf16) == DEFAULTS[known]
    assert tuning.defaults(Tiles, capability, fp32) == FP32
    assert tuning.defaults(LinearTiles, capability, bf16) == LINEAR_DEFAULTS[known]
    assert tuning.defaults(LinearTiles, capability, fp32) == LINEAR_FP32
    rounded = tuning.defaults(Tiles, capability, bf16, rounded=True)
    assert rounded == DEFAULTS[known]._replace(**ROUNDED[known])


def test_a_file_for_every_device_dtype_and_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_MONO_CACHE", str(tmp_path))
    nf4 = SMALL._replace(rounded=True)
    linears = [
        linear_call(SMALL, 64, (64,)),
        linear_call(SMALL, 64, (64, 32)),
        linear_call(SMALL, 64, (64,), normed=True),
        linear_call(nf4, 64, (64,)),
    ]
    shapes = [call.pair.shape for call in linears]
    shapes += [ffn_shape(64, 128, rounded=False), ffn_shape(64, 128, rounded=True)]
    shapes += [ffn_shape(128, 64, rounded=False)]
    devices, dtypes = ("NVIDIA A100", "NVIDIA H100"), (torch.bfloat16, torch.float32)
    keys = [(device, dtype, shape) for device in devices for dtype in dtypes for shape in shapes]
    files = {tuning.tiles_file(*key) for key in keys}
    assert len(files) == len(keys) == 28
    assert all(file.is_relative_to(tmp_path) for file in files)


@pytest.mark.parametrize("tiles", [DEFAULTS[90], LINEAR_DEFAULTS[80]])
def test_tiles_survive_the_disk(tmp_path: Path, tiles: Any) -> None:
    path = tmp_path / "sub" / "tiles.json"
    assert tuning.load(type(tiles), path) is None
    tuning.write(path, tiles)
    assert tuning.load(type(tiles), path) == tiles
    assert [file.name for file in path.parent.iterdir()] == ["tiles.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"gate_up": [1, 2]}', '{"other": 3}'])
@pytest.mark.parametrize("kind", [Tiles, LinearTiles])
def test_files_of_other_versions_are_passed_over(tmp_path: Path, kind: Any, text: str) -> None:
    path = tmp_path / "tiles.json"
    path.write_text(text)
    assert tuning.load(kind, path) is None


class _Cuda:
    """What a tensor on a GPU says of itself; there is none here."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.device, self.dtype = torch.device("cuda", 0), dtype


def test_measured_tiles_are_used_and_only_for_what_they_were_measured_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_MONO_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    monkeypatch.setattr(tuning, "capability", lambda _: 80)
    tuning._measured.cache_clear()
    x: Any = _Cuda(torch.bfloat16)
    shape, best = linear_call(SMALL, 64, (64,)).pair.shape, LinearTiles(*[CANDIDATES[0]] * 3)
    assert tuning.tiles_for(LinearTiles, x, shape) == LINEAR_DEFAULTS[80]
    tuning.store(x, shape, best)
    assert tuning.tiles_for(LinearTiles, x, shape) == best
    assert tuning.tiles_for(LinearTiles, x, shape, measured=False) == LINEAR_DEFAULTS[80]
    assert tuning.tiles_for(LinearTiles, x, f"{shape} normed") == LINEAR_DEFAULTS[80]
    other: Any = _Cuda(torch.float32)
    assert tuning.tiles_for(LinearTiles, other, shape) == LINEAR_FP32


@pytest.mark.parametrize("kind", KINDS)
def test_the_cheapest_tile_of_each_kernel_wins(kind: str) -> None:
    """Every kernel prefers another one; where nothing is cheaper the given one stays."""
    given, make = KINDS[kind]
    names = list(given._fields)
    favourites = dict(zip(names, CANDIDATES, strict=False))
    del favourites[names[1]]
    made: dict[int, str] = {}

    def launches(tiles: Any) -> Mapping[str, Launch]:
        found = make(tiles)
        made.update({id(launch): name for name, launch in found.items()})
        kept.append(found)
        return found

    kept: list[Mapping[str, Launch]] = []  # or ids of launches would be given out twice

    def cost(launch: Launch) -> float:
        wanted = favourites.get(made[id(launch)])
        return 1.0 if wanted is not None and wanted[:2] == launch.tile[:2] else 2.0

    best = fastest(launches, given, cost)
    expected = {
        name: next(tile for tile in CANDIDATES if tile[:2] == favourite[:2])
        for name, favourite in favourites.items()
    }
    assert best == given._replace(**expected)


def test_an_example_serves_every_token_once() -> None:
    rows = SMALL._replace(tokens=700).rows()
    assert torch.equal(torch.cat([rows.text, rows.visual]).sort().values, torch.arange(700))
    assert len(rows.visual) == 256


def test_no_candidate_is_deeper_than_a_block_of_scales() -> None:
    every = [*CANDIDATES, *DEFAULTS[80], *DEFAULTS[90], *LINEAR_DEFAULTS[80], *LINEAR_DEFAULTS[90]]
    assert all(64 % tile.depth == 0 for tile in every)


def test_the_command_tunes_ffn_and_projections(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--hidden",
        "64",
        "--ffn",
        "128",
        "--heads",
        "4",
        "--kv-heads",
        "2",
        "--text",
        "nf4",
        "--tokens",
        "32",
    ]
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="measured on a CUDA device"):
            autotune.main(options)
    tuned: list[str] = []

    def note(x: Any, shape: str, tiles: Any) -> None:
        tuned.append(shape)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(autotune, "Example", lambda **given: Example(**{**given, "device": CPU}))
    monkeypatch.setattr(autotune, "milliseconds", lambda launch: float(launch.tile.rows))
    monkeypatch.setattr(autotune, "store", note)
    autotune.main(options)
    assert tuned == [
        "ffn 64x128 rounded",
        "linear 64x64+32+32 rounded",
        "linear 64x64+32+32 rounded normed",
        "linear 64x64 rounded",
    ]
    assert len(capsys.readouterr().out.splitlines()) == 4
