"""Decoding behind a cache says what recomputing everything would, and stops where it should."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mono import kernels
from lightning_mono.model import MonoModel
from lightning_mono.model.cache import KVCache
from lightning_mono.testing import IMAGE, kernels_here, tiny_config, tiny_decoder, tiny_model

PROMPTS = [
    [5, IMAGE, IMAGE, IMAGE, IMAGE, 6, 7],
    [8, 9],
    [IMAGE] * 8 + [10],
    [11, 12, 13, 14],
]


def _model() -> MonoModel:
    """A model that never says the image placeholder, which would ask for pixels."""
    model = tiny_model(dtype=torch.float64)
    model.head.weight.data[IMAGE] = 0
    return model


MODEL = _model()


def _padded(prompts: list[list[int]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, prompts))
    ids, mask = torch.zeros(2, len(prompts), width, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        place = slice(0, len(prompt)) if side == "right" else slice(width - len(prompt), width)
        ids[row, place], mask[row, place] = torch.tensor(prompt), 1
    return ids, mask


def _pixels(prompts: list[list[int]]) -> torch.Tensor:
    count = sum(prompt.count(IMAGE) for prompt in prompts) // 4
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def _recomputed(model: MonoModel, prompt: list[int], pixels: torch.Tensor, new: int) -> list[int]:
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(new):
            ids.append(int(model(torch.tensor([ids]), pixels).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("kernel", kernels_here(torch.float64))
@pytest.mark.parametrize("side", ["left", "right"])
def test_cached_ids_equal_recomputed_ones_in_a_ragged_batch(side: str, kernel: str) -> None:
    ids, mask = _padded(PROMPTS, side)
    pixels = _pixels(PROMPTS)
    with kernels.active(MODEL, kernel):
        ours = MODEL.generate(ids, pixels, mask, torch.tensor([1, 0, 2, 0]), max_new_tokens=6)
    tile = 0
    for row, prompt in zip(ours.tolist(), PROMPTS, strict=True):
        tiles = prompt.count(IMAGE) // 4
        assert row == _recomputed(MODEL, prompt, pixels[tile : tile + tiles], 6)
        tile += tiles
    assert len({tuple(row) for row in ours.tolist()}) > 1, "rows should differ to tell anything"


@pytest.mark.parametrize("split", [1, 2, 6, 7])
def test_an_image_may_come_after_prefill(split: int) -> None:
    ids = torch.tensor([[5, 6, IMAGE, IMAGE, IMAGE, IMAGE, 7, 8]])
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    session = MODEL.session()
    for piece in (ids[:, :split], ids[:, split:]):
        logits = session.read(piece, pixels if (piece == IMAGE).any() else None)
    with torch.no_grad():
        whole = MODEL(ids, pixels).logits[:, -1].float()
    torch.testing.assert_close(logits, whole)


def test_plain_prompts_take_no_mask_and_say_the_same() -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    masked = MODEL.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5)
    assert torch.equal(MODEL.generate(ids, max_new_tokens=5), masked)
    assert masked.tolist() == [_recomputed(MODEL, row, _pixels([]), 5) for row in ids.tolist()]


def test_stream_yields_what_generate_returns() -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    pieces = torch.stack(list(MODEL.stream(ids, max_new_tokens=5)), dim=1)
    assert torch.equal(pieces, MODEL.generate(ids, max_new_tokens=5))
    assert MODEL.generate(ids, max_new_tokens=0).shape == (2, 0)


def test_a_row_that_stopped_repeats_its_stop_and_leaves_others_alone() -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    free = MODEL.generate(ids, max_new_tokens=6)
    stop = next(t for t in free[0].tolist() if t not in free[1].tolist())
    at = free[0].tolist().index(stop)
    stopped = MODEL.generate(ids, max_new_tokens=6, stop_ids=(stop, 62))
    assert stopped[0].tolist() == free[0, :at].tolist() + [stop] * (6 - at)
    assert torch.equal(stopped[1], free[1])
    ends = [row[0] for row in free.tolist()]
    assert MODEL.generate(ids, max_new_tokens=6, stop_ids=ends).tolist() == [[e] for e in ends]


sampling = st.fixed_dictionaries(
    {
        "temperature": st.floats(0.1, 3.0),
        "top_p": st.floats(0.05, 1.0),
        "top_k": st.integers(0, 80),
        "repetition_penalty": st.floats(0.5, 2.0),
        "seed": st.integers(0, 2**31),
    }
)


@settings(max_examples=15)
@given(choice=sampling)
def test_sampling_repeats_under_a_seed(choice: dict[str, float]) -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    first = MODEL.generate(ids, max_new_tokens=4, **choice)
    torch.rand(3)  # the global generator must not matter
    assert torch.equal(first, MODEL.generate(ids, max_new_tokens=4, **choice))


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_penalty_counts_the_text_of_prompt_and_answer_but_no_placeholder_or_padding(
    side: str,
) -> None:
    ids, mask = _padded(PROMPTS, side)
    ours = MODEL.generate(
        ids, _pixels(PROMPTS), mask, max_new_tokens=8, repetition_penalty=3.0
    ).tolist()
    tile = 0
    for row, prompt in zip(ours, PROMPTS, strict=True):
        tiles = prompt.count(IMAGE) // 4
        pixels = _pixels(PROMPTS)[tile : tile + tiles]
        tile += tiles
        said: list[int] = []
        for _ in range(8):
            with torch.no_grad():
                logits = MODEL(torch.tensor([prompt + said]), pixels).logits[0, -1].tolist()
            for id in {*prompt, *said} - {IMAGE}:
                logits[id] *= 3.0 if logits[id] < 0 else 1 / 3.0
            said.append(max(range(64), key=logits.__getitem__))
        assert row == said
    assert ours != MODEL.generate(ids, _pixels(PROMPTS), mask, max_new_tokens=8).tolist()


def test_seeds_differ_and_narrow_sampling_is_greedy() -> None:
    ids = torch.tensor([[5, 6, 7]])
    greedy = MODEL.generate(ids, max_new_tokens=5)
    hot = {tuple(MODEL.generate(ids, temperature=2.0, seed=s)[0].tolist()) for s in range(5)}
    assert len(hot) > 1
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}):
        ours = MODEL.generate(ids, max_new_tokens=5, temperature=1.5, seed=3, **narrow)
        assert torch.equal(ours, greedy)


@settings(max_examples=30)
@given(top_k=st.integers(0, 8), top_p=st.floats(0.05, 1.0), seed=st.integers(0, 1000))
def test_sampling_stays_inside_what_it_may_choose(top_k: int, top_p: float, seed: int) -> None:
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        chances = MODEL(ids).logits[0, -1].float().softmax(-1)
    ranked, order = chances.sort(descending=True)
    if top_k:
        ranked = ranked[:top_k] / ranked[:top_k].sum()
    within = int((ranked.cumsum(0) - ranked < top_p + 1e-5).sum())
    new = MODEL.generate(
        ids, max_new_tokens=1, temperature=1.0, top_k=top_k, top_p=top_p, seed=seed
    )
    assert int(new) in order[:within].tolist()


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"repetition_penalty": 0.0}]
)
def test_impossible_sampling_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="temperature"):
        MODEL.generate(torch.tensor([[5]]), **wrong)


def test_the_cache_says_when_it_is_full() -> None:
    cache = KVCache(tiny_decoder(), 1, 4, device="cpu", dtype=torch.float32)
    new = torch.zeros(1, 2, 5, 4)
    with pytest.raises(ValueError, match="holds 4 tokens, 5"):
        cache.write(0, new, new)


def test_a_training_model_generates_without_touching_its_gradients() -> None:
    model = tiny_model(tiny_config()).train()
    new = model.generate(torch.tensor([[5, 6]]), max_new_tokens=2)
    model(new.clamp(min=4)).logits.sum().backward()
    assert model.training
    assert model.embed.weight.grad is not None
