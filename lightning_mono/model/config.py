"""What a monolithic multimodal LLM is made of, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor

from lightning_mono.backbones.config import DecoderConfig

PatchifierKind = Literal["conv", "linear", "two_conv"]
PATCHIFIER_KINDS: tuple[PatchifierKind, ...] = get_args(PatchifierKind)


@dataclass(frozen=True)
class PatchifierConfig:
    """How a tile becomes visual tokens; `lightning_mono.model.patchifier` says what each kind does.

    In each of them a token stands for a square of ``patch_size`` x ``merge`` pixels a side.

    Attributes:
        image_size: side of a tile in pixels.
        patch_size: side of a patch, and stride of the convolution, in pixels.
        width: channels of a patch embedding before patches are merged; linear has no use for it.
        merge: patches merged along each side, so merge**2 patches make one token.
        order: reading order of the merged grid: v2 is row by row, v1 is the transposed order of
            early InternVL checkpoints.
        table_size: side in pixels of the tiles that the position table was made for, where that
            is not ``image_size``; the table is resized bicubically then.
        kind: conv (Mono-InternVL), linear (Fuyu, SOLO) or two_conv (EVEv2).
    """

    image_size: int
    patch_size: int
    width: int
    merge: int = 2
    order: Literal["v1", "v2"] = "v2"
    table_size: int | None = None
    kind: PatchifierKind = "conv"

    def __post_init__(self) -> None:
        if self.kind not in PATCHIFIER_KINDS:
            raise ValueError(
                f"no patchifier of kind {self.kind!r}; there are {', '.join(PATCHIFIER_KINDS)}"
            )
        if self.image_size % (self.patch_size * self.merge):
            raise ValueError(
                f"image_size {self.image_size} is no multiple of patch_size x merge = "
                f"{self.patch_size * self.merge}"
            )

    @property
    def table_grid(self) -> int:
        """Patches along one side of the position table."""
        return (self.table_size or self.image_size) // self.patch_size

    @property
    def grid(self) -> int:
        """Tokens along one side of a tile."""
        return self.image_size // (self.patch_size * self.merge)

    @property
    def tokens_per_tile(self) -> int:
        return self.grid**2

    def tokens_of(self, pixel_values: Tensor) -> int:
        """Tokens of each of these tiles, (tiles, 3, size, size), whatever their size."""
        step = self.patch_size * self.merge
        return (pixel_values.shape[-2] // step) * (pixel_values.shape[-1] // step)


@dataclass(frozen=True)
class ExpertsConfig:
    """Layers that own visual weights, by kind. FFN: EViP. Attention (q, k, v, o): EViP++."""

    ffn: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()
    norms: tuple[int, ...] = ()

    def joined(self, other: ExpertsConfig) -> ExpertsConfig:
        """The layers of both."""
        return ExpertsConfig(
            tuple(sorted({*self.ffn, *other.ffn})),
            tuple(sorted({*self.attention, *other.attention})),
            tuple(sorted({*self.norms, *other.norms})),
        )


@dataclass(frozen=True)
class MonoConfig:
    """A decoder, how pixels enter it, and where it has visual weights.

    Attributes:
        decoder: the language model's shape.
        patchifier: None for a model that reads text only.
        experts: layers with visual weights.
        image_context_id: id of the placeholder that visual tokens take the place of.
    """

    decoder: DecoderConfig
    patchifier: PatchifierConfig | None = None
    experts: ExpertsConfig = field(default_factory=ExpertsConfig)
    image_context_id: int | None = None
