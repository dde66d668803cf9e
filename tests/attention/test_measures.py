"""Each measure against a loop over queries and keys that does what its definition says."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mono.attention import MEASURES, Capture, Ground, Measures, both
from lightning_mono.attention.measures import measured
from lightning_mono.model import Batch
from lightning_mono.model.mask import batch_mask
from lightning_mono.testing import IMAGE, tiny_batch, tiny_config, tiny_model

CONFIG = tiny_config()
TILE = [IMAGE] * 4  # 2 x 2
PACKED = [
    [[[8, 9, 10]], [[5, *TILE, *TILE, 7], [4, 6], [11, 12, 13]]],
    [[[*TILE, 30, 31]], [[20, 21, 22]]],
]
PLAIN = [[[[5, *TILE, 7, 8, *TILE, 9]]]]
TEXT = [[[[8, 9, 10]], [[20, 21]]]]


def _loop(batch: Batch, weights: torch.Tensor) -> dict[str, float]:
    """Measures of a layer, (batch, heads, tokens, tokens), over all heads."""
    sums = {name: [0.0, 0.0] for name in MEASURES}

    def add(name: str, value: float, weight: float = 1.0) -> None:
        sums[name][0] += value * weight
        sums[name][1] += weight

    visual = batch.layout.mask
    width = visual.shape[1]
    predicts = set(batch.predict.tolist())
    order = [tuple(at) for at in visual.nonzero().tolist()]
    mask = batch_mask(batch)
    for row in range(len(visual)):
        documents = batch.documents[row].tolist()
        for head in range(weights.shape[1]):
            for i in range(width):
                if documents[i] == 0:
                    continue
                a = weights[row, head, i].tolist()
                allowed = [j for j in range(i + 1) if mask is None or mask[row, 0, i, j]]
                seen = [j for j in allowed if visual[row, j]]
                on_images = sum(a[j] for j in range(width) if visual[row, j])
                if row * width + i in predicts and seen:
                    add("image_share", on_images)
                if not visual[row, i] and seen:
                    add("text_to_image", on_images)
                add("entropy", -sum(x * math.log(x) for x in a if x > 0))
                first = documents.index(documents[i])
                if i != first:
                    add("sink", a[first])
                if not visual[row, i]:
                    continue
                add("image_to_image", on_images)
                tile, cell = divmod(order.index((row, i)), 4)
                for j in range(width):
                    if visual[row, j] and order.index((row, j)) // 4 == tile:
                        other = order.index((row, j)) % 4
                        down, across = cell // 2 - other // 2, cell % 2 - other % 2
                        add("patch_distance", math.hypot(down, across), a[j])
                        add("own_row", float(down == 0), a[j])
    return {name: top / below if below else math.nan for name, (top, below) in sums.items()}


@pytest.mark.parametrize("rows", [PACKED, PLAIN, TEXT], ids=["packed", "plain", "text"])
@torch.no_grad()
def test_measures_are_what_their_definitions_say(
    rows: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks of a row or two, so that what is added up comes in many.
    monkeypatch.setattr("lightning_mono.attention.capture.BLOCK", 250)
    batch = tiny_batch(rows, CONFIG)
    measures, capture = Measures(Ground.of(batch, CONFIG.patchifier)), Capture(CONFIG.decoder)
    tiny_model(CONFIG).hidden(batch, watch=both(measures, capture))
    for layer in capture.layers:
        weights = capture.weights(layer)
        expected = _loop(batch, weights)
        found = {name: float(by_layer[layer]) for name, by_layer in measures.by_layer.items()}
        assert found == pytest.approx(expected, abs=1e-5, nan_ok=True)
        for head in range(weights.shape[1]):
            expected = _loop(batch, weights[:, head : head + 1])
            found = {name: float(every[layer, head]) for name, every in measures.by_head.items()}
            assert found == pytest.approx(expected, abs=1e-5, nan_ok=True)


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), sharpness=st.floats(0, 20))
def test_any_attention_keeps_measures_in_their_range(seed: int, sharpness: float) -> None:
    batch = tiny_batch(PACKED, CONFIG)
    ground, mask = Ground.of(batch, CONFIG.patchifier), batch_mask(batch)
    generator = torch.Generator().manual_seed(seed)
    scores = sharpness * torch.randn(2, 3, *mask.shape[2:], generator=generator)
    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
    found = measured(weights, torch.arange(mask.shape[-1]), ground)
    assert list(found) == list(MEASURES)
    for name, (above, below) in found.items():
        value = above.sum() / below.sum()
        most = {"share": 1.0, "patches": math.sqrt(2), "nats": math.log(mask.shape[-1])}
        assert 0 <= value <= most[MEASURES[name].unit] + 1e-6
        assert not above[below == 0].any()


def test_entropy_of_equal_weights_is_the_logarithm_of_their_number() -> None:
    batch = tiny_batch([[[[5, 6, 7, 8]]]], CONFIG)
    ground = Ground.of(batch, CONFIG.patchifier)
    even = torch.ones(4, 4).tril() / torch.arange(1, 5)[:, None]
    above, _ = measured(even[None, None], torch.arange(4), ground)["entropy"]
    torch.testing.assert_close(above[0, 0], torch.arange(1, 5).log())
