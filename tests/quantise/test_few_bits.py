"""A model that answers with few bits: what is rounded, what the direct operators give."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_mono.kernels.fused.kernel import why_not
from PIL import Image
from torch import Tensor, nn

from lightning_mono import cli
from lightning_mono.checkpoints.folder import load_model, save_model
from lightning_mono.data.images import ImageProcessor
from lightning_mono.errors import CheckpointError
from lightning_mono.inference import Assistant, make_renderer
from lightning_mono.model import ExpertsConfig, MonoModel, PatchifierConfig, few_bits, quantised
from lightning_mono.model.experts import Experts, SwiGLU
from lightning_mono.model.few_bits import AnsweringLinear, placing, round_to_answer
from lightning_mono.model.linear import PLAIN
from lightning_mono.model.quantised import QuantisedLinear, bitsandbytes, quantised_linears
from lightning_mono.testing import randomize, tiny_backbone, tiny_batch, tiny_config, tiny_model

from .rounding import SCHEMES, WIDE, documents, linear

GROUPED = {**WIDE, "ffn_size": 128, "heads": 4, "kv_heads": 2}
"""Matrices that the operators take: columns in whole blocks, rows in whole groups."""


def _picture() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    return file.getvalue()


PICTURE = _picture()

needs_operator = pytest.mark.skipif(
    not few_bits._reads("nf4"), reason="this CPU has no bfloat16 products"
)


# -- one layer ------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
@given(
    groups=st.integers(1, 6),
    blocks=st.integers(1, 4),
    slab=st.sampled_from([64, 2**12, 2**20]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=30, deadline=None)
def test_a_packed_matrix_expands_to_the_same_bits(
    scheme: str, groups: int, blocks: int, slab: int, dtype: torch.dtype, seed: int
) -> None:
    whole = linear(32 * groups, 64 * blocks, seed=seed)
    ours, plain = AnsweringLinear(whole, scheme), QuantisedLinear(whole, scheme)
    assert torch.equal(ours.expanded(dtype), plain.expanded(dtype))
    height = max(64, slab // (64 * blocks) // 64 * 64)
    parts = [
        ours._rows(start, min(start + height, 32 * groups), dtype)
        for start in range(0, 32 * groups, height)
    ]
    assert torch.equal(torch.cat(parts), plain.expanded(dtype))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("columns", [50, 64, 192])
def test_slabs_are_rounded_as_the_whole_is(
    scheme: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = linear(200, columns).weight.detach()
    whole = quantised.encoded(weight, scheme)
    monkeypatch.setattr(quantised, "SLAB", 1)
    for ours, theirs in zip(quantised.encoded(weight, scheme), whole, strict=True):
        assert torch.equal(ours, theirs)


@needs_operator
def test_the_order_is_bitsandbytes_own() -> None:
    functional = bitsandbytes("functional")
    plain = QuantisedLinear(linear(96, 128), "nf4")
    state = functional.QuantState(
        absmax=plain.scales.view(torch.float32),
        shape=(96, 128),
        code=functional.get_4bit_type("nf4", "cpu"),
        blocksize=64,
        quant_type="nf4",
        dtype=torch.float32,
    )
    packed, state = functional._convert_weight_packed_for_cpu(plain.weight, state)
    ours = AnsweringLinear(linear(96, 128), "nf4")
    assert ours.absmax is not None
    assert torch.equal(ours.weight, packed)
    assert torch.equal(ours.absmax.view(torch.bfloat16), state.absmax)


@needs_operator
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scheme", SCHEMES)
@given(rows=st.integers(1, 32), seed=st.integers(0, 2**16), bias=st.booleans())
@settings(max_examples=20, deadline=None)
def test_few_rows_are_within_bfloat16_of_the_expanded_product(
    scheme: str, dtype: torch.dtype, rows: int, seed: int, bias: bool
) -> None:
    whole = linear(96, 192, seed=seed, bias=bias)
    layer = AnsweringLinear(whole, scheme)
    x = torch.randn(rows, 192, generator=torch.Generator().manual_seed(seed)).to(dtype)
    exact = QuantisedLinear(whole, scheme)(x.double())
    with torch.inference_mode():
        y = layer(x)
    assert y.dtype == dtype
    # Rounded, by 2^-9 at most each: rows, NF4's levels, scales and their product, the result.
    terms = x.double().abs() @ layer.expanded(torch.float64).abs().T
    assert ((y - exact).abs() <= 5 * 2**-9 * terms).all()
    assert (y - exact).norm() < 2**-7 * exact.norm()


@needs_operator
@pytest.mark.parametrize("scheme", SCHEMES)
def test_few_rows_do_not_see_one_another(scheme: str) -> None:
    layer = AnsweringLinear(linear(64, 128), scheme)
    few = few_bits.FEW[scheme]
    x = torch.randn(few, 128)
    x[2, 3], x[4, 60] = 500.0, -90.0
    with torch.inference_mode():
        assert torch.equal(layer(x), torch.cat([layer(row[None]) for row in x]))
        assert layer(x[:0]).shape == (0, 64)
        assert torch.equal(layer(x.view(2, -1, 128)), layer(x).view(2, -1, 64))
        assert torch.equal(layer(x.t().contiguous().t()), layer(x))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_prompt_gets_the_exact_product(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "SLAB", 64 * 128)
    whole = linear(160, 128, bias=True)
    layer, plain = AnsweringLinear(whole, scheme), QuantisedLinear(whole, scheme)
    x = torch.randn(few_bits.FEW[scheme] + 1, 128, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), plain(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer(x[:1]), plain(x[:1]), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(layer(x.float()), plain(x.float()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_with_gradients_it_is_the_layer_that_trains_use(scheme: str) -> None:
    whole = linear(64, 128)
    layer, plain = AnsweringLinear(whole, scheme), QuantisedLinear(whole, scheme)
    x = torch.randn(3, 128, requires_grad=True)
    assert torch.equal(layer(x), plain(x))
    ours, theirs = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (layer, plain))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_no_operator_takes_is_expanded(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = linear(40, 50)
    layers = [(AnsweringLinear(odd, scheme), QuantisedLinear(odd, scheme))]
    monkeypatch.setattr(few_bits, "_reads", lambda scheme: False)  # a CPU that lacks them
    even = linear(64, 64)
    layers.append((AnsweringLinear(even, scheme), QuantisedLinear(even, scheme)))
    for ours, plain in layers:
        assert not ours.direct
        x = torch.randn(1, ours.in_features)
        with torch.inference_mode():
            torch.testing.assert_close(ours(x), plain(x))


# -- a model --------------------------------------------------------------------------------


def rounded_model(scheme: str) -> tuple[MonoModel, MonoModel]:
    """One that answers in few bits, and one of plain layers with the same rounded matrices."""
    model, plain = (tiny_model(tiny_config(**GROUPED)) for _ in range(2))
    round_to_answer(model, scheme)
    for name, layer in quantised_linears(model):
        plain.get_submodule(name).weight.data = layer.expanded(torch.float32)
    return model.eval(), plain.eval()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_and_visual_matrices_are_rounded_and_nothing_else(scheme: str) -> None:
    model = tiny_model(tiny_config(**GROUPED))
    before = dict(model.named_parameters())
    round_to_answer(model, scheme)
    names = {f"{name}.weight" for name, _ in quantised_linears(model)}
    matrices = {name for name, value in before.items() if value.dim() == 2}
    assert names == {name for name in matrices if name.startswith("layers.")}
    assert any(".visual." in name for name in names)
    after = dict(model.named_parameters())
    assert all(after[name] is value for name, value in before.items() if name not in names)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_prompt_of_text_and_pictures_reads_exactly_and_a_token_nearly(scheme: str) -> None:
    model, plain = rounded_model(scheme)
    batch = tiny_batch(documents() * 6, model.config)
    with torch.inference_mode():
        assert batch.layout.visual.count > few_bits.FEW[scheme]
        torch.testing.assert_close(model.hidden(batch), plain.hidden(batch), rtol=1e-4, atol=1e-4)
    ids = torch.randint(8, 40, (1, 5), generator=torch.Generator().manual_seed(0))
    ours, theirs = (each.session().read(ids) for each in (model, plain))
    error = (ours - theirs).norm() / theirs.norm()
    assert error < 0.03
    direct = any(layer.direct for _, layer in quantised_linears(model))  # type: ignore[attr-defined]
    assert (error > 1e-5) == direct


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_model_is_rounded_while_it_is_read(scheme: str, biases: bool, tmp_path: Path) -> None:
    family = {"family": "qwen2", "qkv_bias": True} if biases else {}
    model = tiny_model(tiny_config(**GROUPED, **family))
    save_model(model, tmp_path)
    round_to_answer(model, scheme)
    whole: list[str] = []

    def watched(into: nn.Module, name: str, value: Tensor) -> None:
        place(into, name, value)
        layers = into.get_submodule("layers").named_modules()
        whole.extend(n for n, m in layers if type(m) in PLAIN and not m.weight.is_meta)

    place = placing(scheme)
    read = load_model(tmp_path, place=watched)
    ours, theirs = model.state_dict(), read.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert not whole


# -- an assistant ---------------------------------------------------------------------------


@pytest.fixture
def assistant() -> Assistant:
    backbone = tiny_backbone(hidden_size=64, head_dim=16, ffn_size=128)
    experts = ExpertsConfig(ffn=(0, 1), attention=(1,))
    model = MonoModel.graft(backbone, patchifier=PatchifierConfig(16, 4, 6), experts=experts)
    randomize(model, seed=1)
    renderer = make_renderer(model, backbone.tokenizer, "chatml", ImageProcessor(16))
    return Assistant(model, renderer, "chatml")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_assistant_that_was_told_to_answers_with_few_bits(
    scheme: str, assistant: Assistant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assistant.save(tmp_path)
    few = Assistant.from_pretrained(tmp_path, quantize=scheme, device="cpu")
    for name, layer in quantised_linears(few.model):
        assistant.model.get_submodule(name).weight.data = layer.expanded(torch.float32)
    prompt = assistant.renderer.prompt("is it red?", [PICTURE])
    ours, theirs = (each.model.session().read(**each.inputs([prompt])) for each in (few, assistant))
    assert (ours - theirs).norm() < 0.05 * theirs.norm()
    (answer,) = few.answer([([PICTURE], "is it red?")], 12)
    with pytest.raises(CheckpointError, match="restore the model's rounded weights"):
        few.save(tmp_path / "again")

    picture = tmp_path / "a.png"
    picture.write_bytes(PICTURE)
    command = ["generate", str(tmp_path), "--image", str(picture), "--prompt", "is it red?"]
    assert cli.main([*command, "--max-new-tokens", "12", "--quantize", scheme]) == 0
    assert capsys.readouterr().out == answer + "\n"


def test_what_cannot_be_rounded_is_said_in_a_line(
    assistant: Assistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assistant.save(tmp_path)

    def refused(match: str, **settings: Any) -> None:
        with pytest.raises(CheckpointError, match=match) as caught:
            Assistant.from_pretrained(tmp_path, **settings)
        assert "\n" not in str(caught.value)

    refused("'nf5' is none of nf4, int8", quantize="nf5")
    refused("float16 overflows; ask for bfloat16", quantize="int8", dtype=torch.float16)

    def missing(module: str) -> Any:
        raise ImportError(f"No module named 'bitsandbytes.{module}'")

    monkeypatch.setattr(few_bits, "bitsandbytes", missing)
    refused("nf4 needs bitsandbytes .*install it, or take int8", quantize="nf4")

    round_to_answer(assistant.model, "int8")
    with pytest.raises(CheckpointError, match="in few bits already"):
        round_to_answer(assistant.model, "int8")


def test_fused_kernels_refuse_what_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would read codes in another order as if they were in their own."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")

    def reason(layer: type[QuantisedLinear]) -> str | None:
        block = Experts(SwiGLU(64, 64), visual=True)
        for name in ("gate", "up", "down"):
            setattr(block.text, name, layer(linear(64, 64), "nf4"))
        return why_not([block], torch.device("cpu"), torch.float32)

    assert reason(QuantisedLinear) is None
    assert "lightning_mono's AnsweringLinear" in (reason(AnsweringLinear) or "")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_real_model_says_nearly_the_same(scheme: str) -> None:
    few = Assistant.from_pretrained("smollm2-135m", quantize=scheme, device="cpu")
    (answer,) = few.answer([([], "What is the capital of France?")], 12)
    assert "Paris" in answer
