"""A checkpoint that does not name its image placeholder: the batch leaves one choice, or none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lightning_mono.model import MonoModel
from lightning_mono.testing import IMAGE, tiny_config, tiny_model

KNOWING = tiny_model()


def _unknowing() -> MonoModel:
    model = tiny_model()
    model.config = replace(tiny_config(), image_context_id=None)
    return model


IDS = torch.tensor([[5, *[IMAGE] * 4, 7, 9, 9], [2, 2, 2, 8, *[IMAGE] * 4]])
MASK = torch.tensor([[1] * 8, [0] * 3 + [1] * 5])
PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_it_is_the_id_that_the_tiles_fit() -> None:
    ours, theirs = (m(IDS, PIXELS, MASK).logits for m in (_unknowing(), KNOWING))
    assert torch.equal(ours, theirs)
    ours, theirs = (m.generate(IDS, PIXELS, MASK) for m in (_unknowing(), KNOWING))
    assert torch.equal(ours, theirs)


def test_text_alone_needs_no_placeholder() -> None:
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(_unknowing()(ids).logits, KNOWING(ids).logits)


@pytest.mark.parametrize(
    ("ids", "count"),
    [
        ([5, 3, 3, 3, 6, 7], "no"),  # too few
        ([3, 3, 5, 3, 3, 6], "no"),  # not in one run
        ([3, 3, 3, 3, 5, 5, 5, 5], "2"),  # two could be
    ],
)
def test_a_batch_that_leaves_a_choice_is_refused(ids: list[int], count: str) -> None:
    with pytest.raises(ValueError, match=f"{count} ids occur 4 times in runs of 4.*config.json"):
        _unknowing()(torch.tensor([ids]), PIXELS[:1])
