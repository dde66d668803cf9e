"""The fused FFN, interpreted on the CPU: the numbers of ``masked_dense`` in two launches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_mono.kernels import gathered, masked_dense
from lightning_mono.kernels.fused import ffn as module
from lightning_mono.kernels.fused import tuning
from lightning_mono.kernels.fused.ffn import RECOMPUTE, SAVE, Saving, ffn, why_not
from lightning_mono.kernels.fused.ffn_backward import Needs, backward
from lightning_mono.kernels.fused.ffn_forward import Call, Weights, forward
from lightning_mono.kernels.fused.launch import Tile
from lightning_mono.kernels.fused.tuning import INTERPRETED, Tiles
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from triton.runtime import interpreter

from lightning_mono.model import ModalityLayout
from lightning_mono.model.experts import SwiGLU
from lightning_mono.testing import tiny_config, tiny_model

HIDDEN, FFN = 32, 48
Pair = tuple[SwiGLU, SwiGLU]
LAYOUTS = {
    "alternating": [i % 2 == 0 for i in range(37)],
    "one text token": [False],
    "one visual token": [True],
    "all text": [False] * 21,
    "all image": [True] * 17,
    "full tiles": [False] * 16 + [True] * 32,
    "runs": [False] * 5 + [True] * 18 + [False] * 10,
}
MIXED = LAYOUTS["runs"]


def _pair(
    text: torch.dtype = torch.float32,
    visual: torch.dtype = torch.float32,
    hidden: int = HIDDEN,
    ffn_size: int = FFN,
) -> Pair:
    torch.manual_seed(0)
    pair = SwiGLU(hidden, ffn_size).to(text), SwiGLU(hidden, ffn_size).to(visual)
    for linear in (*pair[0].children(), *pair[1].children()):
        assert isinstance(linear, nn.Linear)
        nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
    return pair


def _layout(mask: list[bool]) -> ModalityLayout:
    return ModalityLayout.from_mask(torch.tensor([mask], dtype=torch.bool))


def _x(mask: list[bool], hidden: int = HIDDEN, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(len(mask))
    return torch.randn(len(mask), hidden, generator=generator).to(dtype)


def _run(
    kernel: Callable[..., Tensor], x: Tensor, mask: list[bool], pair: Pair, saving: Saving = SAVE
) -> list[Tensor | None]:
    """Output, and the gradients of input and all weights under a fixed random loss."""
    x = x.detach().requires_grad_()
    text, visual = copy.deepcopy(pair)
    more = (saving,) if kernel is ffn else ()
    y = kernel(x, _layout(mask), text, visual, *more)
    loss_weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    (y * loss_weights).sum().backward()
    return [y.detach(), x.grad, *(p.grad for m in (text, visual) for p in m.parameters())]


def _close(ours: list[Tensor | None], oracle: list[Tensor | None], within: float) -> None:
    """Equal up to a share of the largest entry; None where the other is None."""
    for one, other in zip(ours, oracle, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            largest = max(1.0, float(other.detach().abs().max()) if other.numel() else 0.0)
            torch.testing.assert_close(one.float(), other.float(), atol=within * largest, rtol=0)


def _in_fp32(pair: Pair) -> Pair:
    return copy.deepcopy(pair[0]).float(), copy.deepcopy(pair[1]).float()


@pytest.mark.parametrize("saving", [SAVE, RECOMPUTE])
@pytest.mark.parametrize("mask", LAYOUTS.values(), ids=list(LAYOUTS))
def test_fp32_equals_the_oracle(mask: list[bool], saving: Saving) -> None:
    pair, x = _pair(), _x(mask)
    _close(_run(ffn, x, mask, pair, saving), _run(masked_dense, x, mask, pair), 1e-5)


@pytest.mark.parametrize("saving", [SAVE, RECOMPUTE])
@pytest.mark.parametrize("mask", [MIXED, LAYOUTS["one visual token"]])
def test_bf16_stays_near_the_fp32_oracle(mask: list[bool], saving: Saving) -> None:
    pair, x = _pair(torch.bfloat16, torch.bfloat16), _x(mask, dtype=torch.bfloat16)
    ours = _run(ffn, x, mask, pair, saving)
    assert {t.dtype for t in ours if t is not None} == {torch.bfloat16}
    _close(ours, _run(masked_dense, x.float(), mask, _in_fp32(pair)), 2e-2)


@settings(max_examples=12, deadline=None)
@given(mask=st.lists(st.booleans(), min_size=1, max_size=40), saved=st.booleans())
def test_any_layout_equals_the_oracle(mask: list[bool], saved: bool) -> None:
    pair, x = _pair(hidden=16, ffn_size=16), _x(mask, 16)
    _close(_run(ffn, x, mask, pair, Saving(saved)), _run(masked_dense, x, mask, pair), 1e-5)


@pytest.mark.parametrize("saving", [SAVE, RECOMPUTE])
@pytest.mark.parametrize("tile", [Tile(16, 32, 32, 1, 1), Tile(32, 64, 64, 1, 1)])
def test_blocks_need_not_divide_the_sizes(
    tile: Tile, saving: Saving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "INTERPRETED", Tiles(*[tile] * 6))
    pair, x = _pair(hidden=48, ffn_size=80), _x(MIXED, 48)
    _close(_run(ffn, x, MIXED, pair, saving), _run(masked_dense, x, MIXED, pair), 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_modalities_may_differ_in_dtype(dtype: torch.dtype) -> None:
    """Experts in fp32 beside a frozen backbone in bf16, with activations in either."""
    pair, x = _pair(torch.bfloat16, torch.float32), _x(MIXED, dtype=dtype)
    pair[0].requires_grad_(False)
    for saving in (SAVE, RECOMPUTE):
        ours = _run(ffn, x, MIXED, pair, saving)
        kinds = [t.dtype for t in ours if t is not None]
        assert kinds == [dtype] * 2 + [torch.float32] * 3
        within = 1e-5 if dtype == torch.float32 else 2e-2
        _close(ours, _run(masked_dense, x.float(), MIXED, _in_fp32(pair)), within)


def test_strides_are_followed() -> None:
    """Input, output gradient and weights as views: transposed, expanded, a part of each row."""
    pair = _pair()
    for linear in (m for swiglu in pair for m in swiglu.children()):
        assert isinstance(linear, nn.Linear)
        wide = torch.cat([linear.weight.detach(), torch.full_like(linear.weight, 9.0)], dim=1)
        linear.weight.data = wide[:, : linear.in_features]
        assert not linear.weight.is_contiguous()
    x = torch.randn(HIDDEN, 2 * len(MIXED)).t()[::2]
    layout = _layout(MIXED)
    gradients = []
    for kernel in (ffn, masked_dense):
        leaf = x.detach().requires_grad_()
        assert leaf.stride() == (2, 2 * len(MIXED))
        y = kernel(leaf, layout, *pair)
        gradients.append([y, *torch.autograd.grad(y.sum(), [leaf, *pair[1].parameters()])])
    _close(*gradients, 1e-5)


@pytest.mark.parametrize("text_trains", [True, False])
@pytest.mark.parametrize("visual_trains", [True, False])
def test_frozen_weights_get_no_gradient(text_trains: bool, visual_trains: bool) -> None:
    pair = _pair()
    pair[0].requires_grad_(text_trains)
    pair[1].requires_grad_(visual_trains)
    x = _x(MIXED)
    ours = _run(ffn, x, MIXED, pair)
    assert [g is not None for g in ours[2:]] == [text_trains] * 3 + [visual_trains] * 3
    _close(ours, _run(masked_dense, x, MIXED, pair), 1e-5)


@pytest.mark.parametrize("name", ["gate", "up", "down"])
def test_one_weight_may_train_alone(name: str) -> None:
    pair, x = _pair(), _x(MIXED)
    for swiglu in pair:
        swiglu.requires_grad_(False)
    pair[1].get_submodule(name).requires_grad_(True)
    _close(_run(ffn, x, MIXED, pair), _run(masked_dense, x, MIXED, pair), 1e-5)


@pytest.mark.parametrize("mask", [[], [False] * 3, [True] * 3])
def test_a_trainable_modality_without_tokens_gets_zeros(mask: list[bool]) -> None:
    pair = _pair()
    y = ffn(_x(mask), _layout(mask), *pair)
    assert y.shape == (len(mask), HIDDEN)
    y.sum().backward()
    for swiglu, present in zip(pair, (False in mask, True in mask), strict=True):
        for weight in swiglu.parameters():
            assert weight.grad is not None
            assert bool(weight.grad.any()) == present


def test_a_token_reaches_no_other_weights_than_its_own() -> None:
    """Row 0, which stands in for rows that a tile has left over, is text and not a number."""
    pair, x = _pair(), _x(MIXED)
    visual = _run(ffn, x, MIXED, pair)[-3:]
    x[0] = torch.nan
    _, _, *text, gate, up, down = _run(ffn, x, MIXED, pair)
    assert all(g is not None and g.isnan().any() for g in text)
    _close([gate, up, down], visual, 0)


@contextmanager
def _launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """Name and number of programs of every launch that Triton's interpreter runs."""
    seen: list[tuple[str, int]] = []
    run = interpreter.GridExecutor.__call__

    def count(self: Any, *args: Any, **kwargs: Any) -> Any:
        programs = 1
        for size in self.grid:
            programs *= size
        seen.append((self.fn.__name__.removesuffix("_kernel"), programs))
        return run(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(interpreter.GridExecutor, "__call__", count)
        yield seen


@pytest.mark.parametrize(
    ("mask", "row_tiles"),
    [([], 0), ([False] * 17, 2), ([True] * 16, 1), ([True, False] * 17, 4), (MIXED, 3)],
)
def test_forward_is_two_launches(
    mask: list[bool], row_tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No program is there for a modality that is not."""
    pair = _pair()
    with _launched(monkeypatch) as seen:
        ffn(_x(mask), _layout(mask), *pair)
    expected = [("gate_up", row_tiles * FFN // 16), ("down", row_tiles * HIDDEN // 16)]
    assert seen == (expected if mask else [])


@pytest.mark.parametrize(
    ("input_learns", "text_trains", "visual_trains", "expected"),
    [
        (True, False, False, ["swiglu_gradient", "input_gradient"]),
        (True, False, True, ["swiglu_gradient", "input_gradient"] + ["weight_gradient"] * 2),
        (True, True, True, ["swiglu_gradient", "input_gradient"] + ["weight_gradient"] * 2),
        (False, False, True, ["swiglu_gradient"] + ["weight_gradient"] * 2),
    ],
)
def test_backward_launches_only_what_is_needed(
    input_learns: bool,
    text_trains: bool,
    visual_trains: bool,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = _pair()
    pair[0].requires_grad_(text_trains)
    pair[1].requires_grad_(visual_trains)
    y = ffn(_x(MIXED).requires_grad_(input_learns), _layout(MIXED), *pair)
    with _launched(monkeypatch) as seen:
        y.sum().backward()
    assert [name for name, _ in seen] == expected
    weight_tiles = FFN * HIDDEN // 256
    programs = [n for name, n in seen if name == "weight_gradient"]
    modalities = text_trains + visual_trains
    assert programs == [weight_tiles * modalities, 2 * weight_tiles * modalities][: len(programs)]


class _Guarded:
    """The interpreter's memory, refusing addresses outside the tensors of the launch under way."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory
        self.ranges: list[tuple[int, int]] = []

    def check(self, at: Any, mask: Any) -> None:
        at = at[mask.astype(bool)]
        inside = [(at >= first) & (at < end) for first, end in self.ranges]
        assert np.logical_or.reduce(inside).all(), "an address outside every tensor"

    def load(self, at: Any, mask: Any, *others: Any) -> Any:
        self.check(at, mask)
        return self.memory.load(at, mask, *others)

    def store(self, at: Any, value: Any, mask: Any) -> None:
        self.check(at, mask)
        self.memory.store(at, value, mask)


@pytest.mark.parametrize("saving", [SAVE, RECOMPUTE])
def test_no_address_outside_the_tensors(saving: Saving, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies past the end of a size or of a modality's rows is neither read nor written."""
    guarded = _Guarded(interpreter._interpreter)
    run = interpreter.GridExecutor.__call__

    def watch(self: Any, *args: Any, **kwargs: Any) -> Any:
        tensors = [t for t in kwargs.values() if isinstance(t, Tensor)]
        guarded.ranges = [(t.data_ptr(), t.data_ptr() + t.nbytes) for t in tensors]
        return run(self, *args, **kwargs)

    monkeypatch.setattr(tuning, "INTERPRETED", Tiles(*[Tile(32, 64, 64, 1, 1)] * 6))
    monkeypatch.setattr(interpreter, "_interpreter", guarded)
    monkeypatch.setattr(interpreter.GridExecutor, "__call__", watch)
    _run(ffn, _x(MIXED, 48), MIXED, _pair(hidden=48, ffn_size=80), saving)
    assert guarded.ranges
    with pytest.raises(AssertionError, match="outside every tensor"):
        guarded.check(np.array([1]), np.array([True]))


class _Allocations(TorchDispatchMode):
    """Shapes of what operators allocate. Kernels allocate nothing: planning them shows it all."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        owners = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
        ours = isinstance(out, Tensor) and out.untyped_storage().data_ptr() not in owners
        if ours and out.numel():
            self.shapes.append(tuple(out.shape))
        return out


def _call(mask: list[bool]) -> Call:
    layout, pair = _layout(mask), _pair()
    text, visual = (Weights(*(m.weight.detach() for m in p.children())) for p in pair)  # type: ignore[misc]
    return Call(_x(mask), layout.text.index, layout.visual.index, text, visual)


@pytest.mark.parametrize("save", [False, True])
def test_memory_is_the_activation_and_what_is_saved(save: bool) -> None:
    tokens, call = len(MIXED), _call(MIXED)
    with _Allocations() as seen:
        forward(call, INTERPRETED, save=save)
    wide = [(tokens, FFN)] * (3 if save else 1)
    assert sorted(seen.shapes) == sorted([*wide, (tokens, HIDDEN)])


@pytest.mark.parametrize("learns_down", [False, True])
def test_backward_memory(learns_down: bool) -> None:
    """Two gradients of (tokens, ffn), a third such where down trains, and what is returned."""
    tokens, call = len(MIXED), _call(MIXED)
    saved = forward(call, INTERPRETED, save=True)
    needs, dy = Needs(True, False, False, True, learns_down), torch.ones(tokens, HIDDEN)
    with _Allocations() as seen:
        backward(call, dy, saved.gate, saved.up, needs, INTERPRETED)
    wide = [(tokens, FFN)] * (3 if learns_down else 2)
    returned = [(tokens, HIDDEN), *[(FFN, HIDDEN)] * 2, *[(HIDDEN, FFN)] * learns_down]
    assert sorted(seen.shapes) == sorted(wide + returned)


def test_nothing_is_saved_where_nothing_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    plan = module.ffn_forward.forward
    monkeypatch.setattr(
        module.ffn_forward, "forward", lambda *a, save: (asked.append(save), plan(*a, save=save))[1]
    )
    pair, layout, x = _pair(), _layout(MIXED), _x(MIXED)
    with torch.no_grad():
        ffn(x, layout, *pair)
    ffn(x, layout, *(p.requires_grad_(False) for p in pair))
    ffn(x.requires_grad_(), layout, *pair)
    assert asked == [False, False, True]


@pytest.mark.parametrize(
    ("switch", "value", "expected"),
    [
        ("allow_tf32", True, "tf32"),
        ("allow_tf32", False, "ieee"),
        ("fp32_precision", "tf32", "tf32"),
        ("fp32_precision", "ieee", "ieee"),
    ],
)
def test_fp32_is_multiplied_as_pytorch_may(switch: str, value: Any, expected: str) -> None:
    matmul = torch.backends.cuda.matmul
    try:
        setattr(matmul, switch, value)
        done = forward(_call(MIXED), INTERPRETED, save=False)
        assert [launch.arguments["PRECISION"] for launch in done.launches] == [expected] * 2
    finally:
        matmul.allow_tf32 = False


def _operands(save: bool, *, learn: bool = True) -> list[Any]:
    layout, pair = _layout([False, True, True]), _pair(hidden=16, ffn_size=16)
    weights = [p.detach().requires_grad_(learn) for m in pair for p in m.parameters()]
    x = torch.randn(3, 16).requires_grad_(learn)
    return [x, layout.text.index, layout.visual.index, *weights, save]


@pytest.mark.parametrize("save", [False, True])
def test_forward_operator_is_well_made(save: bool) -> None:
    torch.library.opcheck(torch.ops.lightning_mono.ffn.default, _operands(save))


@pytest.mark.parametrize(
    ("save", "needs"), [(True, [True] * 5), (False, [True, False, False, True, True])]
)
def test_backward_operator_is_well_made(save: bool, needs: list[bool]) -> None:
    x, *others, _ = _operands(save, learn=False)
    _, gate, up = torch.ops.lightning_mono.ffn(x, *others, save)
    arguments = (torch.ones_like(x), x, *others, gate, up, needs)
    torch.library.opcheck(torch.ops.lightning_mono.ffn_backward.default, arguments)


@pytest.mark.parametrize("saving", [SAVE, RECOMPUTE])
def test_compiles_without_a_break(saving: Saving) -> None:
    def compiled(x: Tensor, layout: ModalityLayout, text: nn.Module, visual: nn.Module) -> Tensor:
        return ffn(x.sin(), layout, text, visual, saving).cos()

    fast = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    pair, x = _pair(), _x(MIXED)
    _close(_run(fast, x, MIXED, pair), _run(compiled, x, MIXED, pair), 1e-6)


def test_activation_checkpointing_gives_the_same_gradients() -> None:
    def checkpointed(*args: Any) -> Tensor:
        return checkpoint(ffn, *args, use_reentrant=False)

    pair, x = _pair(), _x(MIXED)
    _close(_run(checkpointed, x, MIXED, pair), _run(ffn, x, MIXED, pair), 0)


def test_autocast_computes_in_its_dtype_and_learns_in_the_weights() -> None:
    pair, x = _pair(), _x(MIXED)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = (_run(k, x, MIXED, pair) for k in (ffn, gathered))
    kinds = [t.dtype for t in ours if t is not None]
    assert kinds == [t.dtype for t in theirs if t is not None]
    assert kinds == [torch.bfloat16] + [torch.float32] * 7
    # The interpreter cuts fp32 off to bf16 where a GPU rounds: errors of all weights add up.
    _close(ours, _run(masked_dense, x, MIXED, pair), 3e-2)


def test_row_numbers_may_be_int32() -> None:
    pair, layout, x = _pair(), _layout(MIXED), _x(MIXED)
    short = copy.deepcopy(layout)
    for rows in (short.text, short.visual):
        object.__setattr__(rows, "index", rows.index.int())
    torch.testing.assert_close(ffn(x, short, *pair), ffn(x, layout, *pair), rtol=0, atol=0)


def test_a_whole_model_agrees() -> None:
    """In place of every FFN's kernel, through norms, attention and residuals."""
    model = tiny_model(tiny_config(ffn_size=32))
    ids = torch.tensor([[5, 3, 3, 3, 3, 7, 9], [8, 9, 10, 3, 3, 3, 3]])
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    results = []
    for kernel in (gathered, ffn):
        model.zero_grad()
        for layer in model.layers:
            layer.ffn.kernel = kernel
        logits = model(ids, pixels).logits
        logits.square().mean().backward()
        results.append([logits.detach(), *(p.grad for p in model.parameters())])
    _close(results[1], results[0], 1e-5)


def _swiglu(**changes: nn.Module) -> SwiGLU:
    swiglu = _pair()[0]
    for name, linear in changes.items():
        setattr(swiglu, name, linear)
    return swiglu


def _transposed() -> nn.Linear:
    linear = nn.Linear(HIDDEN, FFN, bias=False)
    linear.weight.data = linear.weight.detach().t().contiguous().t()
    return linear


class _Quantized(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("visual", "dtype", "reason"),
    [
        (_swiglu(), torch.float16, "in bf16 or fp32, not in torch.float16 .*overflows"),
        (_swiglu(), torch.float64, "not in torch.float64"),
        (nn.Linear(HIDDEN, HIDDEN), torch.float32, "serves SwiGLU, not Linear"),
        (_swiglu(up=nn.Linear(HIDDEN, FFN)), torch.float32, "no biases, but up has one"),
        (_swiglu(down=_Quantized(FFN, HIDDEN, bias=False)), torch.float32, "down is .*_Quantized"),
        (_swiglu(gate=_transposed()), torch.float32, "those of gate are transposed"),
        (_swiglu().half(), torch.float32, "gate is torch.float16"),
        (_swiglu(up=_swiglu().up.bfloat16()), torch.float32, "in one dtype"),
        (SwiGLU(HIDDEN, 24), torch.float32, "multiples of 16, not 32x24"),
    ],
)
def test_says_why_it_cannot_run(visual: nn.Module, dtype: torch.dtype, reason: str) -> None:
    text, layout = _pair()[0], _layout(MIXED)
    said = why_not(text, visual, dtype, torch.device("cpu"))
    assert said is not None
    assert "\n" not in said
    with pytest.raises(ValueError, match=reason):
        ffn(_x(MIXED, dtype=dtype), layout, text, visual)


def test_a_layout_of_other_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="layout of 33 tokens, but x has 5"):
        ffn(_x(MIXED)[:5], _layout(MIXED), *_pair())


def test_needs_a_gpu_unless_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = _pair()
    assert why_not(*pair, torch.float32, torch.device("cpu")) is None
    monkeypatch.delenv("TRITON_INTERPRET")
    said = why_not(*pair, torch.float32, torch.device("cpu"))
    assert said == "the fused FFN needs a CUDA device, and the model is on cpu"
