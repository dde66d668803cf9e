"""Pictures from strangers: bytes out of data URLs, and no decoding before the size is known."""

from __future__ import annotations

import base64
import binascii
import io
import re

from PIL import Image

from lightning_mono.server.refusal import Refusal
from lightning_mono.server.settings import Limits

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
"""What OpenAI's API takes. Pillow knows more, and starts other programs for some of them."""

_HEAD = re.compile(r"data:(?P<type>[^;,]*)(?P<rest>[^,]*),", re.IGNORECASE)


def from_data_url(url: str, limits: Limits, field: str) -> bytes:
    """The picture in a ``data:image/...;base64,`` URL, checked as in :func:`check`.

    Args:
        field: where it stood in the request, for messages.

    Raises:
        Refusal: it is malformed, no picture, or too large.
    """
    head = _HEAD.match(url, 0, 200)
    if head is None or not head["rest"].lower().endswith(";base64"):
        raise Refusal(f"{field}: not a data:image/...;base64,... URL", param=field)
    if not head["type"].lower().startswith("image/"):
        raise Refusal(f"{field}: {head['type'] or 'no type'} is no image type", param=field)
    if (len(url) - head.end()) // 4 * 3 > limits.image_bytes + 3:
        raise _too_many_bytes(limits, field)
    try:
        data = base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(f"{field}: broken base64: {error}", param=field) from error
    check(data, limits, field)
    return data


def check(data: bytes, limits: Limits, field: str) -> None:
    """Reads a picture's header.

    Raises:
        Refusal: it is none of ``FORMATS``, or has too many bytes or pixels.
    """
    if len(data) > limits.image_bytes:
        raise _too_many_bytes(limits, field)
    width, height = opened(data, field).size
    if width * height > limits.image_pixels:
        raise Refusal(
            f"{field}: {width}x{height} is more than {limits.image_pixels} pixels; "
            "send a smaller picture",
            param=field,
            code="image_too_large",
            status=413,
        )


def opened(data: bytes, field: str) -> Image.Image:
    """A picture of which only the header has been read.

    Raises:
        Refusal: it is none of ``FORMATS``.
    """
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise Refusal(
            f"{field}: too many pixels; send a smaller picture",
            param=field,
            code="image_too_large",
            status=413,
        ) from error
    except Exception as error:  # what a parser of broken files raises is anyone's guess
        known = ", ".join(FORMATS)
        message = f"{field}: not a picture that can be read; send one of {known}"
        raise Refusal(message, param=field, code="invalid_image") from error


def _too_many_bytes(limits: Limits, field: str) -> Refusal:
    return Refusal(
        f"{field}: more than {limits.image_bytes} bytes; send a smaller picture",
        param=field,
        code="image_too_large",
        status=413,
    )
