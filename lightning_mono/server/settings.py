"""What a server serves, where, and how much it takes on."""

from __future__ import annotations

from dataclasses import dataclass, field

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """The most that a client may ask for.

    Attributes:
        body_bytes: of a request as it comes over the wire.
        image_bytes: of one encoded picture.
        image_pixels: width x height of one picture, checked before it is decoded.
        images: pictures of one request, all turns together.
        prompt_tokens: of a prompt, its images' tokens included; None for what the context holds.
        new_tokens: of an answer.
        slots: requests that are answered at the same time.
        queue: requests that may wait for a slot.
        files_bytes: of all uploads that are kept.
        file_seconds: how long an upload is kept.
    """

    body_bytes: int = 32 * MIB
    image_bytes: int = 10 * MIB
    image_pixels: int = 36_000_000
    images: int = 16
    prompt_tokens: int | None = None
    new_tokens: int = 1024
    slots: int = 16
    queue: int = 64
    files_bytes: int = 256 * MIB
    file_seconds: int = 3600


@dataclass(frozen=True)
class Settings:
    """A server.

    Attributes:
        checkpoint: a run folder, a model folder, or a hub id.
        name: what clients call the model.
        host: address to listen on: 127.0.0.1, 0.0.0.0 or ::.
        port: from 1024 to 65535.
        device: by default an accelerator where there is one.
        dtype: of the weights; by default that of the files.
        quantize: nf4 or int8, to keep the layers' matrices in 4 or 8 bits.
        system: the system message of conversations without one; None for the chat template's.
        context: tokens that a request may have, prompt and answer together; by default what the
            model was made for, 4096 at most.
        prefix_bytes: keys and values kept of prompts that were read; 0 keeps none.
        allow_remote: pictures may be fetched from http and https addresses.
        api_key: what clients have to know; None lets everyone in.
        limits: the most that a client may ask for.
    """

    checkpoint: str
    name: str
    host: str = "127.0.0.1"
    port: int = 8000
    device: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    system: str | None = None
    context: int | None = None
    prefix_bytes: int = 256 * MIB
    allow_remote: bool = False
    api_key: str | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=Limits)
