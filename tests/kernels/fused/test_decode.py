"""The kernels of decoding, interpreted on the CPU: few rows of one modality, sums in splits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from lightning_mono.kernels.fused import decode
from lightning_mono.kernels.fused.linear_tiles import Pair, Rows
from torch import Tensor

from lightning_mono.model.experts import RMSNorm, SwiGLU

PARTS = (48, 16, 16)
EPS = 1e-5


def _side(width: int, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], list[Tensor]]:
    weights = [torch.randn(out, width).to(dtype) * width**-0.5 for out in PARTS]
    return weights, [torch.randn(out).to(dtype) for out in PARTS]


def _projected(x: Tensor, pair: Pair, *, visual: bool = False) -> tuple[Tensor, Tensor]:
    every = torch.arange(x.shape[0])
    rows = Rows(every[:0], every) if visual else Rows(every, every[:0])
    launches, y, inverse = decode.projections(x, rows, pair, EPS)
    assert [launch.kernel.__name__ for launch in launches] == ["share_kernel", "sum_kernel"]
    for launch in launches:
        launch.run()
    return y, inverse


def _expected(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    y = x.double() @ torch.cat(weights).double().t()
    return y + torch.cat(biases).double() if biases else y


@pytest.mark.parametrize("rows", [1, 3, 16, 64])
@pytest.mark.parametrize("visual", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_projections_of_few_rows(rows: int, visual: bool, biased: bool) -> None:
    torch.manual_seed(0)
    (text, text_biases), (image, image_biases) = _side(80), _side(80)
    biases = (text_biases, image_biases) if biased else ([], [])
    x = torch.randn(rows, 80)
    y, inverse = _projected(x, Pair.of(text, image, *biases), visual=visual)
    expected = _expected(x, image if visual else text, biases[visual])
    torch.testing.assert_close(y.double(), expected, atol=1e-5, rtol=1e-5)
    assert inverse.numel() == 0


@pytest.mark.parametrize("programs", [1, 6, 9, 1000])
@pytest.mark.parametrize("width", [16, 80, 112])
def test_splits_with_and_without_a_remainder(
    programs: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 5 or 7 steps of 16 terms: one split, two or three with a short last one, one a step."""
    monkeypatch.setattr(decode, "PROGRAMS", programs)
    torch.manual_seed(0)
    weights, biases = _side(width)
    norm = torch.randn(width)
    x = 5 * torch.randn(3, width)
    for norms in ((), (norm, norm)):
        y, inverse = _projected(x, Pair.of(weights, weights, biases, biases, norms))
        rows = x.double()
        if norms:
            factor = torch.rsqrt(rows.square().mean(-1) + EPS)
            torch.testing.assert_close(inverse.double(), factor, atol=1e-6, rtol=1e-6)
            rows = rows * factor[:, None] * norm
        expected = _expected(rows, weights, biases)
        largest = float(expected.abs().max())
        torch.testing.assert_close(y.double(), expected, atol=1e-5 * max(1, largest), rtol=0)


@given(
    width=st.integers(1, 600).map(lambda n: 16 * n),
    tiles=st.integers(1, 600),
    depth=st.sampled_from([16, 32, 64, 128]),
)
def test_splits_cover_every_term_once_and_are_whole_steps(
    width: int, tiles: int, depth: int
) -> None:
    width *= depth // 16
    split = decode._split(width, tiles, depth)
    splits = -(-width // split)
    assert split % depth == 0
    assert (splits - 1) * split < width <= splits * split
    assert tiles * splits <= max(tiles, 1.5 * decode.PROGRAMS)


@pytest.mark.parametrize("normed", [False, True])
def test_bf16_is_near_fp32_and_sums_are_fp32(normed: bool) -> None:
    torch.manual_seed(0)
    weights, biases = _side(112, torch.bfloat16)
    x = torch.randn(3, 112).bfloat16()
    norm = torch.rand(112).bfloat16()
    y, _ = _projected(x, Pair.of(weights, weights, biases, biases, (norm, norm) if normed else ()))
    rows = F.rms_norm(x.double(), (112,), eps=EPS) * norm if normed else x
    expected = _expected(rows, weights, biases)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(
        y.double(), expected, atol=2e-2 * float(expected.abs().max()), rtol=0
    )


def test_a_row_does_not_see_its_neighbours_and_runs_repeat_bit_for_bit() -> None:
    torch.manual_seed(0)
    weights, _ = _side(80)
    pair = Pair.of(weights, weights)
    x = torch.randn(64, 80)
    y, _ = _projected(x, pair)
    assert torch.equal(_projected(x, pair)[0], y)
    other = x.clone()
    other[1:] = float("nan")
    assert torch.equal(_projected(other, pair)[0][0], y[0])


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_ffn_of_few_rows_equals_the_module_in_three_launches(
    rows: int, dtype: torch.dtype, within: float
) -> None:
    torch.manual_seed(0)
    module = SwiGLU(48, 80).to(dtype).requires_grad_(False)
    x = torch.randn(rows, 48).to(dtype)
    weights = list(module.parameters())
    launches, y = decode.ffn_launches(x, weights)
    assert len(launches) == 3
    for launch in launches:
        launch.run()
    expected = module.float()(x.float())
    bound = within * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(y.float(), expected, atol=bound, rtol=0)
    apart = torch.stack([x, x], dim=-1)[..., 0]
    assert apart.stride(-1) == 2
    assert torch.equal(decode.ffn(apart, weights, []), y)


def test_ffn_reads_weights_of_another_dtype() -> None:
    torch.manual_seed(0)
    module = SwiGLU(48, 80).requires_grad_(False)
    x = torch.randn(3, 48)
    y = decode.ffn(x.bfloat16(), list(module.parameters()), [])
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), module(x), atol=2e-2, rtol=0)


def test_ffn_keeps_the_rules_of_torch_library_and_compiles() -> None:
    module = SwiGLU(32, 48).requires_grad_(False)
    call = (torch.randn(3, 32), list(module.parameters()), [])
    torch.library.opcheck(decode.ffn, call)
    whole = torch.compile(decode.ffn, backend="aot_eager", fullgraph=True)
    assert torch.equal(whole(*call), decode.ffn(*call))


@pytest.mark.parametrize(
    ("counts", "suits"),
    [((1, 0), True), ((0, 64), True), ((65, 0), False), ((1, 1), False), ((0, 0), False)],
)
def test_what_decoding_serves(counts: tuple[int, int], suits: bool) -> None:
    assert decode.suits(*counts) is suits


def test_norm_is_that_of_the_model() -> None:
    torch.manual_seed(0)
    weights, _ = _side(48)
    norm = RMSNorm(48, EPS).requires_grad_(False)
    norm.weight.normal_()
    x = torch.randn(2, 48)
    y, _ = _projected(x, Pair.of(weights, weights, norms=(norm.weight, norm.weight)))
    torch.testing.assert_close(y, norm(x) @ torch.cat(weights).t(), atol=1e-5, rtol=1e-5)
