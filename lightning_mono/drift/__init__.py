"""How far weights move while a run trains, and visual experts from what they were copied from."""

from lightning_mono.drift.course import StageDrift, beginning, course
from lightning_mono.drift.measures import KINDS, Experts, Moved, between, by_group, from_text

__all__ = [
    "KINDS",
    "Experts",
    "Moved",
    "StageDrift",
    "beginning",
    "between",
    "by_group",
    "course",
    "from_text",
]
