"""The promise of the architecture: what is added for images changes nothing for text."""

from __future__ import annotations

import pytest
import torch

from lightning_mono import kernels
from lightning_mono.model import ExpertsConfig, MonoModel, PatchifierConfig
from lightning_mono.testing import (
    IMAGE,
    kernels_here,
    randomize,
    tiny_backbone,
    tiny_config,
    tiny_model,
)

PATCHIFIER = PatchifierConfig(image_size=16, patch_size=4, width=6, merge=2)
EVERYWHERE = ExpertsConfig(ffn=(0, 1), attention=(0, 1), norms=(0, 1))
PLACEMENTS = {
    "none": ExpertsConfig(),
    "ffn": ExpertsConfig(ffn=(0, 1)),
    "some": ExpertsConfig(ffn=(1,), attention=(0,)),
    "all": EVERYWHERE,
}


def _text(vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A ragged batch of words, and its mask."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(4, vocabulary, (3, 11), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    mask[2, :4] = 0
    return ids, mask


@pytest.mark.parametrize("kernel", kernels_here())
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("biased", [False, True])
def test_text_only_logits_are_bit_identical_to_the_backbones(
    kernel: str, placement: str, biased: bool
) -> None:
    settings = {"qkv_bias": biased, "out_bias": biased, "tied": biased}
    plain = MonoModel.graft(tiny_backbone(**settings)).eval()
    backbone = tiny_backbone(**settings)
    model = MonoModel.graft(
        backbone,
        patchifier=PATCHIFIER,
        experts=PLACEMENTS[placement],
    ).eval()
    kernels.use(model, kernel)
    vocabulary = plain.config.decoder.vocab_size
    assert model.config.decoder.vocab_size == vocabulary + 9
    ids, mask = _text(vocabulary)
    with torch.no_grad():
        for seed in range(3):
            ours = model(ids, attention_mask=mask).logits[..., :vocabulary]
            assert torch.equal(ours, plain(ids, attention_mask=mask).logits)
            assert torch.equal(model(ids).logits[..., :vocabulary], plain(ids).logits)
            randomize(model, seed=seed, only=(".visual.", "patchifier."))


@pytest.mark.parametrize("kernel", kernels_here())
def test_text_before_an_image_is_bit_identical_whatever_the_experts(kernel: str) -> None:
    model = tiny_model()
    kernels.use(model, kernel)
    ids = torch.tensor([[5, 6, 7, IMAGE, IMAGE, IMAGE, IMAGE, 8, 9]])
    pixels = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        before = model(ids, pixels).logits
        randomize(model, seed=9, only=(".visual.", "patchifier."))
        after = model(ids, pixels).logits
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:]), "the experts were not used"


def test_experts_that_are_copies_leave_a_dense_model() -> None:
    model = tiny_model(dtype=torch.float64)
    model.copy_experts_from_text()
    dense = MonoModel(tiny_config(ExpertsConfig())).double().eval()
    shared = {k: v for k, v in model.state_dict().items() if ".visual." not in k}
    dense.load_state_dict(shared)
    ids = torch.tensor([[5, IMAGE, IMAGE, IMAGE, IMAGE, 8, 9], [IMAGE] * 4 + [4, 5, 6]])
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        ours, theirs = (m(ids, pixels, output_hidden_states=True) for m in (model, dense))
    torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-10, rtol=1e-10)
    assert len(ours.hidden_states) == 3
    for one, other in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", ["ffn", "attention", "norms"])
def test_each_kind_of_expert_serves_image_tokens(kind: str) -> None:
    layers = {kind: (1,)}
    model = tiny_model(tiny_config(ExpertsConfig(**layers)))
    names = [name for name, _ in model.named_parameters() if ".visual." in name]
    assert names
    assert all(name.startswith("layers.1.") for name in names)
    ids = torch.tensor([[5, IMAGE, IMAGE, IMAGE, IMAGE, 8]])
    pixels = torch.randn(1, 3, 16, 16)
    model(ids, pixels).logits[:, 1:].square().sum().backward()
    for name, parameter in model.named_parameters():
        if ".visual." in name and not name.endswith(".bias"):
            assert parameter.grad is not None
            assert parameter.grad.any(), name


def test_visual_tokens_take_tiles_in_reading_order() -> None:
    model = tiny_model()
    ids = torch.tensor([[IMAGE] * 4 + [5] * 4, [6] + [IMAGE] * 4 + [7] * 3])
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        embedded = model.embeddings(model.batch(ids, pixels))
        tokens = model.patchifier(pixels)
    torch.testing.assert_close(embedded[0, :4], tokens[0])
    torch.testing.assert_close(embedded[1, 1:5], tokens[1])
    assert torch.equal(embedded[0, 4:], model.embed(ids[0, 4:]))


def test_loss_is_the_mean_over_the_next_labels() -> None:
    model = tiny_model()
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    labels = torch.tensor([[-100, -100, 7, -100, 9]])
    with torch.no_grad():
        out = model(ids, labels=labels)
    logs = out.logits[0].log_softmax(-1)
    torch.testing.assert_close(out.loss, -(logs[1, 7] + logs[3, 9]) / 2)
    assert model(ids).loss is None
