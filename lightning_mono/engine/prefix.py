"""What was read of prompts before: keys and values of whole pieces, found again by content."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator

from torch import Tensor

from lightning_mono.engine.request import Prompt


class PrefixCache:
    """Keys and values of pieces, up to ``most`` bytes; those not used for longest go first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.nbytes = 0
        self._kept: OrderedDict[bytes, tuple[Tensor, Tensor]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    def get(self, key: bytes) -> tuple[Tensor, Tensor] | None:
        """What was put under a key, where it still is."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: bytes, keys: Tensor, values: Tensor) -> None:
        """Keeps (layers, kv heads, tokens, head_dim) each under a new key, if they fit at all."""
        size = keys.nbytes + values.nbytes
        if size > self.most:
            return
        while self.nbytes + size > self.most:
            _, gone = self._kept.popitem(last=False)
            self.nbytes -= sum(x.nbytes for x in gone)
        self._kept[key] = keys, values
        self.nbytes += size

    def touch(self, keys: list[bytes]) -> None:
        """Notes that a prompt was read: its last pieces go before its first, which more share."""
        for key in reversed(keys):
            if key in self._kept:
                self._kept.move_to_end(key)


def keys_of(prompt: Prompt, view: int) -> Iterator[bytes]:
    """A key for each piece: of its ids and pixels, and of all that stands before it.

    Args:
        view: the number of tokens on which the rotary frequencies depend; 0 where they do not.
    """
    digest = hashlib.blake2b(repr((view, prompt.tiles.shape[1:])).encode(), digest_size=32)
    for piece in prompt.pieces:
        digest.update(prompt.ids[piece.start : piece.end].tobytes())
        digest.update(prompt.tiles[piece.first : piece.last].tobytes())
        # Where a piece ends is part of what it is: the same tokens in two passes are other rows.
        digest.update(b"|%d" % piece.end)
        yield digest.digest()
