"""Products by oneDNN are PyTorch's: value, gradients, shapes, what is kept, what is counted."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from lightning_mono.model import linear as module
from lightning_mono.model.linear import Linear, linear
from lightning_mono.testing import tiny_config, tiny_model

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN"
)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Has oneDNN take every product; gives the shapes of those that it took."""
    monkeypatch.setattr(module, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(module, "SMALL", 0)
    taken: list[tuple[int, ...]] = []
    product = module.product

    def noting(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        taken.append((*x.shape, weight.shape[0]))
        return product(x, weight, bias)

    monkeypatch.setattr(module, "product", noting)
    return taken


@settings(max_examples=60)
@given(
    leading=st.one_of(
        st.lists(st.integers(1, 5), max_size=3),
        st.lists(st.integers(8, 80), min_size=1, max_size=1),
    ),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    bias=st.booleans(),
    trains=st.sampled_from(["x", "weight", "both"]),
)
def test_value_and_gradients(
    leading: list[int], sizes: tuple[int, int], bias: bool, trains: str
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "onednn_is_faster", lambda: True)
        patched.setattr(module, "SMALL", 0)
        generator = torch.Generator().manual_seed(0)
        inside, out = sizes
        x = torch.randn(*leading, inside, generator=generator)
        weight = torch.randn(out, inside, generator=generator)
        offset = torch.randn(out, generator=generator) if bias else None
        x.requires_grad_(trains != "weight")
        weight.requires_grad_(trains != "x")
        if offset is not None:
            offset.requires_grad_(trains != "x")
        above = torch.randn(*leading, out, generator=generator)
        asked = [t for t in (x, weight, offset) if t is not None and t.requires_grad]
        ours, theirs = linear(x, weight, offset), F.linear(x, weight, offset)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)
        pairs = zip(
            torch.autograd.grad(ours, asked, above),
            torch.autograd.grad(theirs, asked, above),
            strict=True,
        )
        with torch.no_grad():
            torch.testing.assert_close(linear(x, weight, offset), theirs, atol=1e-4, rtol=1e-5)
        for mine, other in pairs:
            torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-5)


def test_a_model_computes_the_same(served: list[tuple[int, ...]]) -> None:
    config = tiny_config()
    ids = torch.arange(5, 30)[None]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "onednn_is_faster", lambda: False)
        plain = tiny_model(config)(ids, labels=ids)
    assert not served
    ours = tiny_model(config)(ids, labels=ids)
    rows = [shape for shape in served if 0 not in shape]
    assert len(rows) == 2 * 7 + 1  # q, k, v, out, gate, up, down; the head
    torch.testing.assert_close(ours.logits, plain.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.loss, plain.loss, atol=1e-6, rtol=1e-6)


def test_what_is_not_its_business_is_left_to_torch(served: list[tuple[int, ...]]) -> None:
    x, weight = torch.randn(4, 8), torch.randn(6, 8)
    linear(x.double(), weight.double())
    linear(x.bfloat16(), weight.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    linear(x.to("meta"), weight.to("meta"))
    assert not served
    linear(x, weight)
    assert served == [(4, 8, 6)]


def test_a_frozen_weight_keeps_no_input(served: list[tuple[int, ...]]) -> None:
    x, layer = torch.randn(4, 8, requires_grad=True), Linear(8, 6)
    for trains in (False, True):
        layer.requires_grad_(trains)
        kept: list[tuple[int, ...]] = []

        def pack(t: Tensor, kept: list[tuple[int, ...]] = kept) -> Tensor:
            kept.append(tuple(t.shape))
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            layer(x)
        assert ((4, 8) in kept) == trains
    assert served


def test_operations_are_counted(served: list[tuple[int, ...]]) -> None:
    x, layer = torch.randn(2, 5, 8, requires_grad=True), Linear(8, 6)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert served
    assert counter.get_total_flops() == 3 * 2 * 10 * 8 * 6


def test_shapes_are_known_without_computing(served: list[tuple[int, ...]]) -> None:
    with FakeTensorMode() as mode:
        x, weight = mode.from_tensor(torch.zeros(2, 5, 8)), mode.from_tensor(torch.zeros(6, 8))
        assert linear(x, weight).shape == (2, 5, 6)


def test_small_products_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(module, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(module, "product", lambda x, *_: taken.append(len(x)))
    with torch.no_grad():
        for rows in (127, 128):
            linear(torch.zeros(rows, 256), torch.zeros(64, 256))
    assert taken == [128]


@pytest.mark.parametrize(
    ("said", "faster"),
    [
        ("vendor_id : AuthenticAMD\nflags : avx2 avx512f", True),
        ("vendor_id : AuthenticAMD\nflags : avx2", False),
        ("vendor_id : GenuineIntel\nflags : avx2 avx512f", False),
    ],
)
def test_the_make_of_the_cpu_decides(
    said: str, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_cpu", lambda: said)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert module.onednn_is_faster.__wrapped__() == faster
