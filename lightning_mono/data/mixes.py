"""Mixtures of lengths as the published curriculum has them, and how full packed rows are.

``python -m lightning_mono.data.mixes`` prints the table in ``docs/data.md``.

Lengths are drawn, since the papers' data cannot be had as they were. What is known is kept: 256
tokens a tile and a thumbnail where there are several (Mono-InternVL, section 3), the most image
tokens of each stage (1,280, 1,792, 3,328, 6,400), and the shares of stage S1.3 (captions 53.9 %,
detection 5.2 %, OCR 40.9 %). What is not is ours: how often a picture takes its whole budget, and
log-normal lengths of text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_mono.data.packing import PackPlan

TILE_TOKENS = 256
FRAME_TOKENS = 20  # of the chat template around a question and an answer, <img> and </img>
SAMPLES = 20_000  # drawn of each kind
BATCHES = 200


@dataclass(frozen=True)
class Kind:
    """One kind of sample.

    Attributes:
        share: of the samples of a mix.
        tiles: how many tiles a picture has, thumbnail included -> how often; none for text alone.
        words: median tokens of text.
        spread: of the log-normal length of text; 0.5 is narrow, 1 is wide.
    """

    share: float
    tiles: Mapping[int, float]
    words: int
    spread: float

    def lengths(self, random: np.random.Generator, longest: int) -> np.ndarray:
        """Tokens of ``SAMPLES`` samples, at most ``longest``, (samples,) int64."""
        words = self.words * np.exp(self.spread * random.standard_normal(SAMPLES))
        tiles = np.zeros(SAMPLES, np.int64)
        if self.tiles:
            odds = np.array([*self.tiles.values()]) / sum(self.tiles.values())
            tiles = random.choice([*self.tiles], SAMPLES, p=odds)
        return np.minimum(TILE_TOKENS * tiles + FRAME_TOKENS + words.astype(np.int64) + 1, longest)


@dataclass(frozen=True)
class Mix:
    """What a stage trains on: kinds of samples, and the length of a row."""

    kinds: Sequence[Kind]
    sequence_length: int

    def plan(self, seed: int) -> PackPlan:
        """The mix, drawn and packed under a seed."""
        random = np.random.default_rng(seed)
        lengths = [kind.lengths(random, self.sequence_length) for kind in self.kinds]
        weights = [kind.share for kind in self.kinds]
        chunks = [[400] * (SAMPLES // 400)] * len(lengths)
        return PackPlan(lengths, chunks, weights, self.sequence_length, 16, seed)

    def useful(self, seed: int) -> tuple[float, float]:
        """Shares of tokens that are no padding, 0 to 1: packed, and with a sample a row."""
        plan = self.plan(seed)
        means = [lengths.mean() for lengths in plan.lengths]
        mean = float(np.average(means, weights=plan.weights))
        return plan.utilisation(BATCHES), mean / self.sequence_length


SMALL = {1: 0.2, 3: 0.4, 4: 0.1, 5: 0.3}  # web pictures, at most 4 tiles and a thumbnail
MEDIUM = {1: 0.1, 3: 0.25, 5: 0.25, 7: 0.4}  # and at most 6
LARGE = {3: 0.2, 5: 0.1, 7: 0.2, 9: 0.1, 13: 0.4}  # documents, at most 12
TEXT: Mapping[int, float] = {}

MIXES: Mapping[str, Mix] = {
    # Captions of web pictures: noisy in S1.1, synthetic and so longer in S1.2.
    "S1.1": Mix([Kind(1.0, SMALL, 16, 0.6)], 4096),
    "S1.2": Mix([Kind(1.0, MEDIUM, 60, 0.5)], 4096),
    # As the paper has the shares. Much text stands in documents.
    "S1.3": Mix(
        [Kind(0.539, MEDIUM, 60, 0.5), Kind(0.052, MEDIUM, 40, 0.5), Kind(0.409, LARGE, 250, 0.9)],
        8192,
    ),
    # Questions about pictures and documents, and a fifth of text alone.
    "S2": Mix(
        [Kind(0.5, LARGE, 150, 0.9), Kind(0.3, MEDIUM, 60, 0.8), Kind(0.2, TEXT, 400, 1.0)], 8192
    ),
    # The hardest: every picture takes its whole budget, and little text fills the gaps.
    "whole budgets": Mix(
        [Kind(0.5, {5: 1.0}, 40, 0.5), Kind(0.2, {13: 1.0}, 250, 0.9), Kind(0.3, TEXT, 100, 1.0)],
        8192,
    ),
}


def main() -> None:
    """Prints how full rows are in each mix, over five seeds."""
    print("| mix | row | useful, packed | useful, a sample a row |")
    print("|---|---|---|---|")
    for name, mix in MIXES.items():
        packed = [mix.useful(seed)[0] for seed in range(5)]
        alone = mix.useful(0)[1]
        print(f"| {name} | {mix.sequence_length:,} | {min(packed):.1%} | {alone:.1%} |", flush=True)


if __name__ == "__main__":
    main()
