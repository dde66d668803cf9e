"""What a recipe's data section says of its batches: image budget, re-compression, workers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lightning_mono.build import open_sources, stage_data
from lightning_mono.data import lengths as measuring
from lightning_mono.data.augment import Recompression, recompressed
from lightning_mono.data.example import Example
from lightning_mono.data.images import ImageProcessor
from lightning_mono.data.lengths import measure
from lightning_mono.data.loader import StageData, StagedLoader, stage_loader
from lightning_mono.data.order import Item
from lightning_mono.data.render import Renderer
from lightning_mono.data.store import Store
from lightning_mono.model import Batch
from lightning_mono.recipe import load_recipe
from lightning_mono.testing import write_tiny_recipe

SIZES = {"square": (8, 8), "wide": (40, 8), "tall": (8, 24), "large": (32, 32)}
RECIPE = """
name: sections
model:
  scratch: {{layers: 1, hidden_size: 16, heads: 2, kv_heads: 1, ffn_size: 24, vocab_size: 300,
            tokenizer_data: plain}}
  patchifier: {{patch_size: 4, width: 6, merge: 2}}
image: {{size: 8, max_tiles: 2}}
data:
  plain: {{sources: {own}, sequence_length: 96, batch_size: 2}}
  squares: {{sources: {own}, sequence_length: 96, batch_size: 2, image: {{max_tiles: 1}}}}
  tiles: {{sources: {own}, sequence_length: 96, batch_size: 2,
          image: {{max_tiles: 6, thumbnail: true}}}}
  parts: {{sources: {own}, sequence_length: 96, batch_size: 2,
          image: {{min_tiles: 4, max_tiles: 6}}}}
  compressed: {{sources: {own}, sequence_length: 96, batch_size: 2, jpeg: [20, 40]}}
stages: {{only: {{duration: 1 steps, train: [patchifier], data: plain}}}}
"""
BUDGETS = {
    "plain": ImageProcessor(8, 2),
    "squares": ImageProcessor(8, 1),
    "tiles": ImageProcessor(8, 6, thumbnail=True),
    "parts": ImageProcessor(8, 6, min_tiles=4),
}


def noise(size: tuple[int, int], seed: int) -> np.ndarray:
    width, height = size
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def sections(
    plain: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, StageData]:
    """The data sets of the recipe, all of the same 24 pictures in four sizes."""
    monkeypatch.setenv("LIGHTNING_MONO_CACHE", str(tmp_path / "cache"))
    lines = []
    for number in range(24):
        name, size = list(SIZES.items())[number % len(SIZES)]
        file = io.BytesIO()
        Image.fromarray(noise(size, number)).save(file, "PNG")
        (tmp_path / f"{number}.png").write_bytes(file.getvalue())
        line = {"id": f"{name} {number}", "image": f"{number}.png", "question": "is it red?"}
        lines.append(json.dumps({**line, "answer": "no"}))
    (tmp_path / "own.jsonl").write_text("\n".join(lines))
    own = f"{{own: {{source: jsonl, options: {{path: {tmp_path}/own.jsonl}}}}}}"
    recipe = load_recipe(write_tiny_recipe(tmp_path, RECIPE.format(own=own)))
    found = {}
    for name, section in recipe.data.items():
        sources = open_sources(section.sources, f"data.{name}", pytest.fail)
        found[name] = stage_data(recipe, name, sources, plain, pad_id=5)
    return found


def batches(data: StageData, count: int, *, start: int = 0, workers: int = 0) -> list[Batch]:
    return list(islice(stage_loader(data, start=start, workers=workers), count))


def assert_same(ours: Iterable[Batch], theirs: Iterable[Batch]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.samples == b.samples
        assert torch.equal(a.input_ids, b.input_ids)
        assert torch.equal(a.pixel_values, b.pixel_values)


@pytest.mark.parametrize("name", BUDGETS)
def test_a_section_cuts_its_pictures_within_its_own_budget(
    name: str, sections: dict[str, StageData]
) -> None:
    data, budget = sections[name], BUDGETS[name]
    assert data.renderer.images == budget
    for batch in batches(data, 10):
        kinds = [sample.split()[0] for sample in batch.samples]
        tiles = [budget.tile_count(*SIZES[kind]) for kind in kinds]
        assert len(batch.pixel_values) == sum(tiles)
        assert batch.layout.visual.count == data.renderer.tokens_per_tile * sum(tiles)


def test_lengths_are_those_of_the_budget(sections: dict[str, StageData]) -> None:
    for name, budget in BUDGETS.items():
        (lengths,) = sections[name].plan.lengths
        (store,) = sections[name].stores
        tiles = np.array([budget.tile_count(*store[n].sizes[0]) for n in range(len(store))])
        text = lengths - sections[name].renderer.tokens_per_tile * tiles
        assert len(set(text)) == 1, "the text of every sample is the same"


def test_lengths_measured_by_processes_are_those_measured_alone(
    sections: dict[str, StageData], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sections["tiles"]
    (store,) = data.stores
    monkeypatch.setattr(measuring, "MANY", 0)
    here = measuring._measured(store, data.renderer, 40, 0)
    assert len(set(here[:, 0])) > 2
    assert not here[:, 0].all(), "some fit and some do not"
    monkeypatch.setattr(measuring, "_lengths", _lengths_elsewhere)
    there = measure(store, data.renderer, 40, workers=2)
    assert there.tokens.tolist() == here[:, 0].tolist()
    assert there.dropped.tolist() == here[:, 1].tolist()


_process = measuring.os.getpid()
_lengths = measuring._lengths


def _lengths_elsewhere(*arguments: object) -> np.ndarray:
    assert measuring.os.getpid() != _process, "measured in the process that asked"
    return _lengths(*arguments)  # type: ignore[arg-type]


def test_tiles_are_compressed_where_the_section_says_so_and_nowhere_else(
    sections: dict[str, StageData],
) -> None:
    assert sections["plain"].augment is None
    for clean, changed in zip(
        batches(sections["plain"], 6), batches(sections["compressed"], 6), strict=True
    ):
        assert changed.samples == clean.samples
        assert torch.equal(changed.input_ids, clean.input_ids)
        assert changed.pixel_values.shape == clean.pixel_values.shape
        differs = (changed.pixel_values != clean.pixel_values).flatten(1).any(1)
        assert differs.all(), "a tile was left as it was"


def test_compression_is_the_same_from_any_start_with_any_number_of_workers(
    sections: dict[str, StageData],
) -> None:
    data = sections["compressed"]
    whole = batches(data, 12)
    assert len({sample for batch in whole for sample in batch.samples}) == 24
    for start, workers in ((0, 2), (5, 0), (7, 3)):
        assert_same(batches(data, 12 - start, start=start, workers=workers), whole[start:])


def test_a_sample_is_compressed_otherwise_when_it_comes_again(
    sections: dict[str, StageData],
) -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    for batch in batches(sections["compressed"], 14):
        tiles = iter(batch.pixel_values)
        for sample in batch.samples:
            budget = BUDGETS["plain"].tile_count(*SIZES[sample.split()[0]])
            seen.setdefault(sample, []).append(torch.stack(list(islice(tiles, budget))))
    again = [comes for comes in seen.values() if len(comes) > 1]
    assert len(again) > 12
    # Of 21 qualities a tile may draw the same twice.
    assert sum(not torch.equal(first, second) for first, second, *_ in again) > len(again) / 2


def example(tiles: int) -> Example:
    """An example of noise; of its text nothing is asked here."""
    ids = np.zeros(4, np.int64)
    pixels = np.stack([noise((8, 8), seed) for seed in range(tiles)])
    return Example("x", ids, ids, ids.astype(np.int32), ids.astype(bool), pixels, 0)


@settings(max_examples=30)
@given(
    st.integers(1, 100).flatmap(lambda low: st.tuples(st.just(low), st.integers(low, 100))),
    st.integers(0, 2**31),
    st.builds(Item, st.integers(0, 9), st.integers(0, 10**9), st.integers(0, 99)),
)
def test_each_tile_is_what_a_quality_within_the_range_leaves_of_it(
    qualities: tuple[int, int], seed: int, item: Item
) -> None:
    given = example(3)
    before = given.tiles.copy()
    compress = Recompression(*qualities, seed)
    changed = compress(given, item)
    assert np.array_equal(given.tiles, before), "the kept example was changed"
    assert np.array_equal(changed.tiles, compress(given, item).tiles)
    for tile, ours in zip(given.tiles, changed.tiles, strict=True):
        possible = (recompressed(tile, q) for q in range(qualities[0], qualities[1] + 1))
        assert any(np.array_equal(ours, each) for each in possible)
    assert compress(example(1), item).tiles.dtype == np.uint8


def test_a_lower_quality_leaves_less() -> None:
    tile = np.repeat(noise((8, 8), 0)[..., :1], 3, axis=2)  # color loses its detail at any quality
    errors = [
        float(np.abs(recompressed(tile, quality).astype(int) - tile).mean())
        for quality in (100, 80, 50, 20, 1)
    ]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1] / 10


@pytest.mark.parametrize("workers", [(0, 3, 1), (3, 1, 0), (1, 0, 3)])
def test_a_run_goes_on_with_another_number_of_workers(
    sections: dict[str, StageData], workers: tuple[int, ...]
) -> None:
    data, stops = sections["compressed"], (5, 9, 14)
    whole = batches(data, stops[-1])
    state, seen = {"batches": 0}, []
    for count, stop in zip(workers, stops, strict=True):
        loader = StagedLoader(
            [(lambda start, n=count: stage_loader(data, start=start, workers=n), stops[-1])]
        )
        loader.load_state_dict(state)
        seen += list(islice(loader, stop - state["batches"]))
        state = loader.state_dict()
    assert_same(seen, whole)
    for stop in stops[:2]:
        drawn = sum(len(batch.samples) for batch in whole[:stop])
        assert drawn % data.samples, "the run stopped between two epochs"


def test_the_store_behind_two_sections_is_prepared_once(sections: dict[str, StageData]) -> None:
    folders = {store.folder for data in sections.values() for store in data.stores}
    assert len(folders) == 1
    assert len(Store(folders.pop())) == 24
