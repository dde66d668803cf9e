"""The fused FFN as operators: launches, memory, what PyTorch asks of them, what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from lightning_mono.kernels.fused import ffn as module
from lightning_mono.kernels.fused import ffn_forward, tuning
from lightning_mono.kernels.fused.ffn import RECOMPUTE, SAVE, Saving, ffn, why_not
from lightning_mono.kernels.fused.ffn_backward import Needs, backward
from lightning_mono.kernels.fused.ffn_forward import Call, Weights, forward
from lightning_mono.kernels.fused.launch import Tile
from lightning_mono.kernels.fused.tuning import INTERPRETED, Tiles
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from triton.runtime import interpreter

from lightning_mono.model import ModalityLayout
from lightning_mono.model.experts import SwiGLU

from .ffns import FFN, HIDDEN, MIXED, close, layout_of, rows_of, run, swiglus


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
    pair = swiglus()
    with _launched(monkeypatch) as seen:
        ffn(rows_of(mask), layout_of(mask), *pair)
    gate_up = min(row_tiles * FFN // 16, ffn_forward.RESIDENT)
    expected = [("gate_up", gate_up), ("down", row_tiles * HIDDEN // 16)]
    assert seen == (expected if mask else [])


@pytest.mark.parametrize("multiprocessors", [2, 3, 4, 50])
def test_any_number_of_programs_gives_the_same_bits(
    multiprocessors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """9 tiles by 2, 4, 6, 8 programs, and by one each."""
    call = _call(MIXED)
    results = []
    for count in (1, multiprocessors):
        monkeypatch.setattr(ffn_forward, "multiprocessors", lambda _, count=count: count)
        done = forward(call, INTERPRETED, save=True)
        assert done.launches[0].grid == (min(9, 2 * count),)
        for launch in done.launches:
            launch.run()
        results.append((done.y, done.gate, done.up))
    assert all(map(torch.equal, *results))


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
    pair = swiglus()
    pair[0].requires_grad_(text_trains)
    pair[1].requires_grad_(visual_trains)
    y = ffn(rows_of(MIXED).requires_grad_(input_learns), layout_of(MIXED), *pair)
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
    launch = interpreter.GridExecutor.__call__

    def watch(self: Any, *args: Any, **kwargs: Any) -> Any:
        tensors = [t for t in tree_leaves(kwargs) if isinstance(t, Tensor)]
        guarded.ranges = [(t.data_ptr(), t.data_ptr() + t.nbytes) for t in tensors]
        return launch(self, *args, **kwargs)

    monkeypatch.setattr(tuning, "INTERPRETED", Tiles(*[Tile(32, 64, 64, 1, 1)] * 6))
    monkeypatch.setattr(interpreter, "_interpreter", guarded)
    monkeypatch.setattr(interpreter.GridExecutor, "__call__", watch)
    run(ffn, rows_of(MIXED, 48), MIXED, swiglus(hidden=48, ffn_size=80), saving)
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
    layout, pair = layout_of(mask), swiglus()
    text, visual = (Weights(*(m.weight.detach() for m in p.children())) for p in pair)  # type: ignore[misc]
    return Call(rows_of(mask), layout.text.index, layout.visual.index, text, visual)


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
    pair, layout, x = swiglus(), layout_of(MIXED), rows_of(MIXED)
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
    layout, pair = layout_of([False, True, True]), swiglus(hidden=16, ffn_size=16)
    weights = [p.detach().requires_grad_(learn) for m in pair for p in m.parameters()]
    x = torch.randn(3, 16).requires_grad_(learn)
    return [x, layout.text.index, layout.visual.index, *weights, [], save]


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
    pair, x = swiglus(), rows_of(MIXED)
    close(run(fast, x, MIXED, pair), run(compiled, x, MIXED, pair), 1e-6)


def test_activation_checkpointing_gives_the_same_gradients() -> None:
    def checkpointed(*args: Any) -> Tensor:
        return checkpoint(ffn, *args, use_reentrant=False)

    pair, x = swiglus(), rows_of(MIXED)
    close(run(checkpointed, x, MIXED, pair), run(ffn, x, MIXED, pair), 0)


def _swiglu(**changes: nn.Module) -> SwiGLU:
    swiglu = swiglus()[0]
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
        (_swiglu(up=_swiglu().up.bfloat16()), torch.float32, "alike in dtype"),
        (SwiGLU(HIDDEN, 24), torch.float32, "multiples of 16; gate is 32x24"),
    ],
)
def test_says_why_it_cannot_run(visual: nn.Module, dtype: torch.dtype, reason: str) -> None:
    said = why_not(swiglus()[0], visual, dtype, torch.device("cpu"))
    assert said is not None
    assert "\n" not in said
    assert re.search(reason, said)


def test_a_layout_of_other_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="layout of 33 tokens, but x has 5"):
        ffn(rows_of(MIXED)[:5], layout_of(MIXED), *swiglus())


def test_needs_a_gpu_unless_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = swiglus()
    assert why_not(*pair, torch.float32, torch.device("cpu")) is None
    monkeypatch.delenv("TRITON_INTERPRET")
    said = why_not(*pair, torch.float32, torch.device("cpu"))
    assert said == "fused kernels need a CUDA device, and the model is on cpu"
