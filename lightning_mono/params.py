"""Parameter groups by name: strict, disjoint, complete.

What a stage trains is said in these names. Every parameter of a model is in exactly one group; a
name that stands for nothing in the model at hand is an error, never a silent no-op.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from lightning_mono.errors import RecipeError

GROUPS: Mapping[str, str] = MappingProxyType(
    {
        "patchifier": r"patchifier\.(?!(vit|projector)\.).+",
        "patchifier.vit": r"patchifier\.vit\..+",
        "patchifier.projector": r"patchifier\.projector\..+",
        "experts.ffn": r"layers\.\d+\.ffn\.visual\..+",
        "experts.attention": r"layers\.\d+\.attention\.(qkv|out)\.visual\..+",
        "experts.norms": r"layers\.\d+\.(attention|ffn)_norm\.visual\..+",
        "ffn": r"layers\.\d+\.ffn\.text\..+",
        "attention": r"layers\.\d+\.attention\.(qkv|out)\.text\..+",
        "norms": r"(layers\.\d+\.(attention|ffn)_norm\.text|norm)\..+",
        "embeddings": r"embed\..+",
        "head": r"head\..+",
    }
)
"""Group name -> the parameter names it holds, as a full-match regular expression.

A modular model's patchifier is two groups, the vision transformer and the MLP behind it.
"""

ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "patchifier": ("patchifier", "patchifier.vit", "patchifier.projector"),
        "experts": ("experts.ffn", "experts.attention", "experts.norms"),
        "text": ("ffn", "attention", "norms", "embeddings", "head"),
        "everything": tuple(GROUPS),
    }
)
"""Short names for several groups; those of them that the model lacks are left out."""

QUANTISABLE = ("ffn", "attention")
"""Groups whose matrices ``model.quantize`` keeps in few bits; none of them can train then."""

TEXT_PATH = frozenset(ALIASES["text"])
"""While none of these trains, text-only prompts are answered bit for bit as before."""

WRAPPERS = re.compile(r"(_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module|module)\.")


def canonical(name: str) -> str:
    """A parameter's name without what wrappers (FSDP, compile, checkpointing) put into it."""
    return WRAPPERS.sub("", name)


def grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """Sorts parameter names into groups; only groups that hold something are returned.

    Raises:
        ValueError: a parameter is in no group or in two, so the groups need mending.
    """
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name in names:
        homes = [g for g, pattern in GROUPS.items() if re.fullmatch(pattern, canonical(name))]
        if len(homes) != 1:
            raise ValueError(f"parameter {name} is in {homes or 'no group'}; it must be in one")
        groups[homes[0]].append(name)
    return {group: members for group, members in groups.items() if members}


def layers_below(name: str, layers: int) -> int:
    """How many layers below the last one a parameter stands, for rates that fall with depth.

    The last layer, the final norm and the head stand at 0; patchifier and embeddings (and a head
    that is tied to them) below the first layer, at ``layers``.
    """
    name = canonical(name)
    layer = re.match(r"layers\.(\d+)\.", name)
    if layer:
        return layers - 1 - int(layer[1])
    return layers if name.startswith(("patchifier.", "embed.")) else 0


def expand(wanted: Sequence[str], present: Iterable[str], where: str = "train") -> tuple[str, ...]:
    """Turns the words of a stage into group names that the model has, in a fixed order.

    Args:
        wanted: group names and aliases.
        present: groups the model holds parameters of.
        where: the recipe key, for the message.

    Raises:
        RecipeError: a word that is no group, or a group that is empty in this model.
    """
    have = set(present)
    chosen: set[str] = set()
    for word in wanted:
        if word not in GROUPS and word not in ALIASES:
            near = difflib.get_close_matches(word, [*GROUPS, *ALIASES], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RecipeError(
                f"{where}: no parameter group {word!r}{hint} (groups: {', '.join(GROUPS)}; "
                f"or {', '.join(ALIASES)})"
            )
        members = have & set(ALIASES.get(word, (word,)))
        if not members:
            raise RecipeError(f"{where}: this model has no parameters in {word!r}{_why(word)}")
        chosen |= members
    return tuple(group for group in GROUPS if group in chosen)


def _why(word: str) -> str:
    if word == "head":
        return ": its head is tied to the embeddings, so train 'embeddings'"
    if word.startswith("patchifier."):
        return ": only model.patchifier.kind=vit has some"
    if word.startswith("experts"):
        return f": set model.experts{word.removeprefix('experts') or '.ffn'}"
    return ""
