"""Uploaded pictures, in memory: bounded in bytes, and forgotten after a while."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning_mono.server.refusal import Refusal

PURPOSES = ("vision", "user_data")


@dataclass(frozen=True)
class Upload:
    """A picture that was uploaded.

    Attributes:
        id: cannot be guessed; who knows it may use it.
        data: the encoded picture.
        filename: what the client called it.
        purpose: one of ``PURPOSES``.
        created, expires: in seconds since 1970.
    """

    id: str
    data: bytes
    filename: str
    purpose: str
    created: float
    expires: float

    def entry(self) -> dict[str, Any]:
        """As OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.data),
            "created_at": int(self.created),
            "expires_at": int(self.expires),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }


class Files:
    """The uploads of one server.

    Args:
        most_bytes: of all of them.
        seconds: how long each is kept.
        clock: seconds since 1970.
    """

    def __init__(
        self, most_bytes: int, seconds: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._most, self._seconds, self._clock = most_bytes, seconds, clock
        self._kept: dict[str, Upload] = {}

    def add(self, data: bytes, filename: str, purpose: str) -> Upload:
        """Keeps an upload.

        Raises:
            Refusal: there is no room; those that were kept stay.
        """
        self._forget()
        if sum(len(upload.data) for upload in self._kept.values()) + len(data) > self._most:
            raise Refusal(
                f"file: uploads fill their {self._most} bytes; delete some or wait until they "
                "expire",
                param="file",
                code="files_full",
                status=429,
            )
        now = self._clock()
        upload = Upload(
            f"file-{secrets.token_hex(16)}", data, filename, purpose, now, now + self._seconds
        )
        self._kept[upload.id] = upload
        return upload

    def get(self, id: str, field: str) -> Upload:
        """An upload.

        Raises:
            Refusal: it was never there, was deleted, or has expired.
        """
        self._forget()
        if id not in self._kept:
            raise Refusal(
                f"{field}: no file {id[:80]!r}; it may have expired, so upload it again",
                param=field,
                code="file_not_found",
                status=404,
            )
        return self._kept[id]

    def delete(self, id: str, field: str) -> None:
        """Forgets an upload; raises as :meth:`get` does."""
        self.get(id, field)
        del self._kept[id]

    def _forget(self) -> None:
        now = self._clock()
        self._kept = {id: one for id, one in self._kept.items() if one.expires > now}
