"""Tiles are chosen by device, measured on request and kept on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning_mono.kernels.fused import tuning
from lightning_mono.kernels.fused.autotune import CANDIDATES, example, fastest, launches, tune
from lightning_mono.kernels.fused.launch import Launch
from lightning_mono.kernels.fused.tuning import DEFAULTS, FP32, INTERPRETED, Tiles


@pytest.mark.parametrize(
    ("capability", "known"), [(80, 80), (86, 80), (89, 80), (90, 90), (100, 90), (120, 90)]
)
def test_a_device_gets_the_newest_tiles_it_is_not_older_than(capability: int, known: int) -> None:
    assert tuning.defaults(capability, torch.bfloat16) == DEFAULTS[known]
    assert tuning.defaults(capability, torch.float32) == FP32


def test_a_file_for_every_device_dtype_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_MONO_CACHE", str(tmp_path))
    keys = [
        ("NVIDIA A100", torch.bfloat16, 2048, 8192),
        ("NVIDIA H100", torch.bfloat16, 2048, 8192),
        ("NVIDIA H100", torch.float32, 2048, 8192),
        ("NVIDIA H100", torch.float32, 576, 1536),
    ]
    files = {tuning.tiles_file(*key) for key in keys}
    assert len(files) == len(keys)
    assert all(file.is_relative_to(tmp_path) for file in files)


def test_tiles_survive_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "tiles.json"
    assert tuning.load(path) is None
    tuning.store(path, DEFAULTS[90])
    assert tuning.load(path) == DEFAULTS[90]
    assert [file.name for file in path.parent.iterdir()] == ["tiles.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"gate_up": [1, 2]}', '{"other": 3}'])
def test_files_of_other_versions_are_passed_over(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tiles.json"
    path.write_text(text)
    assert tuning.load(path) is None


def test_the_cheapest_tile_of_each_kernel_wins() -> None:
    """Every kernel prefers another one; where nothing is cheaper the given one stays."""
    call = example(32, 16, 16, torch.float32, "cpu")
    names = list(Tiles._fields)
    favourites = dict(zip(names, CANDIDATES, strict=False))
    del favourites["down"]
    known = {id(launch.kernel): name for name, launch in launches(call, INTERPRETED).items()}

    def cost(launch: Launch) -> float:
        name = known[id(launch.kernel)]
        if launch.arguments.get("SAVED") is True:
            name = "swiglu_gradient"
        return 1.0 if favourites.get(name) == launch.tile else 2.0

    best = fastest(call, INTERPRETED, cost)
    assert best == INTERPRETED._replace(**favourites)


def test_an_example_serves_every_token_once() -> None:
    call = example(700, 16, 16, torch.float32, "cpu")
    rows = torch.cat([call.text_rows, call.visual_rows])
    assert torch.equal(rows.sort().values, torch.arange(700))
    assert len(call.visual_rows) == 256


def test_tuning_needs_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="measured on a CUDA device"):
        tune(16, 16)
