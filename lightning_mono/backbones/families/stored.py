"""Which stored tensor holds which of ours, visual experts included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from lightning_mono.backbones.config import DecoderConfig
from lightning_mono.backbones.families import Family

VISUAL_SUFFIX = "_ve"


@dataclass(frozen=True)
class Stored:
    """A tensor in a family's files.

    Attributes:
        name: what it is called there.
        ours: the tensors of ours that it holds: one, or q, k and v.
    """

    name: str
    ours: tuple[str, ...]

    def shape(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """Its shape, from those of its parts."""
        parts = [shapes[name] for name in self.ours]
        return (sum(part[0] for part in parts), *parts[0][1:])

    def split(self, value: Tensor, family: Family, config: DecoderConfig) -> dict[str, Tensor]:
        """Our tensors out of the stored one."""
        if len(self.ours) == 1:
            return {self.ours[0]: value}
        assert family.packing is not None
        parts = family.packing.split(value, config)
        return dict(zip(self.ours, (part.contiguous() for part in parts), strict=True))

    def join(self, tensors: Mapping[str, Tensor], family: Family, config: DecoderConfig) -> Tensor:
        """The stored tensor out of ours."""
        parts = [tensors[name] for name in self.ours]
        if len(parts) == 1:
            return parts[0]
        assert family.packing is not None
        return family.packing.join(parts, config)


def stored(names: Iterable[str], family_names: Mapping[str, str]) -> list[Stored]:
    """Where a decoder's tensors are stored, in the order of ``names``.

    A visual expert is stored beside its text weights under their name with ``_ve`` behind the
    block that it doubles, as the published checkpoints do for FFNs: ``feed_forward_ve.w1``,
    ``attention.wqkv_ve``, ``attention_norm_ve``.

    Args:
        names: ours, as ``MonoModel`` and `tensor_shapes` have them.
        family_names: `Family.names`, or the like for another kind of file.
    """
    held: dict[str, list[str]] = {}
    for ours in names:
        held.setdefault(_theirs(ours, family_names), []).append(ours)
    return [Stored(name, tuple(parts)) for name, parts in held.items()]


def _theirs(ours: str, names: Mapping[str, str]) -> str:
    stem, kind = ours.rsplit(".", 1)
    if not stem.startswith("layers."):
        return f"{names[stem]}.{kind}"
    _, layer, stem = stem.split(".", 2)
    parts = stem.split(".")
    visual = "visual" in parts
    stem = ".".join(part for part in parts if part not in ("text", "visual"))
    theirs = names[stem]
    if visual:
        block, dot, leaf = theirs.partition(".")
        doubled_whole = parts[0] == "ffn"
        theirs = f"{block}{VISUAL_SUFFIX}{dot}{leaf}" if doubled_whole else theirs + VISUAL_SUFFIX
    return f"{names['layers']}.{layer}.{theirs}.{kind}"
