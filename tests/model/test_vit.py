"""The modular twin's vision tower is InternVL's: numbers, gradients, sizes, reading orders."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import InternVLConfig, InternVLVisionConfig, InternVLVisionModel, Qwen2Config
from transformers.models.internvl.modeling_internvl import (
    InternVLModel,
    InternVLMultiModalProjector,
)

from lightning_mono.model import MonoConfig, MonoModel, PatchifierConfig, VitConfig
from lightning_mono.model.config import NORM_KINDS, NormKind
from lightning_mono.model.decoder import recompute_layers
from lightning_mono.model.patchifier import VitPatchifier
from lightning_mono.testing import IMAGE, tiny_backbone, tiny_decoder

HIDDEN = 16
BLOCKS = {
    "attention_norm": "layernorm_before",
    "attention.out": "attention.projection_layer",
    "attention.q_norm": "attention.q_norm",
    "attention.k_norm": "attention.k_norm",
    "mlp_norm": "layernorm_after",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}


def tiny_vit(side: int = 16, merge: int = 2, **vit: object) -> PatchifierConfig:
    shape = VitConfig(**{"layers": 2, "heads": 2, "mlp_ratio": 1.5, **vit})  # type: ignore[arg-type]
    return PatchifierConfig(side, 4, 8, merge, kind="vit", vit=shape)


class Reference(nn.Module):
    """transformers' vision tower and projector, with the model's own way between the two."""

    def __init__(self, config: PatchifierConfig) -> None:
        super().__init__()
        shape = config.vit
        assert shape is not None
        vision = InternVLVisionConfig(
            hidden_size=config.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.mlp_size(config.width),
            image_size=config.table_size or config.image_size,
            patch_size=config.patch_size,
            norm_type=shape.norm,
            use_qk_norm=shape.qk_norm,
            attention_bias=shape.qkv_bias,
        )
        text = Qwen2Config(hidden_size=HIDDEN)
        ratio = 1 / config.merge
        whole = InternVLConfig(vision_config=vision, text_config=text, downsample_ratio=ratio)
        self.config = whole
        self.vision_tower = InternVLVisionModel(vision)
        self.multi_modal_projector = InternVLMultiModalProjector(whole)

    pixel_shuffle = InternVLModel.pixel_shuffle
    dtype = torch.float32

    def forward(self, pixel_values: Tensor) -> Tensor:
        return InternVLModel.get_image_features(self, pixel_values).pooler_output

    @torch.no_grad()
    def copy_of(self, ours: VitPatchifier) -> Reference:
        """Gives it the weights of ours, by their names."""
        theirs = dict(self.named_parameters())
        for name, value in _renamed(dict(ours.named_parameters())).items():
            theirs.pop(name).copy_(value)
        assert not theirs, f"no weight for {min(theirs)}"
        return self


def _renamed(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of our patchifier by the names and in the shapes of transformers."""
    embeddings = "vision_tower.embeddings"
    positions = [ours["vit.class_position"][None], ours["vit.positions"].flatten(0, 1)]
    found = {
        f"{embeddings}.cls_token": ours["vit.class_embedding"][None, None],
        f"{embeddings}.position_embeddings": torch.cat(positions)[None],
    }
    for name, value in ours.items():
        block, _, leaf = name.rpartition(".")
        if block == "vit.conv":
            found[f"{embeddings}.patch_embeddings.projection.{leaf}"] = value
        elif block.startswith("projector."):
            theirs = {"norm": "layer_norm", "up": "linear_1", "down": "linear_2"}[block[10:]]
            found[f"multi_modal_projector.{theirs}.{leaf}"] = value
        elif block.startswith("vit.layers."):
            number, _, inner = block.removeprefix("vit.layers.").partition(".")
            layer = f"vision_tower.encoder.layer.{number}"
            if inner == "attention.qkv":
                for kind, part in zip("qkv", value.chunk(3), strict=True):
                    found[f"{layer}.attention.{kind}_proj.{leaf}"] = part
            elif inner:
                found[f"{layer}.{BLOCKS[inner]}.{leaf}"] = value
            else:
                found[f"{layer}.{'lambda_1' if leaf == 'attention_scale' else 'lambda_2'}"] = value
    return found


def _random(config: PatchifierConfig, seed: int = 0) -> VitPatchifier:
    torch.manual_seed(seed)
    model = VitPatchifier(config, HIDDEN)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


@settings(max_examples=25, deadline=None)
@given(
    norm=st.sampled_from(NORM_KINDS),
    qk_norm=st.booleans(),
    qkv_bias=st.booleans(),
    heads=st.sampled_from([1, 2, 4]),
    layers=st.integers(0, 3),
    merge=st.sampled_from([1, 2, 4]),
    table=st.sampled_from([16, 32]),
    seed=st.integers(0, 9),
)
def test_it_is_transformers_tower(
    norm: NormKind,
    qk_norm: bool,
    qkv_bias: bool,
    heads: int,
    layers: int,
    merge: int,
    table: int,
    seed: int,
) -> None:
    shape = VitConfig(layers, heads, 1.5, norm, qk_norm, qkv_bias)
    config = PatchifierConfig(16, 4, 8, merge, table_size=table, kind="vit", vit=shape)
    ours = _random(config, seed)
    theirs = Reference(config).copy_of(ours)
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(ours(pixels), theirs(pixels), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", NORM_KINDS)
def test_its_gradients_are_transformers(norm: NormKind) -> None:
    config = tiny_vit(norm=norm, qk_norm=norm == "rms_norm")
    ours = _random(config)
    theirs = Reference(config).copy_of(ours)
    pixels, wanted = torch.randn(2, 3, 16, 16), torch.randn(2, 4, HIDDEN)
    for model in (ours, theirs):
        (model(pixels) * wanted).sum().backward()
    gradients = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(ours.parameters()))
    renamed = _renamed(gradients)
    for name, parameter in theirs.named_parameters():
        assert parameter.grad is not None
        scale = float(parameter.grad.abs().max())
        # That of keys' biases is nought, but for rounding: softmax does not see them.
        atol = 1e-5 * max(1.0, scale)
        torch.testing.assert_close(renamed[name], parameter.grad, rtol=0, atol=atol)


@torch.no_grad()
def test_v1_reads_the_same_tokens_column_by_column() -> None:
    rows = _random(tiny_vit(24))
    columns = VitPatchifier(replace(rows.config, order="v1"), HIDDEN)
    columns.load_state_dict(rows.state_dict())
    pixels = torch.randn(1, 3, 24, 24)
    by_row, by_column = (m(pixels).unflatten(1, (3, 3)) for m in (rows, columns))
    torch.testing.assert_close(by_row, by_column.transpose(1, 2))
    assert (rows.config.by_column, columns.config.by_column) == (False, True)


@torch.no_grad()
def test_tiles_do_not_see_each_other_but_a_tile_sees_all_of_itself() -> None:
    model, pixels = _random(tiny_vit()), torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(model(pixels)[:1], model(pixels[:1]))
    changed = pixels.clone()
    changed[0, :, 8:, :8] += 1
    same = torch.isclose(model(pixels), model(changed)).all(-1)
    assert same.tolist() == [[False] * 4, [True] * 4]


def test_a_batch_without_tiles_still_reaches_every_weight() -> None:
    model = _random(tiny_vit(qk_norm=True))
    model(torch.zeros(0, 3, 16, 16)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@pytest.mark.parametrize("recomputed", [False, True])
def test_layers_are_recomputed_with_the_decoders(recomputed: bool) -> None:
    torch.manual_seed(0)
    model = MonoModel(MonoConfig(tiny_decoder(), tiny_vit(), image_context_id=IMAGE))
    recompute_layers(model, recomputed)
    pixels, seen = torch.randn(2, 3, 16, 16), 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1

    assert isinstance(model.patchifier, VitPatchifier)
    for layer in model.patchifier.vit.layers:
        layer.mlp.register_forward_hook(count)
    model.patchifier(pixels).sum().backward()
    assert seen == 2 * (1 + recomputed)


def test_recomputed_gradients_are_the_same_bits() -> None:
    gradients = []
    for recomputed in (False, True):
        model = _random(tiny_vit())
        recompute_layers(model, recomputed)
        model(torch.ones(1, 3, 16, 16)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_the_default_is_internvit_300m() -> None:
    with torch.device("meta"):
        tower = VitPatchifier(PatchifierConfig(448, 14, 1024, kind="vit"), 2048).vit
    assert sum(p.numel() for p in tower.parameters()) == 304_012_288
    assert len(tower.layers) == 24


def test_grafted_its_tokens_enter_as_large_as_words() -> None:
    torch.manual_seed(0)
    shape = {"layers": 2, "heads": 4}
    settings = {"kind": "vit", "image_size": 16, "patch_size": 4, "width": 8, "vit": shape}
    model = MonoModel.graft(tiny_backbone(), patchifier=settings)
    assert model.config.patchifier is not None
    assert model.config.patchifier.vit == VitConfig(layers=2, heads=4)
    with torch.no_grad():
        ratio = model.patchifier(torch.randn(16, 3, 16, 16)).std() / model.embed.weight.std()
    assert 0.5 < float(ratio) < 2


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"width 8 is no multiple of vit\.heads 3"):
        tiny_vit(heads=3)
    with pytest.raises(ValueError, match="no norm 'batch'; there are layer_norm, rms_norm"):
        tiny_vit(norm="batch")
    with pytest.raises(ValueError, match="vit is given, but a patchifier of kind 'conv' has none"):
        PatchifierConfig(16, 4, 8, vit=VitConfig())
