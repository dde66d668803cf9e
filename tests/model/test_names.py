"""Parameter names are a contract: checkpoints, parameter groups and optimizers go by them."""

from __future__ import annotations

from lightning_mono.model import ExpertsConfig, MonoConfig, MonoModel, PatchifierConfig, VitConfig
from lightning_mono.testing import tiny_config, tiny_decoder

GOLDEN = [
    "embed.weight",
    "patchifier.positions",
    "patchifier.conv.weight",
    "patchifier.conv.bias",
    "patchifier.norm.weight",
    "patchifier.norm.bias",
    "patchifier.up.weight",
    "patchifier.up.bias",
    "patchifier.down.weight",
    "patchifier.down.bias",
    "layers.0.attention_norm.text.weight",
    "layers.0.attention_norm.visual.weight",
    "layers.0.attention.qkv.text.q.weight",
    "layers.0.attention.qkv.text.k.weight",
    "layers.0.attention.qkv.text.v.weight",
    "layers.0.attention.qkv.visual.q.weight",
    "layers.0.attention.qkv.visual.k.weight",
    "layers.0.attention.qkv.visual.v.weight",
    "layers.0.attention.out.text.weight",
    "layers.0.attention.out.visual.weight",
    "layers.0.ffn_norm.text.weight",
    "layers.0.ffn_norm.visual.weight",
    "layers.0.ffn.text.gate.weight",
    "layers.0.ffn.text.up.weight",
    "layers.0.ffn.text.down.weight",
    "layers.0.ffn.visual.gate.weight",
    "layers.0.ffn.visual.up.weight",
    "layers.0.ffn.visual.down.weight",
    "norm.weight",
    "head.weight",
]


def test_names_of_a_full_layer() -> None:
    model = MonoModel(tiny_config(layers=1))
    assert [name for name, _ in model.named_parameters()] == GOLDEN
    unread = ["patchifier.class_embedding", "patchifier.class_position"]
    assert sorted(model.state_dict()) == sorted(GOLDEN + unread)


def test_names_without_experts_are_those_of_the_backbone() -> None:
    model = MonoModel(MonoConfig(tiny_decoder(layers=1, tied=True)))
    expected = [
        name
        for name in GOLDEN
        if ".visual." not in name and "patchifier" not in name and name != "head.weight"
    ]
    assert [name for name, _ in model.named_parameters()] == expected


def test_biases_are_named_beside_their_weights() -> None:
    config = tiny_config(ExpertsConfig(attention=(0,)), layers=1, qkv_bias=True, out_bias=True)
    names = {name for name, _ in MonoModel(config).named_parameters()}
    for modality in ("text", "visual"):
        assert {f"layers.0.attention.qkv.{modality}.{p}.bias" for p in "qkv"} <= names
        assert f"layers.0.attention.out.{modality}.bias" in names


LAYER = "patchifier.vit.layers.0"
TWIN = [
    "patchifier.vit.class_embedding",
    "patchifier.vit.class_position",
    "patchifier.vit.positions",
    "patchifier.vit.conv.weight",
    "patchifier.vit.conv.bias",
    f"{LAYER}.attention_scale",
    f"{LAYER}.mlp_scale",
    f"{LAYER}.attention_norm.weight",
    f"{LAYER}.attention_norm.bias",
    f"{LAYER}.attention.qkv.weight",
    f"{LAYER}.attention.qkv.bias",
    f"{LAYER}.attention.q_norm.weight",
    f"{LAYER}.attention.k_norm.weight",
    f"{LAYER}.attention.out.weight",
    f"{LAYER}.attention.out.bias",
    f"{LAYER}.mlp_norm.weight",
    f"{LAYER}.mlp_norm.bias",
    f"{LAYER}.mlp.up.weight",
    f"{LAYER}.mlp.up.bias",
    f"{LAYER}.mlp.down.weight",
    f"{LAYER}.mlp.down.bias",
    *(
        f"patchifier.projector.{block}.{leaf}"
        for block in ("norm", "up", "down")
        for leaf in ("weight", "bias")
    ),
]


def test_names_of_the_modular_twins_patchifier() -> None:
    vit = VitConfig(layers=1, heads=2, qk_norm=True)
    config = PatchifierConfig(16, 4, 8, kind="vit", vit=vit)
    model = MonoModel(MonoConfig(tiny_decoder(layers=1), config))
    assert [name for name in model.state_dict() if name.startswith("patchifier.")] == TWIN
