"""Small models and micro-batches that the planner's tests count."""

from __future__ import annotations

from dataclasses import replace

from lightning_mono.model import Batch, ExpertsConfig, MonoConfig, PatchifierConfig, VitConfig
from lightning_mono.model.config import PatchifierKind
from lightning_mono.plan.microbatch import MicroBatch
from lightning_mono.testing import IMAGE, tiny_batch, tiny_config

PLACEMENTS = {
    "ffn": ExpertsConfig(ffn=(0, 1, 2)),
    "none": ExpertsConfig(),
    "mixed": ExpertsConfig(ffn=(1,), attention=(1,), norms=(0,)),
}
TRAINED = (
    ["patchifier"],
    ["experts"],
    ["attention"],
    ["norms"],
    ["head"],
    ["embeddings"],
    ["ffn"],
    ["patchifier", "experts"],
    ["everything"],
)

CASES = [
    (words, placement)
    for words in TRAINED
    for placement in PLACEMENTS
    if not ("experts" in words and placement == "none")
]
"""What trains and where experts are, of what there is."""


VITS = [
    VitConfig(layers=3, heads=2),
    VitConfig(layers=2, heads=4, mlp_ratio=3, norm="rms_norm", qk_norm=True),
]
TOWERS = [["patchifier"], ["patchifier.vit"], ["patchifier.projector"], ["everything"]]
"""What trains of a modular twin."""


def twin(vit: VitConfig) -> MonoConfig:
    """A model with a vision transformer that is large beside its decoder."""
    patchifier = PatchifierConfig(
        image_size=32, patch_size=4, width=64, merge=4, kind="vit", vit=vit
    )
    return replace(config("none"), patchifier=patchifier)


def named(value: object) -> str:
    """A part of a test's name."""
    if isinstance(value, VitConfig):
        return value.norm
    return "+".join(value) if isinstance(value, list) else str(value)


def of_kind(shape: MonoConfig, kind: PatchifierKind) -> MonoConfig:
    """The model with another patchifier."""
    assert shape.patchifier is not None
    return replace(shape, patchifier=replace(shape.patchifier, kind=kind))


def config(placement: str, **decoder: object) -> MonoConfig:
    """Three layers of 64 channels; ``decoder`` changes settings."""
    settings = {
        "hidden_size": 64,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 16,
        "ffn_size": 160,
        "vocab_size": 512,
        "layers": 3,
        **decoder,
    }
    return tiny_config(experts=PLACEMENTS[placement], **settings)


def packed(model: MonoConfig) -> Batch:
    """Two rows of two documents: modalities are not one run, so their rows are copied."""
    document = [[IMAGE] * 4 + list(range(10, 42))]
    return tiny_batch([[document, document]] * 2, model)


def counted(batch: Batch) -> MicroBatch:
    """A batch as the planner sees it."""
    rows, length = batch.input_ids.shape
    return MicroBatch(
        rows=rows,
        length=length,
        visual=batch.layout.visual.count,
        targets=len(batch.predict),
        tiles=len(batch.pixel_values),
        useful=batch.tokens,
        samples=rows,
        attended=sum(span.length**2 for span in batch.spans or ()),
        masked=False,
        split=True,
        image_targets=batch.wanted.layout.visual.count,
    )
