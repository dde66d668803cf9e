"""What is captured is what was attended with; capturing it costs little and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.profiler import ProfilerActivity, profile

from lightning_mono import kernels
from lightning_mono.attention import Capture, Rollout, both
from lightning_mono.model import MonoModel
from lightning_mono.model.attention import attention_weights
from lightning_mono.model.mask import batch_mask
from lightning_mono.testing import IMAGE, kernels_here, tiny_batch, tiny_config, tiny_model

GOLDEN = Path(__file__).parents[1] / "golden"
FOLDERS = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))
CONFIG = tiny_config()
DECODER = CONFIG.decoder
TILE = [IMAGE] * 4
ROWS = [
    [[[8, 9, 10]], [[5, *TILE, 7], [4, 6], [11, 12, 13]]],  # text first, then two questions
    [[[*TILE, 30, 31]], [[20, 21, 22]]],
]


@pytest.mark.parametrize("kernel", kernels_here())
@pytest.mark.parametrize("folder", FOLDERS)
def test_chosen_layers_heads_and_rows_are_the_official_codes(folder: str, kernel: str) -> None:
    model = MonoModel.from_pretrained(GOLDEN / folder, dtype=torch.float32).eval()
    inputs, theirs = (
        load_file(GOLDEN / folder / f"{n}.safetensors") for n in ("inputs", "outputs")
    )
    config = model.config.decoder
    real = inputs["attention_mask"].bool()
    heads, layers = [config.heads - 1, 0], [config.layers - 1, 0]
    columns = list(range(1, real.shape[1], 3))
    capture = Capture(config, layers=layers, heads=heads, rows=columns)
    pixels = inputs["pixel_values"].float()
    with kernels.active(model, kernel), torch.no_grad():
        batch = model.batch(inputs["input_ids"], pixels, inputs["attention_mask"])
        model.hidden(batch, watch=capture)
    for layer in layers:
        official = theirs[f"attentions.{layer}"][:, heads][:, :, columns]
        found = capture.weights(layer)
        assert found.shape == official.shape
        known = real[:, None, columns].expand(found.shape[:3])
        assert float((found - official)[known].abs().max()) < 1e-5
        assert capture.rows(layer).tolist() == columns


@pytest.mark.parametrize("folder", FOLDERS)
def test_generated_tokens_attend_as_in_one_pass(folder: str) -> None:
    """Row by row in a session, padded in front, against the official rows of the prompt and one
    pass over prompt and answer."""
    model = MonoModel.from_pretrained(GOLDEN / folder, dtype=torch.float32).eval()
    inputs, theirs = (
        load_file(GOLDEN / folder / f"{n}.safetensors") for n in ("inputs", "outputs")
    )
    names = ("input_ids_left", "pixel_values", "attention_mask_left", "tiles_per_sample")
    ids, pixels, mask, tiles = (inputs[name] for name in names)
    meta = json.loads((GOLDEN / folder / "meta.json").read_text())
    session, quiet = model.session(len(meta["tiles"])), model.session(len(meta["tiles"]))
    session.watch = capture = Capture(model.config.decoder)
    new = session.generate(ids, pixels.float(), mask, tiles, max_new_tokens=5)
    assert torch.equal(new, quiet.generate(ids, pixels.float(), mask, tiles, max_new_tokens=5))
    width = ids.shape[1]
    for row, real in enumerate(mask.bool()):
        count = int(real.sum())
        for layer in capture.layers:
            found = capture.weights(layer)[row, :, width - count :, width - count :]
            official = theirs[f"attentions.{layer}"]
            behind = inputs["attention_mask"][row].bool()
            official = official[row][:, behind][:, :, behind]
            assert float((found[:, :count, :count] - official).abs().max()) < 1e-5
            sums = found.sum(-1)
            torch.testing.assert_close(sums, torch.ones_like(sums))
            assert not found.triu(1).any()
        alone = Capture(model.config.decoder)
        read = torch.cat([ids[row][real], new[row, :-1]])[None]
        own = pixels.float().split(meta["tiles"])[row] if meta["tiles"][row] else None
        if (
            model.config.decoder.rope_scaling
            and model.config.decoder.rope_scaling.kind == "dynamic"
        ):
            continue  # rotations depend on the length that has been read so far
        model.hidden(model.batch(read, own), watch=alone)
        for layer in capture.layers:
            found = capture.weights(layer)[row, :, width - count :, width - count :]
            assert float((found - alone.weights(layer)[0]).abs().max()) < 1e-5


@pytest.mark.parametrize("kernel", kernels_here())
@torch.no_grad()
def test_packed_rows_sum_to_one_over_what_they_may_see(kernel: str) -> None:
    model, batch = tiny_model(CONFIG), tiny_batch(ROWS, CONFIG)
    allowed = batch_mask(batch)
    capture, mean = Capture(DECODER), Capture(DECODER, heads=[2, 1], mean=True)
    with kernels.active(model, kernel):
        quiet = model.hidden(batch)
        assert torch.equal(model.hidden(batch, watch=both(capture, mean)), quiet)
    for layer in capture.layers:
        weights = capture.weights(layer)
        sums = weights.sum(-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))
        assert not weights[~allowed.expand_as(weights)].any()
        assert (weights[allowed.expand_as(weights)] > 0).all()
        averaged = weights[:, 1:3].mean(1, keepdim=True)
        torch.testing.assert_close(mean.weights(layer), averaged)


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(ValueError, match="layer 7 does not exist: the model has 0 to 1"):
        Capture(DECODER, layers=[0, 7])
    with pytest.raises(ValueError, match="head -1 does not exist: the model has 0 to 3"):
        Capture(DECODER, heads=[-1])
    with pytest.raises(ValueError, match="layer 1: none of the rows asked for was read"):
        Capture(DECODER, rows=[90]).weights(1)


def test_rollout_is_the_product_of_what_the_layers_mix() -> None:
    model, batch = tiny_model(CONFIG), tiny_batch(ROWS, CONFIG)
    rollout, capture = Rollout(), Capture(DECODER)
    with torch.no_grad():
        model.hidden(batch, watch=both(rollout, capture))
    tokens = batch.input_ids.shape[1]
    for row in range(2):
        expected = torch.eye(tokens)
        for layer in capture.layers:
            average = capture.weights(layer)[row].mean(0)
            expected = (average + torch.eye(tokens)) / 2 @ expected
        torch.testing.assert_close(rollout.flow[row], expected)
    session = model.session()
    session.watch = Rollout()
    session.read(torch.tensor([[5, 6]]))
    with pytest.raises(ValueError, match="all 3 tokens in one pass, this one has 1"):
        session.read(torch.tensor([[7]]))


def _peak(run: object) -> int:
    """Bytes that a call holds at most, above what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run()  # type: ignore[operator]
    held = peak = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [
        (64, torch.float32),
        (64, torch.bfloat16),
        pytest.param(1024, torch.bfloat16, marks=pytest.mark.slow),  # slow on CPUs: no more rows
        pytest.param(4096, torch.float32, marks=pytest.mark.slow),
    ],
)
def test_the_peak_is_little_more_than_what_is_asked_for(rows: int, dtype: torch.dtype) -> None:
    """One layer of a prompt of 4,096 tokens at the shape of Mono-InternVL-2B."""
    heads, kv_heads, tokens, width = 16, 8, 4096, 128
    q = torch.randn(1, heads, tokens, width, dtype=dtype)
    k = torch.randn(1, kv_heads, tokens, width, dtype=dtype)
    chosen = torch.arange(tokens - rows, tokens)
    block = heads * rows * tokens * 4
    peak = _peak(lambda: attention_weights(q, k, None, chosen))
    print(f"{rows} rows, {dtype}: peak {peak / 2**20:.0f} MiB, {peak / block:.3f} of the block")
    assert block <= peak < 1.5 * block
