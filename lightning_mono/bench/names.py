"""Names of contestants in benchmarks of models; reading them imports nothing heavy."""

OURS = "ours"
"""This library as a user calls it."""

PLAIN = "ours-all-positions"
"""Our layers at every position, the last layer too; only the head is spared."""

REFERENCE = "reference"
"""The official code's way, on the same weights (`lightning_mono.bench.reference`)."""

TWIN = "twin"
"""The modular twin in this library: a ViT before a text LLM of the same sizes."""

TRANSFORMERS = "twin-transformers"
"""The same twin, the same weights, through transformers."""

CONTESTANTS = {
    "prefill": (OURS, PLAIN, REFERENCE, TWIN, TRANSFORMERS),
    "decode": (OURS, REFERENCE, TWIN, TRANSFORMERS),
    "train": (OURS, PLAIN, REFERENCE),
}
"""By benchmark, in the order of its tables."""

TURN = 5
"""Tokens of a row that a contestant makes in decoding, before it is the next one's turn."""
