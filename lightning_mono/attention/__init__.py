"""What a monolithic model looks at: captured on request, laid over pictures, drawn and measured."""

from lightning_mono.attention.capture import Capture, both
from lightning_mono.attention.look import Look, Seen, look
from lightning_mono.attention.measures import MEASURES, Ground, Measures
from lightning_mono.attention.places import Heat, Mosaic, Segment
from lightning_mono.attention.pointing import off_ground, pointing
from lightning_mono.attention.rollout import Rollout

__all__ = [
    "MEASURES",
    "Capture",
    "Ground",
    "Heat",
    "Look",
    "Measures",
    "Mosaic",
    "Rollout",
    "Seen",
    "Segment",
    "both",
    "look",
    "off_ground",
    "pointing",
]
