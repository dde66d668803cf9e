"""InternVL's folders, the published ones and transformers': the same model, and written back whole.

The published code is not at hand; ``Official`` below says its arithmetic again, tensor by tensor,
under its names (github.com/OpenGVLab/InternVL, modeling_intern_vit.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from lightning_mono.checkpoints.tower import load_tower
from lightning_mono.errors import CheckpointError
from lightning_mono.model import ExpertsConfig, MonoConfig, MonoModel, PatchifierConfig, VitConfig
from lightning_mono.model.patchifier import VitPatchifier
from lightning_mono.testing import IMAGE, tiny_decoder, tiny_model

WIDTH, HIDDEN, HEADS, LAYERS, SIDE = 8, 16, 2, 2, 16
LAYER_NORM = {"norm_type": "layer_norm", "qk_normalization": False, "qkv_bias": True}
RMS_NORM = {"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False}


def _vision(kind: dict[str, Any]) -> dict[str, Any]:
    """InternVL2-2B's vision_config, smaller."""
    return {
        "architectures": ["InternVisionModel"],
        "attention_dropout": 0.0,
        "drop_path_rate": 0.1,
        "dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_size": WIDTH,
        "image_size": SIDE,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 12,
        "layer_norm_eps": 1e-6,
        "model_type": "intern_vit_6b",
        "num_attention_heads": HEADS,
        "num_channels": 3,
        "num_hidden_layers": LAYERS,
        "patch_size": 4,
        "torch_dtype": "bfloat16",
        "use_bfloat16": True,
        "use_flash_attn": True,
        **kind,
    }


def _official(kind: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random tensors of a vision tower and MLP by their published names."""
    torch.manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (1, 1, WIDTH),
        "vision_model.embeddings.patch_embedding.weight": (WIDTH, 3, 4, 4),
        "vision_model.embeddings.patch_embedding.bias": (WIDTH,),
        "vision_model.embeddings.position_embedding": (1, 1 + (SIDE // 4) ** 2, WIDTH),
        "mlp1.0.weight": (4 * WIDTH,),
        "mlp1.0.bias": (4 * WIDTH,),
        "mlp1.1.weight": (HIDDEN, 4 * WIDTH),
        "mlp1.1.bias": (HIDDEN,),
        "mlp1.3.weight": (HIDDEN, HIDDEN),
        "mlp1.3.bias": (HIDDEN,),
    }
    norms = [
        "norm1",
        "norm2",
        *(["attn.q_norm", "attn.k_norm"] if kind["qk_normalization"] else []),
    ]
    for layer in range(LAYERS):
        own: dict[str, tuple[int, ...]] = {
            "attn.qkv.weight": (3 * WIDTH, WIDTH),
            "attn.proj.weight": (WIDTH, WIDTH),
            "attn.proj.bias": (WIDTH,),
            "mlp.fc1.weight": (12, WIDTH),
            "mlp.fc1.bias": (12,),
            "mlp.fc2.weight": (WIDTH, 12),
            "mlp.fc2.bias": (WIDTH,),
            "ls1": (WIDTH,),
            "ls2": (WIDTH,),
            **{f"{norm}.weight": (WIDTH,) for norm in norms},
        }
        if kind["qkv_bias"]:
            own["attn.qkv.bias"] = (3 * WIDTH,)
        if kind["norm_type"] == "layer_norm":
            own |= {"norm1.bias": (WIDTH,), "norm2.bias": (WIDTH,)}
        shapes |= {f"vision_model.encoder.layers.{layer}.{n}": s for n, s in own.items()}
    return {name: torch.randn(shape) * 0.5 for name, shape in shapes.items()}


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def _tower(w: dict[str, Tensor], kind: dict[str, Any], pixels: Tensor, order: str) -> Tensor:
    """What the published code makes of tiles: (tiles, tokens, hidden)."""
    tiles, grid = len(pixels), pixels.shape[-1] // 4
    at = "vision_model.embeddings."
    patches = F.conv2d(pixels, w[f"{at}patch_embedding.weight"], w[f"{at}patch_embedding.bias"], 4)
    x = torch.cat([w[f"{at}class_embedding"].expand(tiles, 1, -1), patches.flatten(2).mT], 1)
    table, side = w[f"{at}position_embedding"], SIDE // 4
    rest = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    rest = F.interpolate(rest, size=(grid, grid), mode="bicubic", align_corners=False)
    x = x + torch.cat([table[:, :1], rest.flatten(2).mT], 1)
    for layer in range(LAYERS):
        p = {
            name.removeprefix(f"vision_model.encoder.layers.{layer}."): value
            for name, value in w.items()
            if name.startswith(f"vision_model.encoder.layers.{layer}.")
        }

        def norm(x: Tensor, name: str, p: dict[str, Tensor] = p) -> Tensor:
            if kind["norm_type"] == "rms_norm":
                return _rms(x, p[f"{name}.weight"])
            return F.layer_norm(x, (WIDTH,), p[f"{name}.weight"], p[f"{name}.bias"], 1e-6)

        qkv = F.linear(norm(x, "norm1"), p["attn.qkv.weight"], p.get("attn.qkv.bias"))
        q, k, v = qkv.reshape(tiles, -1, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        if kind["qk_normalization"]:
            q, k = (
                _rms(t.transpose(1, 2).flatten(-2), p[f"attn.{n}_norm.weight"])
                .unflatten(-1, (HEADS, -1))
                .transpose(1, 2)
                for n, t in (("q", q), ("k", k))
            )
        weights = ((q * (WIDTH // HEADS) ** -0.5) @ k.mT).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).reshape(tiles, -1, WIDTH)
        x = x + F.linear(mixed, p["attn.proj.weight"], p["attn.proj.bias"]) * p["ls1"]
        inner = F.gelu(F.linear(norm(x, "norm2"), p["mlp.fc1.weight"], p["mlp.fc1.bias"]))
        x = x + F.linear(inner, p["mlp.fc2.weight"], p["mlp.fc2.bias"]) * p["ls2"]
    x = x[:, 1:].reshape(tiles, grid, grid // 2, 2 * WIDTH)
    x = x.permute(0, 2, 1, 3).reshape(tiles, grid // 2, grid // 2, 4 * WIDTH)
    x = (x if order == "v1" else x.permute(0, 2, 1, 3)).reshape(tiles, -1, 4 * WIDTH)
    x = F.layer_norm(x, (4 * WIDTH,), w["mlp1.0.weight"], w["mlp1.0.bias"])
    x = F.gelu(F.linear(x, w["mlp1.1.weight"], w["mlp1.1.bias"]))
    return F.linear(x, w["mlp1.3.weight"], w["mlp1.3.bias"])


def write_published(folder: Path, kind: dict[str, Any], order: str = "v2") -> dict[str, Tensor]:
    """A folder as OpenGVLab's: InternViT, MLP, InternLM2; returns what model.safetensors holds."""
    decoder = tiny_decoder(family="internlm2")
    # The language model's part is held to the published code by tests/golden.
    tiny_model(MonoConfig(decoder)).save_pretrained(folder)
    llm = json.loads((folder / "config.json").read_text())
    text = {f"language_model.{n}": v for n, v in load_file(folder / "model.safetensors").items()}
    tensors = {**text, **_official(kind)}
    config = {
        "_commit_hash": None,
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": SIDE,
        "llm_config": {**llm, "architectures": ["InternLM2ForCausalLM"]},
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "model_type": "internvl_chat",
        "ps_version": order,
        "select_layer": -1,
        "template": "internlm2-chat",
        "torch_dtype": "float32",
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": True,
        "vision_config": _vision(kind),
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "added_tokens.json").write_text(json.dumps({"<IMG_CONTEXT>": IMAGE}))
    save_file(tensors, folder / "model.safetensors")
    return tensors


@pytest.mark.parametrize("order", ["v1", "v2"])
@pytest.mark.parametrize("kind", [LAYER_NORM, RMS_NORM], ids=["layer_norm", "rms_norm"])
def test_a_published_folder_computes_what_its_code_does(
    kind: dict[str, Any], order: str, tmp_path: Path
) -> None:
    tensors = write_published(tmp_path, kind, order)
    model = MonoModel.from_pretrained(tmp_path)
    assert model.config.experts == ExpertsConfig()
    assert model.config.image_context_id == IMAGE
    for side in (SIDE, 24):
        pixels = torch.randn(2, 3, side, side)
        with torch.no_grad():
            ours = model.patchifier(pixels)
        theirs = _tower(tensors, kind, pixels, order)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [LAYER_NORM, RMS_NORM], ids=["layer_norm", "rms_norm"])
def test_written_back_it_has_the_same_names_values_and_entries(
    kind: dict[str, Any], tmp_path: Path
) -> None:
    tensors = write_published(tmp_path / "a", kind)
    MonoModel.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    again = load_file(tmp_path / "b" / "model.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], value) for name, value in tensors.items())
    before, after = (json.loads((tmp_path / f / "config.json").read_text()) for f in "ab")
    assert after.pop("img_context_token_id") == IMAGE
    assert after == before


def test_tiles_of_another_size_keep_the_table_in_the_file(tmp_path: Path) -> None:
    write_published(tmp_path / "a", LAYER_NORM)
    wider = MonoModel.from_pretrained(tmp_path / "a", image_size=24)
    wider.save_pretrained(tmp_path / "b")
    again = MonoModel.from_pretrained(tmp_path / "b")
    assert again.config.patchifier == replace(
        MonoModel.from_pretrained(tmp_path / "a").config.patchifier, image_size=24, table_size=16
    )
    assert torch.equal(again.patchifier.vit.positions, wider.patchifier.vit.positions)


# -- transformers' folders ---------------------------------------------------------------------

TEXTS: dict[str, Callable[..., PreTrainedConfig]] = {"qwen2": Qwen2Config, "llama": LlamaConfig}


def _theirs(folder: Path, text: str, *, tied: bool, **vision: Any) -> Any:
    torch.manual_seed(0)
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=12,
            image_size=SIDE,
            patch_size=4,
            **vision,
        ),
        text_config=TEXTS[text](
            hidden_size=HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=24,
            vocab_size=64,
            tie_word_embeddings=tied,
        ),
        image_token_id=IMAGE,
        tie_word_embeddings=tied,
    )
    model = InternVLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "vision",
    [{"attention_bias": True}, {"use_qk_norm": True, "norm_type": "rms_norm"}],
    ids=["layer_norm", "rms_norm"],
)
def test_transformers_whole_model_is_ours(
    text: str, tied: bool, vision: dict[str, Any], tmp_path: Path
) -> None:
    theirs = _theirs(tmp_path / "a", text, tied=tied, **vision)
    ours = MonoModel.from_pretrained(tmp_path / "a").eval()
    assert ours.config.decoder.tied is tied
    ids = torch.tensor([[5, *[IMAGE] * 4, 6, 7, *[IMAGE] * 4, 8], [9] * 8 + [IMAGE] * 4])
    ids[1, 8:] = torch.tensor([10, 11, 12, 13])
    ids = torch.cat([ids, torch.tensor([[20, 21], [22, 23]])], dim=1)
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        wanted = theirs(input_ids=ids, pixel_values=pixels, labels=ids)
        found = ours(ids, pixels, labels=ids)
    torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.loss, wanted.loss, rtol=1e-5, atol=1e-5)
    ours.save_pretrained(tmp_path / "b")
    again = MonoModel.from_pretrained(tmp_path / "b")
    assert again.config == ours.config
    assert "vision_model.encoder.layers.0.attn.qkv.weight" in load_file(
        tmp_path / "b" / "model.safetensors"
    )
    for name, value in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


# -- towers by themselves ----------------------------------------------------------------------


def _patchifier(image_size: int = SIDE, **changes: Any) -> VitPatchifier:
    shape = VitConfig(**{"layers": LAYERS, "heads": HEADS, "mlp_ratio": 1.5, **changes})
    config = PatchifierConfig(image_size, 4, WIDTH, kind="vit", vit=shape)
    return VitPatchifier(config, HIDDEN)


@pytest.mark.parametrize("home", ["internvit", "internvl", "transformers"])
def test_a_tower_alone_is_taken_from_any_of_them(home: str, tmp_path: Path) -> None:
    if home == "transformers":
        _theirs(tmp_path, "qwen2", tied=False, attention_bias=True)
    else:
        write_published(tmp_path, LAYER_NORM)
    wanted = MonoModel.from_pretrained(tmp_path).patchifier
    if home == "internvit":
        start = "vision_model."
        own = load_file(tmp_path / "model.safetensors").items()
        tower = {n.removeprefix(start): v for n, v in own if n.startswith(start)}
        save_file(tower, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(_vision(LAYER_NORM)))
    ours = _patchifier()
    projector = {name: value.clone() for name, value in ours.projector.state_dict().items()}
    load_tower(ours, tmp_path)
    for name, value in wanted.vit.state_dict().items():
        assert torch.equal(ours.vit.state_dict()[name], value), name
    assert all(torch.equal(ours.projector.state_dict()[n], v) for n, v in projector.items())


@torch.no_grad()
def test_a_tower_for_tiles_of_another_size_has_its_table_resized(tmp_path: Path) -> None:
    write_published(tmp_path, LAYER_NORM)
    published = MonoModel.from_pretrained(tmp_path).patchifier
    ours = _patchifier(image_size=32)
    load_tower(ours, tmp_path)
    assert ours.vit.positions.shape == (8, 8, WIDTH)
    pixels = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(ours.vit(pixels), published.vit(pixels))


# -- faults ------------------------------------------------------------------------------------


def _changed(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    entries = json.loads(path.read_text())
    for key, value in changes.items():
        section = entries[key] if isinstance(value, dict) else entries
        section.update(value if isinstance(value, dict) else {key: value})
    path.write_text(json.dumps(entries))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"select_layer": -4}, "select_layer is -4; only -1"),
        ({"vision_config": {"hidden_act": "relu"}}, "hidden_act 'relu' is not 'gelu'"),
        ({"vision_config": {"norm_type": "batch"}}, "norm_type 'batch' is none of"),
        ({"vision_config": {"num_attention_heads": 3}}, r"width 8 is no multiple of vit\.heads 3"),
        (
            {"vision_config": {"num_hidden_layers": 3}},
            r"no tensor vision_model\.enc\w+\.layers\.2",
        ),
        ({"vision_config": {"intermediate_size": 8}}, r"fc1\.weight has shape \(12, 8\).*\(8, 8\)"),
    ],
)
def test_published_folders_that_are_no_such_model_say_why(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    write_published(tmp_path, LAYER_NORM)
    _changed(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=says) as caught:
        MonoModel.from_pretrained(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vision_config": {"use_mean_pooling": False}}, "use_mean_pooling is False, not True"),
        ({"vision_config": {"image_size": [16, 32]}}, r"image_size is \[16, 32\].*no square"),
        ({"projector_hidden_act": "relu"}, "projector_hidden_act is 'relu', not 'gelu'"),
        ({"vision_feature_layer": -2}, "select_layer is -2"),
    ],
)
def test_transformers_folders_that_are_no_such_model_say_why(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    _theirs(tmp_path, "qwen2", tied=False)
    _changed(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=says) as caught:
        MonoModel.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layers": 1}, "layers=2.*layers=1"),
        ({"norm": "rms_norm"}, "norm='layer_norm'.*norm='rms_norm'"),
    ],
)
def test_a_tower_of_another_shape_is_refused(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    write_published(tmp_path, LAYER_NORM)
    with pytest.raises(CheckpointError, match=says):
        load_tower(_patchifier(**changes), tmp_path)


def test_what_is_no_tower_is_refused(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="'intern_vit_patch' is no 'intern_vit_6b'"):
        load_tower(_patchifier(), tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("vision_model.encoder.layers.1.ls2", r"no tensor vision_model\.encoder\.layers\.1\.ls2"),
        ("vision_model.norm.weight", r"tensor vision_model\.norm\.weight has no place"),
    ],
)
def test_a_tower_that_lacks_a_tensor_or_has_one_too_many_is_refused(
    name: str, says: str, tmp_path: Path
) -> None:
    tensors = write_published(tmp_path, LAYER_NORM)
    if tensors.pop(name, None) is None:
        tensors[name] = torch.zeros(WIDTH)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=says):
        load_tower(_patchifier(), tmp_path)
