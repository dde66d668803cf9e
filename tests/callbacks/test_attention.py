"""What a run notes of its attention is what the attention itself says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_mono.callbacks.attention import SIDE, read_attention
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_mono.attention import MEASURES, Capture, Ground, Measures
from lightning_mono.attention.measures import quotients
from lightning_mono.journal import Journal
from lightning_mono.module import MonoModule
from lightning_mono.stages import Optim
from lightning_mono.testing import IMAGE, tiny_batch, tiny_config, tiny_model
from lightning_mono.training import FitResult

CONFIG = tiny_config()
TILE = [IMAGE] * 4
ROWS = [
    [[[8, 9, 10]], [[5, *TILE, 7], [4, 6], [11, 12, 13]]],  # text first, then two questions
    [[[*TILE, 30, 31]], [[20, 21, 22]]],
]


def test_it_reads_the_measures_of_a_batch() -> None:
    batch = tiny_batch(ROWS, CONFIG)
    module = MonoModule(tiny_model(CONFIG), Optim())
    measures = Measures(Ground.of(batch, CONFIG.patchifier))
    module(batch, watch=measures)
    sums, _ = read_attention(module, batch)
    for name, layers in quotients(sums).items():
        assert torch.equal(layers, measures.by_layer[name])


def test_the_strip_is_bright_where_the_first_answer_looks() -> None:
    batch = tiny_batch(ROWS, CONFIG)
    batch.pixel_values.zero_()
    module = MonoModule(tiny_model(CONFIG), Optim())
    _, strip = read_attention(module, batch)
    assert strip is not None
    assert strip.shape == (SIDE + 4, 2 * (SIDE + 4), 3)
    capture = Capture(CONFIG.decoder)
    module(batch, watch=capture)
    # Row 0: three words, then <5>, the tile's four tokens at 4 to 7. Every visual token but the
    # first is supervised here, so the first position that sees an image is the tile's first token.
    for layer in capture.layers:
        looks = capture.weights(layer)[0, :, 4, 4:8].mean(0).reshape(2, 2)
        part = strip[2:-2, layer * (SIDE + 4) + 2 : (layer + 1) * (SIDE + 4) - 2].astype(float)
        cells = part.mean(2).reshape(2, SIDE // 2, 2, SIDE // 2).mean((1, 3))
        assert cells.argmax() == int(looks.argmax())


def test_text_alone_has_no_picture_and_no_share() -> None:
    batch = tiny_batch([[[[8, 9, 10]], [[20, 21]]]], CONFIG)
    sums, strip = read_attention(MonoModule(tiny_model(CONFIG), Optim()), batch)
    found = quotients(sums)
    assert strip is None
    assert found["image_share"].isnan().all()
    assert not found["entropy"].isnan().any()


def test_a_run_notes_shares_gradient_norms_and_its_speed(
    recipe_file: Path, watched: Callable[..., FitResult]
) -> None:
    norms: dict[int, dict[str, float]] = {}

    def look(trainer: Any, module: Any) -> None:
        norms[trainer.global_step] = {k: float(v) for k, v in module.grad_norms.items()}

    result = watched(look, "trainer.attention_every=2")
    journal = Journal(result.run.journal)
    found = journal.events("attention")
    assert [event["step"] for event in found] == [2, 4, 6, 8, 10, 12, 14]
    # The first stage reads text; the second and third read pictures.
    assert all(set(MEASURES) & set(event) == {"entropy", "sink"} for event in found[:2])
    assert all(set(MEASURES) <= set(event) for event in found[2:])
    assert all(len(event["entropy"]) == 2 for event in found)
    assert all(0 < share < 1 for event in found[2:] for share in event["image_share"])
    for event in journal.events("gradients"):
        assert event["norms"] == norms[event["step"]]
    assert set(norms[6]) == {"patchifier", "experts.ffn"}
    (speed,) = journal.events("speed")
    steps = journal.events("step")
    assert speed["steps"] == len(steps) == 14
    waited, seconds, opening = (
        sum(step[key] for step in steps) for key in ("waited", "seconds", "opening")
    )
    assert 0 < speed["loader_wait"] < 1
    assert speed["loader_wait"] == pytest.approx(waited / (seconds - opening), abs=0.01)
    # The first batch of each of the three stages is counted apart.
    assert [step["step"] for step in steps if step["opening"]] == [1, 5, 10]
    assert all(step["waited"] == 0 for step in steps if step["opening"])
    told = result.metrics["speed"]
    assert isinstance(told, dict)
    assert told == pytest.approx({key: speed[key] for key in told}, rel=0.01, abs=0.01)
    share = f"{100 * told['loader_wait']:.1f}"
    assert f"{share}\u202f% went into waiting for data" in result.run.report.read_text()

    board = EventAccumulator(str(result.run.path / "tensorboard"), {"images": 0})
    board.Reload()
    tags = set(board.Tags()["scalars"])
    assert {
        "train/loss",
        "train/loader_wait",
        "train/tokens_per_second",
        "gradient_norm/experts.ffn",
        *(f"{name}/layer_01" for name in MEASURES),
    } <= tags
    assert [image.step for image in board.Images("attention/layers")] == [6, 8, 10, 12, 14]
