"""Fused projections, interpreted on the CPU: the numbers of ``masked_dense`` in one launch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_mono.kernels import masked_dense
from lightning_mono.kernels.fused import decode
from lightning_mono.kernels.fused.launch import Launch
from lightning_mono.kernels.fused.linear import linear, qkv, why_not
from lightning_mono.kernels.fused.linear_backward import weight_gradients
from lightning_mono.kernels.fused.linear_forward import forward
from lightning_mono.kernels.fused.linear_op import project, project_backward
from lightning_mono.kernels.fused.linear_tiles import Pair, Rows
from lightning_mono.kernels.fused.tuning import LINEAR_INTERPRETED
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from lightning_mono.model import ModalityLayout
from lightning_mono.model.experts import QKV, RMSNorm
from lightning_mono.testing import tiny_decoder

HIDDEN = 48
Kernel = Callable[..., Tensor]
LAYOUTS = {
    "alternating": [i % 2 == 0 for i in range(75)],
    "one text token": [False],
    "all text": [False] * 70,
    "all image": [True] * 66,
    "little image": [True] * 17,
    "one of each": [False, True],
    "full tiles": [False] * 32 + [True] * 64,
    "runs": [False] * 5 + [True] * 18 + [False] * 9,
}
MIXED = LAYOUTS["runs"]


def _qkv(heads: int, kv_heads: int, **settings: bool) -> Callable[[], QKV]:
    sizes = {"heads": heads, "kv_heads": kv_heads, "head_dim": 16, "hidden_size": HIDDEN}
    return lambda: QKV(tiny_decoder(**sizes, **settings))


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(HIDDEN, 32),
    "linear without bias": lambda: nn.Linear(HIDDEN, 80, bias=False),
    "qkv, 2 heads on 1": _qkv(2, 1, qkv_bias=True),
    "qkv, 3 heads on 3": _qkv(3, 3),
    "qkv with norms of heads": _qkv(4, 1, qk_norm=True),
}


def _pair(block: str, dtype: torch.dtype = torch.float32) -> list[nn.Module]:
    torch.manual_seed(0)
    pair = [BLOCKS[block](), BLOCKS[block]()]
    for module in pair:
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return [module.to(dtype) for module in pair]


def _norms(dtype: torch.dtype = torch.float32) -> list[nn.Module]:
    pair = [RMSNorm(HIDDEN, 1e-5), RMSNorm(HIDDEN, 1e-5)]
    for norm in pair:
        nn.init.normal_(norm.weight, mean=1.0, std=0.5)
    return [norm.to(dtype) for norm in pair]


def _fused(text: nn.Module) -> Kernel:
    return qkv if isinstance(text, QKV) else linear


def _plain(x: Tensor, layout: ModalityLayout, text: Any, visual: Any, *norms: Any) -> Tensor:
    return _fused(text)(x, layout, text, visual, norms=norms or None)


def _oracle(x: Tensor, layout: ModalityLayout, text: Any, visual: Any, *norms: Any) -> Tensor:
    if norms:
        text, visual = nn.Sequential(norms[0], text), nn.Sequential(norms[1], visual)
    return masked_dense(x, layout, text, visual)


def _run(
    kernel: Kernel, x: Tensor, mask: Sequence[bool], modules: Sequence[nn.Module]
) -> list[Tensor]:
    """Output, and the gradients of input and all parameters under a fixed random loss."""
    x = x.detach().clone().requires_grad_()
    modules = copy.deepcopy(list(modules))
    layout = ModalityLayout.from_mask(torch.tensor([mask], dtype=torch.bool))
    y = kernel(x, layout, *modules)
    loss = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    (y * loss).sum().backward()
    parameters = [p for module in modules for p in module.parameters()]
    grads = [x.grad, *(p.grad for p in parameters)]
    assert all(grad is not None for grad in grads), "what trains got no gradient"
    assert [g.dtype for g in grads if g is not None][1:] == [p.dtype for p in parameters]
    return [y.detach(), *(grad for grad in grads if grad is not None)]


def _assert_close(ours: list[Tensor], oracle: list[Tensor], within: float) -> None:
    for one, other in zip(ours, oracle, strict=True):
        largest = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(
            one.to(other.dtype), other, atol=within * max(1.0, largest), rtol=0
        )


@contextmanager
def _launches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Launch]]:
    """Every launch that runs inside."""
    ran: list[Launch] = []
    run = Launch.run

    def spy(launch: Launch) -> None:
        ran.append(launch)
        run(launch)

    with monkeypatch.context() as patch:
        patch.setattr(Launch, "run", spy)
        yield ran


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("block", BLOCKS)
def test_outputs_and_gradients_equal_the_oracle(block: str, layout: str) -> None:
    mask, pair = LAYOUTS[layout], _pair(block)
    x = torch.randn(len(mask), HIDDEN)
    _assert_close(_run(_plain, x, mask, pair), _run(_oracle, x, mask, pair), 1e-5)


@pytest.mark.parametrize("block", ["linear", "qkv, 2 heads on 1"])
@pytest.mark.parametrize("layout", ["alternating", "all text", "all image", "runs"])
@pytest.mark.parametrize("shared", [False, True])
def test_norms_at_the_input_equal_norms_before_it(block: str, layout: str, shared: bool) -> None:
    mask, modules = LAYOUTS[layout], [*_pair(block), *_norms()]
    if shared:
        modules[3] = modules[2]
    x = 3 * torch.randn(len(mask), HIDDEN)
    _assert_close(_run(_plain, x, mask, modules), _run(_oracle, x, mask, modules), 1e-5)


@settings(max_examples=10)
@given(
    mask=st.lists(st.booleans(), min_size=1, max_size=40),
    outs=st.integers(1, 5),
    width=st.integers(1, 5),
    bias=st.booleans(),
)
def test_any_layout_and_sizes(mask: list[bool], outs: int, width: int, bias: bool) -> None:
    torch.manual_seed(0)
    pair = [nn.Linear(16 * width, 16 * outs, bias=bias) for _ in range(2)]
    x = torch.randn(len(mask), 16 * width)
    _assert_close(_run(_plain, x, mask, pair), _run(_oracle, x, mask, pair), 1e-5)


@pytest.mark.parametrize("block", ["linear", "qkv, 2 heads on 1", "qkv with norms of heads"])
@pytest.mark.parametrize("layout", ["runs", "little image"])
def test_bf16_is_near_an_fp32_reference(block: str, layout: str) -> None:
    mask, modules = LAYOUTS[layout], [*_pair(block), *_norms()]
    x = torch.randn(len(mask), HIDDEN)
    modules = [module.bfloat16() for module in modules]
    wide = [copy.deepcopy(module).float() for module in modules]
    for kept in (modules, modules[:2]):
        ours = _run(_plain, x.bfloat16(), mask, kept)
        oracle = _run(_oracle, x.bfloat16().float(), mask, wide[: len(kept)])
        assert ours[0].dtype == torch.bfloat16
        _assert_close(ours, oracle, 2e-2)


@pytest.mark.parametrize("layout", ["runs", "little image"])
def test_weights_of_another_dtype_are_read_as_they_are(layout: str) -> None:
    mask, (text, visual) = LAYOUTS[layout], _pair("qkv, 2 heads on 1")
    x = torch.randn(len(mask), HIDDEN).bfloat16()
    mixed = [text.bfloat16(), visual]
    oracle = [copy.deepcopy(text).float(), visual]
    _assert_close(_run(_plain, x, mask, mixed), _run(_oracle, x.float(), mask, oracle), 2e-2)
    norms = _norms()
    _assert_close(
        _run(_plain, x, mask, [*mixed, *norms]),
        _run(_oracle, x.float(), mask, [*oracle, *norms]),
        2e-2,
    )


def test_autocast_computes_in_its_dtype_and_leaves_gradients_in_the_parameters() -> None:
    pair = _pair("qkv, 2 heads on 1")
    x = torch.randn(len(MIXED), HIDDEN)

    def under_autocast(x: Tensor, *rest: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = _plain(x, *rest)
        assert y.dtype == torch.bfloat16
        return y

    _assert_close(_run(under_autocast, x, MIXED, pair), _run(_oracle, x, MIXED, pair), 2e-2)


@pytest.mark.parametrize("mask", [MIXED, [False] * 7])
def test_rows_and_weights_may_be_slices(mask: list[bool]) -> None:
    text, visual = _pair("linear")
    x = torch.randn(HIDDEN, 2 * len(mask)).t()[::2]
    assert x.stride(1) != 1
    layout = ModalityLayout.from_mask(torch.tensor([mask]))
    wide = torch.randn(32, 2 * HIDDEN)
    for module, weight in ((text, wide[:, :HIDDEN]), (visual, wide[:, HIDDEN:])):
        module.weight = nn.Parameter(weight)
        assert module.weight.stride() == (2 * HIDDEN, 1)
    for rows in (x, torch.randn(len(mask), 3 * HIDDEN)[:, HIDDEN : 2 * HIDDEN]):
        ours = linear(rows, layout, text, visual)
        torch.testing.assert_close(ours, masked_dense(rows, layout, text, visual))


@pytest.mark.parametrize(("frozen", "trains"), [(0, (False, True)), (1, (True, False))])
def test_frozen_weights_cost_nothing(
    frozen: int, trains: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = _pair("qkv, 2 heads on 1")
    layout = ModalityLayout.from_mask(torch.tensor([MIXED]))
    x = torch.randn(len(MIXED), HIDDEN, requires_grad=True)
    both = torch.autograd.grad(qkv(x, layout, *pair).sum(), [x, *pair[1 - frozen].parameters()])
    pair[frozen].requires_grad_(False)
    with _launches(monkeypatch) as ran:
        qkv(x, layout, *pair).sum().backward()
    assert all(p.grad is None for p in pair[frozen].parameters())
    mine = [x.grad, *(p.grad for p in pair[1 - frozen].parameters())]
    assert all(torch.equal(a, b) for a, b in zip(mine, both, strict=True) if a is not None)
    assert [launch.kernel.__name__ for launch in ran] == [
        "linear_kernel", "input_kernel", "weights_kernel",
    ]  # fmt: skip
    out, tiles = 64, 2 * 2
    assert ran[-1].grid == (tiles,), "only the trainable modality's tiles of 32 x 32"
    text_grad, visual_grad = (ran[-1].arguments[f"{m}_grad"].numel() for m in ("text", "visual"))
    assert (text_grad, visual_grad) == tuple(out * HIDDEN * t for t in trains)


def test_everything_frozen_launches_no_weight_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = [module.requires_grad_(False) for module in _pair("linear")]
    layout = ModalityLayout.from_mask(torch.tensor([MIXED]))
    x = torch.randn(len(MIXED), HIDDEN, requires_grad=True)
    with _launches(monkeypatch) as ran:
        linear(x, layout, *pair).sum().backward()
    assert [sum(launch.grid) > 0 for launch in ran] == [True, True, False]
    with _launches(monkeypatch) as ran:
        linear(x.detach(), layout, *pair)
    assert len(ran) == 1


def test_only_some_weights_of_a_modality_train() -> None:
    pair = _pair("qkv, 2 heads on 1")
    layout = ModalityLayout.from_mask(torch.tensor([MIXED]))
    pair[1].k.requires_grad_(False)
    pair[1].q.weight.requires_grad_(False)
    qkv(torch.randn(len(MIXED), HIDDEN), layout, *pair).sum().backward()
    got = {name for name, p in pair[1].named_parameters() if p.grad is not None}
    assert got == {"q.bias", "v.weight", "v.bias"}


def test_no_tokens_launch_nothing_and_give_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = _pair("qkv, 2 heads on 1")
    layout = ModalityLayout.from_mask(torch.zeros(1, 0, dtype=torch.bool))
    x = torch.randn(0, HIDDEN, requires_grad=True)
    with _launches(monkeypatch) as ran:
        y = qkv(x, layout, *pair)
    assert y.shape == (0, 64)
    assert not any(launch.grid[0] for launch in ran)
    y.sum().backward()
    for parameter in (p for module in pair for p in module.parameters()):
        assert parameter.grad is not None
        assert not parameter.grad.any()


class _Allocations(TorchDispatchMode):
    """Shapes of every tensor that an operator makes."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = op(*args, **(kwargs or {}))
        made = [out] if isinstance(out, Tensor) else out
        self.shapes += [tuple(t.shape) for t in made if isinstance(t, Tensor) and t.numel()]
        return out


def test_one_launch_writes_its_result_and_allocates_nothing_else() -> None:
    text, visual = _pair("qkv, 2 heads on 1")
    weights = [[m.q.weight, m.k.weight, m.v.weight] for m in (text, visual)]
    mask = LAYOUTS["alternating"]
    layout = ModalityLayout.from_mask(torch.tensor([mask]))
    rows, pair = Rows(layout.text.index, layout.visual.index), Pair.of(*weights)
    x = torch.randn(len(mask), HIDDEN)
    with torch.no_grad(), _Allocations() as forwards:
        launches, _, inverse = forward(x, rows, pair, 0.0, LINEAR_INTERPRETED.project)
    assert len(launches) == 1
    assert forwards.shapes == [(len(mask), 64)]
    dy = torch.randn(len(mask), 64)
    with torch.no_grad(), _Allocations() as backwards:
        weight_gradients(dy, x, inverse, rows, pair, (False, True), LINEAR_INTERPRETED[2])
    assert backwards.shapes == [(64, HIDDEN)]


def _call(mask: list[bool], normed: bool) -> tuple[Any, ...]:
    text, visual = _pair("qkv, 2 heads on 1")
    layout = ModalityLayout.from_mask(torch.tensor([mask]))
    parts = [[m.q, m.k, m.v] for m in (text, visual)]
    return (
        torch.randn(len(mask), HIDDEN, requires_grad=True),
        layout.text.index,
        layout.visual.index,
        *([part.weight for part in side] for side in parts),
        *([part.bias for part in side] for side in parts),
        [norm.weight for norm in _norms()] if normed else [],
        [],
        1e-5,
    )


@pytest.mark.parametrize(("mask", "normed"), [(MIXED[:12], True), ([False] * 3, False)])
def test_operators_keep_the_rules_of_torch_library(mask: list[bool], normed: bool) -> None:
    call = _call(mask, normed)
    torch.library.opcheck(project, call)
    with torch.no_grad():
        y, inverse = project(*call)
    *call, _ = (
        [t.detach() for t in a] if isinstance(a, list) else a for a in (call[0].detach(), *call[1:])
    )
    for needs in ([True, True, True, normed], [not normed, False, True, False]):
        torch.library.opcheck(project_backward, (y, call[0], inverse, *call[1:], needs))


def test_compiles_whole_and_recomputes_under_a_checkpoint() -> None:
    modules = [*_pair("qkv, 2 heads on 1"), *_norms()]
    x = torch.randn(len(MIXED), HIDDEN)
    eager = _run(_plain, x, MIXED, modules)
    whole = torch.compile(_plain, backend="aot_eager", fullgraph=True)

    def again(*args: Any) -> Tensor:
        return checkpoint(_plain, *args, use_reentrant=False)

    for kernel in (whole, again):
        for one, other in zip(_run(kernel, x, MIXED, modules), eager, strict=True):
            assert torch.equal(one, other)


def test_a_step_of_an_optimizer_takes_the_gradients_as_they_come() -> None:
    text, visual = pair = _pair("qkv, 2 heads on 1")
    layout = ModalityLayout.from_mask(torch.tensor([MIXED]))
    optimizer = torch.optim.AdamW([p for m in pair for p in m.parameters()], lr=0.01)
    x, losses = torch.randn(len(MIXED), HIDDEN), []
    for _ in range(3):
        loss = qkv(x, layout, text, visual).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(text.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


CPU = torch.device("cpu")


def test_why_not_names_what_is_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    text, visual = _pair("linear")
    assert why_not(text, visual, torch.float32, CPU) is None
    assert why_not(*_pair("qkv with norms of heads"), torch.bfloat16, CPU) is None
    for dtype in (torch.float16, torch.float64):
        assert str(dtype) in (why_not(text, visual, dtype, CPU) or "")
    odd = nn.Linear(HIDDEN, 40)
    assert "multiples of 16; the projection is 48x40" in (
        why_not(odd, odd, torch.float32, CPU) or ""
    )
    assert "same sizes" in (why_not(text, nn.Linear(HIDDEN, 16), torch.float32, CPU) or "")

    class Quantised(nn.Linear):
        pass

    other = Quantised(HIDDEN, 32)
    assert "Quantised" in (why_not(other, visual, torch.float32, CPU) or "")
    assert "RMSNorm" in (why_not(*_norms(), torch.float32, CPU) or "")
    monkeypatch.delenv("TRITON_INTERPRET")
    assert "CUDA device" in (why_not(text, visual, torch.float32, CPU) or "")


def test_few_rows_of_one_modality_take_the_way_of_decoding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text, visual = _pair("linear")
    for mask, few in (
        ([False] * decode.MOST_ROWS, True),
        ([True], True),
        ([False] * (decode.MOST_ROWS + 1), False),
        ([False, True], False),
    ):
        layout = ModalityLayout.from_mask(torch.tensor([mask]))
        with _launches(monkeypatch) as ran:
            linear(torch.randn(len(mask), HIDDEN), layout, text, visual)
        names = [launch.kernel.__name__ for launch in ran]
        assert names == (["share_kernel", "sum_kernel"] if few else ["linear_kernel"])
