"""Every kernel gives the numbers of ``masked_dense``, forward and backward, for any layout."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_mono.kernels import KERNELS, masked_dense
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from lightning_mono.model import ModalityLayout
from lightning_mono.model.experts import QKV, RMSNorm, SwiGLU
from lightning_mono.testing import tiny_decoder

HIDDEN = 8
BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "swiglu": lambda: SwiGLU(HIDDEN, 16),
    "linear": lambda: nn.Linear(HIDDEN, 24),
    "linear of odd size": lambda: nn.Linear(HIDDEN, 5),
    "linear without bias": lambda: nn.Linear(HIDDEN, 24, bias=False),
    "qkv": lambda: QKV(tiny_decoder(hidden_size=HIDDEN, head_dim=4, qkv_bias=True)),
    "qkv with norms": lambda: QKV(tiny_decoder(hidden_size=HIDDEN, head_dim=4, qk_norm=True)),
    "norm": lambda: RMSNorm(HIDDEN, 1e-5),
}
TORCH = ("gathered", "grouped")


@st.composite
def masks(draw: st.DrawFn) -> list[bool]:
    """Modalities of a row of tokens, the shapes that kernels treat apart among them."""
    length = draw(st.integers(1, 24))
    kind = draw(st.sampled_from(["any", "alternating", "text", "image", "run", "one"]))
    if kind == "any":
        return draw(st.lists(st.booleans(), min_size=length, max_size=length))
    if kind == "alternating":
        return [i % 2 == draw(st.integers(0, 1)) for i in range(length)]
    if kind == "run":
        start, end = sorted(draw(st.tuples(st.integers(0, length), st.integers(0, length))))
        return [start <= i < end for i in range(length)]
    if kind == "one":
        at = draw(st.integers(0, length - 1))
        return [i == at for i in range(length)]
    return [kind == "image"] * length


def _experts(block: str, dtype: torch.dtype, seed: int) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(seed)
    pair = BLOCKS[block]().to(dtype), BLOCKS[block]().to(dtype)
    for module in pair:
        for parameter in module.parameters():
            nn.init.normal_(parameter)
    return pair


def _run(
    kernel: Callable[..., Tensor], x: Tensor, mask: list[bool], pair: tuple[nn.Module, nn.Module]
) -> list[Tensor]:
    """Output, and the gradients of input and all parameters under a fixed random loss."""
    x = x.detach().clone().requires_grad_()
    text, visual = copy.deepcopy(pair[0]), copy.deepcopy(pair[1])
    layout = ModalityLayout.from_mask(torch.tensor([mask]))
    y = kernel(x, layout, text, visual)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(y)
    (y * weights).sum().backward()
    parameters = [*text.parameters(), *visual.parameters()]
    assert all(p.grad is not None for p in parameters), "a trainable weight got no gradient"
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad for p in parameters if p.grad is not None)]


@pytest.mark.parametrize("kernel", TORCH)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)
@settings(max_examples=25)
@given(mask=masks(), seed=st.integers(0, 100))
def test_outputs_and_gradients_equal_the_oracle(
    kernel: str, block: str, dtype: torch.dtype, within: float, mask: list[bool], seed: int
) -> None:
    pair = _experts(block, dtype, seed)
    torch.manual_seed(seed)
    x = torch.randn(len(mask), HIDDEN, dtype=dtype)
    ours = _run(KERNELS[kernel], x, mask, pair)
    exact = copy.deepcopy(pair[0]).double(), copy.deepcopy(pair[1]).double()
    within *= 3 if "norm" in block else 1  # a norm's weight gradient sums terms that cancel
    for one, other in zip(ours, _run(masked_dense, x.double(), mask, exact), strict=True):
        largest = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one.double(), other, atol=within * max(1.0, largest), rtol=0)


@pytest.mark.parametrize("kernel", TORCH)
@pytest.mark.parametrize("mask", [[True, False] * 4, [False] * 3 + [True] * 5, [True] * 8])
def test_input_need_not_be_contiguous(kernel: str, mask: list[bool]) -> None:
    text, visual = _experts("swiglu", torch.float64, 0)
    wide = torch.randn(HIDDEN, 16, dtype=torch.float64)
    x = wide.t()[::2]
    assert not x.is_contiguous()
    layout = ModalityLayout.from_mask(torch.tensor([mask]))
    ours = KERNELS[kernel](x, layout, text, visual)
    torch.testing.assert_close(ours, KERNELS[kernel](x.contiguous(), layout, text, visual))
    torch.testing.assert_close(ours, masked_dense(x, layout, text, visual))


@pytest.mark.parametrize("kernel", ["masked_dense", *TORCH])
@pytest.mark.parametrize("visual_tokens", [True, False])
def test_a_trainable_expert_without_tokens_gets_zeros(kernel: str, visual_tokens: bool) -> None:
    pair = _experts("swiglu", torch.float32, 0)
    layout = ModalityLayout.from_mask(torch.full((1, 5), visual_tokens))
    KERNELS[kernel](torch.randn(5, HIDDEN), layout, *pair).sum().backward()
    absent, present = pair if visual_tokens else pair[::-1]
    for parameter in absent.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()
    assert all(parameter.grad.any() for parameter in present.parameters())


@pytest.mark.parametrize("kernel", TORCH)
@pytest.mark.parametrize("visual_tokens", [True, False])
def test_a_frozen_expert_without_tokens_is_not_run(kernel: str, visual_tokens: bool) -> None:
    class Untouchable(SwiGLU):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("a frozen expert was run without tokens")

    present = SwiGLU(HIDDEN, 16)
    absent = Untouchable(HIDDEN, 16).requires_grad_(False)
    layout = ModalityLayout.from_mask(torch.full((1, 5), visual_tokens))
    pair = (absent, present) if visual_tokens else (present, absent)
    x = torch.randn(5, HIDDEN)
    assert torch.equal(KERNELS[kernel](x, layout, *pair), present(x))


@pytest.mark.parametrize("kernel", TORCH)
@pytest.mark.parametrize("trains", ["both", "visual", "none"])
@settings(max_examples=20)
@given(mask=masks())
def test_no_product_is_computed_that_is_not_needed(
    kernel: str, trains: str, mask: list[bool]
) -> None:
    """A token meets its own weights only; frozen weights get no gradient."""
    text, visual = _experts("swiglu", torch.float32, 0)
    text.requires_grad_(trains == "both")
    visual.requires_grad_(trains != "none")
    layout = ModalityLayout.from_mask(torch.tensor([mask]))
    x = torch.randn(len(mask), HIDDEN, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        KERNELS[kernel](x, layout, text, visual).sum().backward()
    rows = len(mask) * 2  # forward, and the gradient of the input
    rows += layout.text.count * (trains == "both") + layout.visual.count * (trains != "none")
    assert counter.get_total_flops() == rows * 2 * 3 * HIDDEN * 16


@pytest.mark.parametrize("kernel", ["masked_dense", *TORCH])
@pytest.mark.parametrize("block", BLOCKS)
def test_the_device_is_never_asked_for_a_number(kernel: str, block: str) -> None:
    """Tensors on the meta device have none to give."""
    layout = ModalityLayout.from_mask(torch.tensor([[True, False, True, True]])).to("meta")
    text, visual = BLOCKS[block]().to("meta"), BLOCKS[block]().to("meta")
    x = torch.randn(4, HIDDEN, device="meta", requires_grad=True)
    KERNELS[kernel](x, layout, text, visual).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("kernel", TORCH)
@pytest.mark.parametrize("mask", [[True, False] * 4, [False] * 3 + [True] * 5, [False] * 8])
def test_kernels_compile_and_recompute(kernel: str, mask: list[bool]) -> None:
    layout = ModalityLayout.from_mask(torch.tensor([mask]))
    text, visual = _experts("swiglu", torch.float32, 0)

    def call(x: Tensor) -> Tensor:
        return KERNELS[kernel](x, layout, text, visual)

    torch.compiler.reset()
    compiled = torch.compile(call, backend="aot_eager", dynamic=False)
    grads = []
    for run in (call, compiled, lambda x: checkpoint(call, x, use_reentrant=False)):
        x = torch.linspace(-1, 1, 8 * HIDDEN).view(8, HIDDEN).requires_grad_()
        run(x).square().sum().backward()
        grads.append(x.grad)
    for grad in grads[1:]:
        torch.testing.assert_close(grad, grads[0])


@settings(max_examples=50)
@given(rows=st.integers(1, 3).flatmap(lambda n: st.tuples(st.just(n), masks())))
def test_rows_of_a_layout_cover_every_token_once(rows: tuple[int, list[bool]]) -> None:
    count, mask = rows
    grid = torch.tensor([mask] * count)
    layout = ModalityLayout.from_mask(grid)
    x = torch.arange(grid.numel())[:, None]
    for modality, chosen in ((layout.text, ~grid), (layout.visual, grid)):
        assert torch.equal(modality.take(x)[:, 0], chosen.reshape(-1).nonzero()[:, 0])
        assert modality.count == int(chosen.sum())
        out = torch.zeros_like(x)
        modality.put(modality.take(x), out)
        assert torch.equal(out[:, 0], x[:, 0] * chosen.reshape(-1))
    assert layout.text.count + layout.visual.count == grid.numel()


@settings(max_examples=50)
@given(mask=masks())
def test_sorting_by_modality_is_a_permutation_computed_once(mask: list[bool]) -> None:
    layout = ModalityLayout.from_mask(torch.tensor([mask]))
    flags = torch.tensor(mask)
    assert torch.equal(flags[layout.order], flags.sort(stable=True).values)
    assert torch.equal(layout.order[layout.places], torch.arange(len(mask)))
    assert layout.ends.tolist() == [mask.count(False), len(mask)]
    assert layout.order is layout.order
    assert layout.to("meta").order.device.type == "meta"


def test_a_layout_refuses_what_is_no_mask() -> None:
    for wrong in (torch.zeros(2, 3), torch.zeros(4, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"bool \(batch, tokens\)"):
            ModalityLayout.from_mask(wrong)
