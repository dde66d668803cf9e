"""What a backbone may be called, and what is said when there is none of that name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_mono.backbones import Backbone, load_backbone, save_backbone
from lightning_mono.errors import AssetError

MakeBackbone = Callable[..., Backbone]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache on a machine that is offline."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def refusal(spec: str) -> str:
    with pytest.raises(AssetError) as error:
        load_backbone(spec)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_misspelt_name_gets_a_suggestion() -> None:
    assert "did you mean smollm2-135m?" in refusal("SmolLM2-135")


@pytest.mark.parametrize("spec", ["nothing-like-it", "./no/such/folder", "/no/such", "a.gguf"])
def test_a_missing_backbone_is_named(spec: str) -> None:
    assert repr(spec) in refusal(spec)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"\x80\x04")
    assert "model.pt" in refusal(str(tmp_path / "model.pt"))


def test_offline_a_hub_id_is_explained(hub: Path) -> None:
    assert "no folder org/tiny, and the hub did not give it" in refusal("org/tiny")


def test_without_the_hub_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'lightning-mono[hub]'" in refusal("org/tiny")


def test_a_hub_id_loads_what_the_hub_cache_holds(hub: Path, make_backbone: MakeBackbone) -> None:
    backbone = make_backbone()
    commit = "0" * 40
    repository = hub / "models--org--tiny"
    save_backbone(repository / "snapshots" / commit, backbone)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    loaded = load_backbone("org/tiny")
    assert (loaded.name, loaded.config) == ("tiny", backbone.config)
