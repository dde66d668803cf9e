"""What is left of the language: a model against the LLM that it was, on text alone."""

from lightning_mono.retention.measures import (
    Continuation,
    Divergence,
    DivergenceSum,
    LanguageModel,
    Likelihood,
    continuations,
    followed,
    kl_nats,
    logits_of,
    read_text,
)
from lightning_mono.retention.text import WIDTH, HeldOut, held_out_text

__all__ = [
    "WIDTH",
    "Continuation",
    "Divergence",
    "DivergenceSum",
    "HeldOut",
    "LanguageModel",
    "Likelihood",
    "continuations",
    "followed",
    "held_out_text",
    "kl_nats",
    "logits_of",
    "read_text",
]
