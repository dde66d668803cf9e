"""Text weights of 4 and 8 bits, read by the fused kernels as they are: the numbers of ``gathered``.

Both multiply by the same rounded matrix, so they differ by the order of sums alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from lightning_mono.kernels import gathered
from lightning_mono.kernels.fused import tuning
from lightning_mono.kernels.fused.kernel import fused, why_not
from lightning_mono.kernels.fused.launch import Launch, Tile
from lightning_mono.kernels.fused.tuning import LinearTiles, Tiles
from lightning_mono.kernels.fused.weights import Matrix, matrix, rounded
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from lightning_mono import kernels
from lightning_mono.model import ModalityLayout
from lightning_mono.model.experts import QKV, Experts, SwiGLU
from lightning_mono.model.quantised import QuantisedLinear, quantise
from lightning_mono.testing import IMAGE, tiny_config, tiny_decoder, tiny_model

SCHEMES = ("nf4", "int8")
MASKS = {
    "runs": [False] * 5 + [True] * 9 + [False] * 12,
    "one text token": [True] * 3 + [False],
    "text": [False] * 3,
    "image": [True] * 3,
}
BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "swiglu": lambda: SwiGLU(64, 64),
    "linear": lambda: nn.Linear(64, 48),
    "qkv with biases": lambda: QKV(
        tiny_decoder(hidden_size=64, heads=3, kv_heads=1, head_dim=16, qkv_bias=True)
    ),
}


@pytest.fixture(autouse=True)
def _tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a block of scales wide and deep; the interpreter's time goes by tiles, not by sizes."""
    monkeypatch.setattr(tuning, "INTERPRETED", Tiles(*[Tile(16, 32, 32, 1, 1)] * 6))


def pair(block: str, scheme: str) -> tuple[nn.Module, nn.Module]:
    """A frozen rounded text module, and a plain visual one that trains."""
    torch.manual_seed(0)
    text, visual = BLOCKS[block](), BLOCKS[block]()
    for module in (text, visual):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    text.requires_grad_(False)
    if isinstance(text, nn.Linear):
        return QuantisedLinear(text, scheme), visual
    for name, linear in list(text.named_children()):
        if isinstance(linear, nn.Linear):
            setattr(text, name, QuantisedLinear(linear, scheme))
    return text, visual


def run(
    kernel: Callable[..., Tensor], x: Tensor, mask: list[bool], text: nn.Module, visual: nn.Module
) -> list[Tensor]:
    """Output, and the gradients of the input and of the visual weights."""
    x, visual = x.detach().requires_grad_(), copy.deepcopy(visual)
    y = kernel(x, ModalityLayout.from_mask(torch.tensor([mask])), text, visual)
    loss = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    (y * loss).sum().backward()
    assert all(p.grad is None for p in text.parameters())
    return [y.detach(), x.grad, *(p.grad for p in visual.parameters())]  # type: ignore[list-item]


def assert_close(ours: list[Tensor], theirs: list[Tensor], within: float) -> None:
    for one, other in zip(ours, theirs, strict=True):
        largest = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(one.float(), other.float(), atol=within * largest, rtol=0)


def expanded(w: Matrix, first: int, count: int, wrap: bool) -> Tensor:
    """32 rows of a weight, as a kernel expands them; made here, where it will be interpreted."""

    @triton.jit
    def kernel(out, w, first, count: tl.constexpr, wrap: tl.constexpr):  # type: ignore[no-untyped-def]
        rows = tl.arange(0, 32)
        at = rows[:, None] * count + tl.arange(0, count)[None, :]
        tl.store(out + at, rounded(w, rows, first, count, wrap))

    out = torch.empty(32, count)
    kernel[(1,)](out, w, first, count, wrap)
    return out


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("width", "first", "count"), [(64, 0, 64), (128, 32, 32), (128, 0, 128), (192, 128, 128)]
)
def test_a_block_is_expanded_to_the_bits_that_the_module_expands_to(
    scheme: str, width: int, first: int, count: int
) -> None:
    """All 16 levels are met, blocks of scales are smaller and larger, columns wrap round."""
    torch.manual_seed(0)
    layer = QuantisedLinear(nn.Linear(width, 32, bias=False), scheme)
    w = matrix(layer.weight, width, layer.scales)
    out = expanded(w, first, count, first + count > width)
    expected = layer.expanded(torch.float32)[:, (first + torch.arange(count)) % width]
    assert torch.equal(out, expected)
    assert scheme == "int8" or len(layer.weight.unique()) > 200


@pytest.mark.parametrize("mask", MASKS.values(), ids=list(MASKS))
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_fp32_equals_gathered(scheme: str, block: str, mask: list[bool]) -> None:
    modules, x = pair(block, scheme), torch.randn(len(mask), 64)
    assert_close(run(fused, x, mask, *modules), run(gathered, x, mask, *modules), 1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("tile", [Tile(32, 64, 64, 1, 1), Tile(32, 128, 32, 1, 1)])
def test_tiles_may_hold_several_blocks_and_need_not_divide_the_sizes(
    scheme: str, tile: Tile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "INTERPRETED", Tiles(*[tile] * 6))
    monkeypatch.setattr(tuning, "LINEAR_INTERPRETED", LinearTiles(*[tile] * 3))
    monkeypatch.setitem(BLOCKS, "ffn", lambda: SwiGLU(192, 64))
    monkeypatch.setitem(BLOCKS, "out", lambda: nn.Linear(192, 48))
    mask, x = MASKS["one text token"], torch.randn(4, 192)
    for block in ("ffn", "out"):
        modules = pair(block, scheme)
        assert_close(run(fused, x, mask, *modules), run(gathered, x, mask, *modules), 1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_bf16_is_near_the_fp32_of_the_same_rounded_weights(scheme: str) -> None:
    text, visual = pair("swiglu", scheme)
    mask, x = MASKS["runs"], torch.randn(26, 64)
    whole = run(gathered, x, mask, text, visual)

    def under_autocast(*args: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return fused(*args)

    for kernel, experts, rows in (
        (fused, copy.deepcopy(visual).bfloat16(), x.bfloat16()),
        (under_autocast, visual, x),
    ):
        ours = run(kernel, rows, mask, text, experts)
        assert ours[0].dtype == torch.bfloat16
        assert_close(ours, whole, 3e-2)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("rows", [1, 3])
def test_decoding_reads_codes(scheme: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    launch = Launch.run
    monkeypatch.setattr(
        Launch, "run", lambda self: (ran.append(self.kernel.__name__), launch(self))[1]
    )
    layout = ModalityLayout.all_text(1, rows, "cpu")
    x = torch.randn(rows, 64)
    for block in ("swiglu", "qkv with biases", "linear"):
        text, visual = pair(block, scheme)
        with torch.no_grad():
            torch.testing.assert_close(fused(x, layout, text, visual), text(x), atol=1e-5, rtol=0)
    assert ran == ["gate_up_rows_kernel", *["share_kernel", "sum_kernel"] * 3]


def test_nothing_is_expanded_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launch holds a tensor as large as a matrix but visual weights and gradients."""
    text, visual = pair("swiglu", "nf4")
    given: list[Tensor] = []
    launch = Launch.run

    def note(self: Launch) -> None:
        given.extend(t for t in tree_leaves(self.arguments) if isinstance(t, Tensor))
        launch(self)

    monkeypatch.setattr(Launch, "run", note)
    run(fused, torch.randn(26, 64), MASKS["runs"], text, visual)
    matrices = [t for t in given if t.numel() >= 64 * 64]
    shared = {p.data_ptr() for p in text.parameters()}
    assert {t.numel() for t in given if t.data_ptr() in shared} == {64 * 64 // 2, 64}
    assert {tuple(t.shape) for t in matrices} == {(64, 64)}
    assert len({t.data_ptr() for t in matrices}) == 2 * 3


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_whole_model_agrees(scheme: str) -> None:
    model = tiny_model(tiny_config(hidden_size=64, head_dim=16, ffn_size=64, layers=1))
    quantise(model, scheme)
    ids = torch.tensor([[5, *[IMAGE] * 4, 7, 9]])
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    results = []
    for kernel in ("triton", "gathered"):
        model.zero_grad()
        with kernels.active(model, kernel):
            logits = model(ids, pixels).logits
            logits.square().mean().backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        results.append([logits.detach(), *grads])
    assert_close(*results, 1e-4)


def test_rounded_layers_compile_and_recompute() -> None:
    mask, x = MASKS["one text token"], torch.randn(4, 64)

    def again(*args: Any) -> Tensor:
        return checkpoint(fused, *args, use_reentrant=False)

    whole = torch.compile(fused, backend="aot_eager", fullgraph=True)
    for block in ("swiglu", "qkv with biases"):
        modules = pair(block, "nf4")
        eager = run(fused, x, mask, *modules)
        for kernel in (whole, again):
            for one, other in zip(run(kernel, x, mask, *modules), eager, strict=True):
                assert torch.equal(one, other)


def test_rows_are_whole_blocks_or_it_is_said() -> None:
    text = QuantisedLinear(nn.Linear(48, 64), "nf4")
    block = Experts(nn.Linear(48, 64), visual=True)
    block.text = text
    said = why_not([block], torch.device("cpu"), torch.float32)
    assert said is not None
    assert said.endswith("rows of whole blocks of 64; a row of the projection has 48")
    block.text, block.visual = nn.Linear(64, 64), QuantisedLinear(nn.Linear(64, 64), "nf4")
    assert "plain visual weights" in str(why_not([block], torch.device("cpu"), torch.float32))
