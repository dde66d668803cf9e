"""What a monolithic multimodal LLM is made of, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import Tensor

from lightning_mono.backbones.config import DecoderConfig

PatchifierKind = Literal["conv", "linear", "two_conv", "vit"]
PATCHIFIER_KINDS: tuple[PatchifierKind, ...] = get_args(PatchifierKind)
NormKind = Literal["layer_norm", "rms_norm"]
NORM_KINDS: tuple[NormKind, ...] = get_args(NormKind)


@dataclass(frozen=True)
class VitConfig:
    """A vision transformer's layers; the defaults are InternViT-300M's, whose width is 1024.

    Attributes:
        layers: how many.
        heads: of attention; they divide the width.
        mlp_ratio: inner channels of an MLP over the width.
        norm: before attention and MLP: layer_norm, or rms_norm (InternViT-6B).
        qk_norm: an RMS norm over all channels of queries, and one of keys (InternViT-6B).
        qkv_bias: of the query, key and value projections.
        eps: of the norms.
        layer_scale: what the factors on attention and MLP start from.
    """

    layers: int = 24
    heads: int = 16
    mlp_ratio: float = 4.0
    norm: NormKind = "layer_norm"
    qk_norm: bool = False
    qkv_bias: bool = True
    eps: float = 1e-6
    layer_scale: float = 0.1

    def __post_init__(self) -> None:
        if self.norm not in NORM_KINDS:
            raise ValueError(f"no norm {self.norm!r}; there are {', '.join(NORM_KINDS)}")

    def mlp_size(self, width: int) -> int:
        """Inner channels of an MLP."""
        return round(width * self.mlp_ratio)


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
        kind: conv (Mono-InternVL), linear (Fuyu, SOLO), two_conv (EVEv2), or vit: conv with a
            vision transformer before the shuffle (InternVL).
        vit: the transformer of kind vit, and of no other; InternViT-300M's where it is left out.
    """

    image_size: int
    patch_size: int
    width: int
    merge: int = 2
    order: Literal["v1", "v2"] = "v2"
    table_size: int | None = None
    kind: PatchifierKind = "conv"
    vit: VitConfig | None = None

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
        if self.kind != "vit":
            if self.vit is not None:
                raise ValueError(f"vit is given, but a patchifier of kind {self.kind!r} has none")
            return
        vit = self.vit or VitConfig()
        object.__setattr__(self, "vit", vit)
        if self.width % vit.heads:
            raise ValueError(f"width {self.width} is no multiple of vit.heads {vit.heads}")

    @property
    def by_column(self) -> bool:
        """Whether a tile's tokens come column by column."""
        return self.order == "v1" and self.kind in ("conv", "vit")

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
