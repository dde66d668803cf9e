"""The kernel ``triton`` as a whole: fused where it serves a block, else gathered, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from lightning_mono.kernels.fused import kernel as fused_kernel
from lightning_mono.kernels.select import KERNELS, blocks, why_not
from torch import nn

from lightning_mono import kernels
from lightning_mono.errors import RecipeError
from lightning_mono.model import ExpertsConfig, MonoModel
from lightning_mono.model.experts import RMSNorm
from lightning_mono.testing import kernels_here, tiny_config, tiny_model

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 3, 3, 3, 3, 7, 9], [8, 9, 10, 3, 3, 3, 3]])


def model(experts: ExpertsConfig | None = None, **changes: object) -> MonoModel:
    sizes = {"layers": 1, "hidden_size": 32, "head_dim": 8, "ffn_size": 32}
    return tiny_model(tiny_config(experts, **{**sizes, **changes}))


def results(one: MonoModel, name: str) -> list[torch.Tensor]:
    """Logits, and the gradients of all parameters."""
    one.zero_grad()
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with kernels.active(one, name):
        logits = one(IDS, pixels).logits
        logits.square().mean().backward()
    return [logits.detach(), *(p.grad.clone() for p in one.parameters() if p.grad is not None)]


EVERY = ExpertsConfig(ffn=(0,), attention=(0,), norms=(0,))


@pytest.mark.parametrize(
    ("experts", "qk_norm"),
    [(EVERY, False), (EVERY, True), (replace(EVERY, norms=()), False)],
    ids=["all experts", "norms of heads", "one norm for both"],
)
def test_a_whole_model_gives_the_numbers_of_the_oracle(
    experts: ExpertsConfig, qk_norm: bool
) -> None:
    one = model(experts, qk_norm=qk_norm)
    for ours, oracle in zip(results(one, "triton"), results(one, "masked_dense"), strict=True):
        torch.testing.assert_close(ours, oracle, atol=1e-4, rtol=1e-4)


@contextmanager
def normed_apart(one: MonoModel) -> Iterator[list[str]]:
    """Names of the norms of width ``hidden`` that are called, and so run apart."""
    seen: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: seen.append(name))
        for name, module in one.named_modules()
        if isinstance(module, RMSNorm) and "layers" in name and "qkv" not in name
    ]
    yield seen
    for handle in handles:
        handle.remove()


ATTENTION, FFN = "layers.0.attention_norm", "layers.0.ffn_norm"


@pytest.mark.parametrize(
    ("experts", "dtype", "apart"),
    [
        (EVERY, torch.float32, [f"{FFN}.text", f"{FFN}.visual"]),
        (replace(EVERY, norms=()), torch.float32, [f"{FFN}.text"]),
        (EVERY, torch.bfloat16, [f"{FFN}.text", f"{FFN}.visual"]),
        (replace(EVERY, attention=()), torch.float32, None),
        (EVERY, None, None),
    ],
    ids=["fused", "shared", "bf16", "no visual projection", "cast by autocast"],
)
def test_the_norm_before_attention_is_no_launch_of_its_own(
    experts: ExpertsConfig, dtype: torch.dtype | None, apart: list[str] | None
) -> None:
    one = model(experts).to(dtype)
    kernels.use(one, "triton")
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=dtype is None)
    with torch.no_grad(), normed_apart(one) as seen, mixed:
        one(IDS, torch.randn(2, 3, 16, 16).to(dtype))
    every = [f"{norm}.{side}" for norm in (ATTENTION, FFN) for side in ("text", "visual")]
    assert seen == (every if apart is None else apart)


@pytest.mark.parametrize("name", kernels_here())
def test_other_kernels_norm_first(name: str) -> None:
    one = model()
    with torch.no_grad(), normed_apart(one) as seen, kernels.active(one, name):
        one(IDS, torch.randn(2, 3, 16, 16))
    assert seen == [f"{norm}.{side}" for norm in (ATTENTION, FFN) for side in ("text", "visual")]


@pytest.mark.parametrize(("name", "wide"), [("triton", 2), ("triton_recompute", 0)])
def test_recomputing_keeps_nothing_of_the_width_of_the_ffn(name: str, wide: int) -> None:
    one, kept = model(ffn_size=64), []
    kernels.use(one, name)

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        one(IDS, torch.randn(2, 3, 16, 16))
    assert kept.count((IDS.numel(), 64)) == wide


def test_every_block_but_norms_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[str] = []
    gathered = kernels.gathered

    def noting(x: torch.Tensor, layout: object, text: nn.Module, visual: nn.Module) -> torch.Tensor:
        left.append(type(text).__name__)
        return gathered(x, layout, text, visual)

    monkeypatch.setattr(fused_kernel, "gathered", noting)
    one = model()
    kernels.use(one, "triton")
    with torch.no_grad():
        one(IDS, torch.randn(2, 3, 16, 16))
    assert left == ["RMSNorm"]


@pytest.mark.parametrize(
    ("changes", "dtype", "reason"),
    [
        ({"ffn_size": 24}, torch.float32, "16"),
        ({}, torch.float16, "float16"),
        ({}, torch.float64, "float64"),
    ],
)
def test_what_cannot_be_fused_is_refused(
    changes: dict[str, int], dtype: torch.dtype, reason: str
) -> None:
    with pytest.raises(RecipeError, match=f"kernel triton cannot run: .*{reason}.*; use gathered"):
        kernels.choose("triton", model(**changes), CPU, dtype)


def test_a_model_with_visual_norms_alone_has_nothing_to_fuse() -> None:
    norms = tiny_model(tiny_config(ExpertsConfig(norms=(0, 1))))
    assert len(blocks(norms)) == 4
    assert "no FFN" in str(why_not("triton", CPU, torch.float32, norms))
    assert why_not("triton", CPU, torch.float32) is None


def test_a_model_moved_to_a_cpu_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    one = model()
    for block in blocks(one):
        block.kernel = KERNELS["triton"]
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        fallen = one(IDS, pixels).logits
        kernels.use(one, "gathered")
        assert torch.equal(fallen, one(IDS, pixels).logits)
