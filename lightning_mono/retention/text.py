"""Held-out text as rows of tokens, with the bytes that they stand for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from lightning_mono.errors import DataError

WIDTH = 128
"""Tokens in a row of held-out text."""

BETWEEN = "\n\n"
"""What stands behind each document."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Text to be predicted, a row on its own; a row's first token is given.

    Attributes:
        ids: (rows, width) int64.
        bytes: (rows,) int64, UTF-8 bytes of what the tokens behind each row's first stand for.
    """

    ids: Tensor
    bytes: Tensor

    @property
    def predicted(self) -> int:
        """Tokens that are predicted."""
        return len(self.ids) * (self.ids.shape[1] - 1)


def held_out_text(
    texts: Iterable[str], tokenizer: Tokenizer, tokens: int, width: int = WIDTH
) -> HeldOut:
    """Joins documents and cuts them into rows; what is left behind the last whole row is dropped.

    A token ends where the tokenizer says that its characters end. Characters that belong to no
    token, as a tokenizer may drop blanks, count with the next token that has any.

    Args:
        texts: documents; no more are taken than are needed, and empty ones are none.
        tokenizer: of the models that are to read them; no special tokens are added.
        tokens: at most so many.

    Raises:
        DataError: there are fewer tokens than a row has.
    """
    ids: list[int] = []
    ends: list[int] = []  # bytes of the text up to the end of each token
    before = 0
    for text in filter(None, texts):
        document = text + BETWEEN
        encoding = tokenizer.encode(document, add_special_tokens=False)
        ids += encoding.ids
        ends += [before + end for end in _byte_ends(document, encoding.offsets)]
        before += len(document.encode())
        if len(ids) >= tokens:
            break
    rows = min(len(ids), tokens) // width
    if rows == 0:
        raise DataError(
            f"{min(len(ids), tokens)} tokens of text, and a row takes {width}: name more text, or "
            "allow more tokens"
        )
    at = torch.tensor(ends[: rows * width]).view(rows, width)
    return HeldOut(
        torch.tensor(ids[: rows * width], dtype=torch.int64).view(rows, width),
        at[:, -1] - at[:, 0],
    )


def _byte_ends(text: str, offsets: Iterable[tuple[int, int]]) -> list[int]:
    """Bytes of the text up to the end of each token, which never falls from one to the next."""
    ends, end, count = [], 0, 0
    for _, upto in offsets:
        if upto > end:
            count += len(text[end:upto].encode())
            end = upto
        ends.append(count)
    return ends
