"""The share of attention on images is what the attention itself says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning_mono.callbacks.image_share import image_shares
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_mono.evaluation.report import AttentionPicture
from lightning_mono.journal import Journal
from lightning_mono.metrics.image_share import asking, image_share
from lightning_mono.model import Batch
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


def shares(batch: Batch) -> torch.Tensor:
    return image_shares(MonoModule(tiny_model(CONFIG), Optim()), batch)


def test_it_is_the_mean_over_the_positions_that_predict_and_see_an_image() -> None:
    batch = tiny_batch(ROWS, CONFIG)
    attentions: list[torch.Tensor] = []
    tiny_model(CONFIG).hidden(batch, attentions=attentions)
    rows = torch.zeros(batch.input_ids.shape, dtype=torch.bool)
    rows.view(-1)[batch.predict] = True
    wanted = []
    for row, column in rows.nonzero().tolist():
        document = batch.documents[row, column]
        before = batch.layout.mask[row, : column + 1]
        if bool((before & (batch.documents[row, : column + 1] == document)).any()):
            wanted.append((row, column))
    assert len(wanted) == 12
    for layer, attention in enumerate(attentions):
        each = [
            float(attention[row, :, column][:, batch.layout.mask[row]].sum(-1).mean())
            for row, column in wanted
        ]
        assert float(shares(batch)[layer]) == pytest.approx(np.mean(each), abs=1e-6)


def test_text_alone_has_none() -> None:
    batch = tiny_batch([[[[8, 9, 10]], [[20, 21]]]], CONFIG)
    assert not asking(batch).any()
    assert shares(batch).isnan().all()


@given(seed=st.integers(0, 99), tokens=st.integers(2, 8))
def test_it_agrees_with_the_reports_pictures(seed: int, tokens: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(1, 3, tokens, tokens, generator=generator).softmax(-1)
    visual = torch.zeros(1, tokens, dtype=torch.bool)
    visual[0, : tokens // 2] = True
    last = torch.zeros(1, tokens, dtype=torch.bool)
    last[0, -1] = True
    picture = AttentionPicture.from_attentions(
        [attention[0].numpy()],
        visual[0].numpy(),
        (1, tokens // 2),
        image=b"",
        question="",
        answer="",
    )
    assert float(image_share(attention, visual, last)) == pytest.approx(float(picture.shares[0]))


def test_a_run_notes_shares_gradient_norms_and_its_speed(
    recipe_file: Path, watched: Callable[..., FitResult]
) -> None:
    norms: dict[int, dict[str, float]] = {}

    def look(trainer: Any, module: Any) -> None:
        norms[trainer.global_step] = {k: float(v) for k, v in module.grad_norms.items()}

    result = watched(look, "trainer.attention_every=2")
    journal = Journal(result.run.journal)
    found = journal.events("image_share")
    # The first stage reads text; the second and third read pictures.
    assert [event["step"] for event in found] == [6, 8, 10, 12, 14]
    assert all(len(event["layers"]) == 2 for event in found)
    assert all(0 < share < 1 for event in found for share in event["layers"])
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

    board = EventAccumulator(str(result.run.path / "tensorboard"))
    board.Reload()
    tags = set(board.Tags()["scalars"])
    assert {
        "train/loss",
        "train/loader_wait",
        "train/tokens_per_second",
        "gradient_norm/experts.ffn",
        "image_share/layer_01",
    } <= tags
