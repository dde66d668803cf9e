"""Shapes without weights are those that loading gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_mono.backbones import PACKAGED, Backbone, save_backbone
from lightning_mono.backbones.peek import PACKAGED_SHAPES, peek_config
from lightning_mono.errors import CheckpointError


def test_packaged_shapes_are_those_of_the_packages(smollm2: Backbone) -> None:
    assert PACKAGED_SHAPES.keys() == PACKAGED.keys()
    shape = PACKAGED_SHAPES["smollm2-135m"]
    assert shape.rms_eps == pytest.approx(smollm2.config.rms_eps)
    assert replace(shape, rms_eps=smollm2.config.rms_eps) == smollm2.config


def test_a_folder_needs_no_weights(tmp_path: Path, make_backbone: Callable[..., Backbone]) -> None:
    backbone = make_backbone()
    save_backbone(tmp_path, backbone)
    (tmp_path / "model.safetensors").unlink()
    assert peek_config(str(tmp_path)) == backbone.config


def test_what_is_not_here_is_not_guessed() -> None:
    assert peek_config("org/tiny") is None
    assert peek_config("no-such-backbone") is None


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        peek_config(str(tmp_path))
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"a\.gguf: cut short"):
        peek_config(str(tmp_path / "a.gguf"))
