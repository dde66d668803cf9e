"""What lmms-eval learns of us by an entry point, before it loads anything."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """Makes ``lmms-eval --model lightning_mono`` known."""
    return ModelManifest(
        model_id="lightning_mono",
        simple_class_path="lightning_mono.harness.lmms_eval.LightningMono",
    )
