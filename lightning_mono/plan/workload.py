"""What a stage computes at a time: by the prepared data, or by an assumption that is said."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_mono.data.loader import StageData
from lightning_mono.model import MonoConfig
from lightning_mono.plan.microbatch import MicroBatch
from lightning_mono.recipe import Recipe
from lightning_mono.recipe.resolve import merged_image
from lightning_mono.stages import Duration


@dataclass(frozen=True)
class Workload:
    """A data set as the model meets it.

    Attributes:
        row_samples: samples in a row, on the average.
        row_useful: tokens of a row that are not padding.
        row_visual: image tokens of a row.
        row_targets: supervised tokens of a row.
        length: tokens of a row, padding included.
        data: the packed samples, where they are prepared.
        note: where the figures are from, in a line.
    """

    row_samples: float
    row_useful: float
    row_visual: float
    row_targets: float
    length: int
    data: StageData | None
    note: str

    def micro_batch(self, config: MonoConfig, rows: int, *, split: bool) -> MicroBatch:
        """So many rows at once.

        Args:
            split: attention goes sample by sample, all taken as equally long, and not row by row.
        """
        a_tile = config.patchifier.tokens_per_tile if config.patchifier else 1
        visual = rows * self.row_visual
        return MicroBatch(
            rows=rows,
            length=self.length,
            visual=visual,
            targets=rows * self.row_targets,
            tiles=visual / a_tile,
            useful=rows * self.row_useful,
            samples=rows * self.row_samples,
            attended=rows * (self.row_useful**2 / self.row_samples if split else self.length**2),
            masked=not split,
            split=split,
        )

    def steps(self, duration: Duration, batch_size: int, devices: int) -> int | None:
        """Optimizer steps of a duration; None for epochs of data that are not there to count.

        Args:
            batch_size: rows of a step, over all devices.
        """
        if duration.unit == "steps":
            return int(duration.value)
        if self.data is not None:
            plan = self.data.plan
            if duration.unit == "tokens":
                return plan.batches_for_tokens(int(duration.value), devices)
            epochs = self.data.samples if duration.unit == "epochs" else 1
            return plan.batches_for(math.ceil(duration.value * epochs), devices)
        if duration.unit == "epochs":
            return None
        of_a_row = self.row_useful if duration.unit == "tokens" else self.row_samples
        return math.ceil(duration.value / (of_a_row * batch_size))


def assumed(recipe: Recipe, name: str, config: MonoConfig) -> Workload:
    """Rows filled to the last token, of samples as the recipe describes them.

    A sample is ``data.X.tokens_per_sample`` long, or fills a row. Of its tokens
    ``data.X.visual_share`` are visual; by default as many as the image budget allows in one
    picture. All other tokens are supervised, which is the most they can be.
    """
    section, length = recipe.data[name], recipe.data[name].sequence_length
    sample = min(section.tokens_per_sample or length, length)
    visual, why = 0.0, "text only"
    if config.patchifier is not None:
        budget = _tiles(recipe, name) * config.patchifier.tokens_per_tile
        visual, why = min(budget, sample), f"{min(budget, sample):,.0f} visual by the image budget"
        if section.visual_share is not None:
            visual, why = sample * section.visual_share, f"{section.visual_share:.0%} visual"
    samples = length / sample
    said = "tokens_per_sample" if section.tokens_per_sample else "full sequences"
    return Workload(
        row_samples=samples,
        row_useful=length,
        row_visual=samples * visual,
        row_targets=samples * (sample - visual),
        length=length,
        data=None,
        note=f"assumed, by {said}: samples of {sample:,.0f} tokens, {why}, the rest supervised; "
        "rows without padding",
    )


def _tiles(recipe: Recipe, name: str) -> int:
    """Tiles of a picture that uses the whole budget of a data set, thumbnail included."""
    image = merged_image(recipe, name)
    return image.max_tiles + (image.thumbnail and image.max_tiles > 1)
