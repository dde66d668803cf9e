"""From a job to a place in the engine: pictures decoded, the prompt rendered and measured."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from lightning_mono.data.example import Prompt
from lightning_mono.data.images import decode
from lightning_mono.data.render import Renderer
from lightning_mono.engine import (
    Engine,
    EngineClosed,
    EngineFull,
    Request,
    RequestRefused,
    RequestTooLong,
    Ticket,
)
from lightning_mono.errors import DataError
from lightning_mono.inference import Assistant
from lightning_mono.model.sampling import Sampling
from lightning_mono.server.jobs import Job
from lightning_mono.server.pictures import opened
from lightning_mono.server.refusal import Refusal
from lightning_mono.server.settings import Limits


def submit(job: Job, assistant: Assistant, engine: Engine, limits: Limits) -> Ticket:
    """Renders a job and hands it to the engine.

    Raises:
        Refusal: a picture is broken, or the prompt cannot be read, or is too long.
    """
    capacity = engine.settings.capacity
    most = min(limits.prompt_tokens or capacity, capacity - 1)
    turns = _opened(job, assistant.renderer)
    _check_length(_image_tokens(turns, assistant.renderer), most)  # before anything is decoded
    prompt = _prompt(job, turns, assistant.renderer)
    length = len(prompt.input_ids)
    _check_length(length, most)
    request = Request(
        input_ids=prompt.input_ids,
        pixel_values=prompt.pixel_values,
        max_new_tokens=job.max_new_tokens or min(limits.new_tokens, capacity - length),
        sampling=Sampling(job.temperature, job.top_p, job.top_k, job.repetition_penalty),
        stop_ids=assistant.renderer.stop_ids,
        seed=job.seed,
        marks=prompt.questions_at,  # the next turn begins with what stands before this one
    )
    try:
        return engine.submit(request)
    except RequestTooLong as error:
        raise _too_long(f"messages: {error}") from error
    except RequestRefused as error:
        raise Refusal(f"messages: {error}", param="messages") from error
    except EngineFull as error:
        raise Refusal(str(error), code="queue_full", status=429) from error
    except EngineClosed as error:
        raise Refusal("the server is shutting down", status=503) from error


def _opened(job: Job, renderer: Renderer) -> list[list[Image.Image]]:
    """The pictures of each turn, of which only the headers have been read."""
    for fields in job.fields:
        if fields and renderer.images is None:
            raise Refusal(f"{fields[0]}: the model takes text only", param=fields[0])
    return [
        [
            opened(data, field)
            for data, field in zip(turn.images, fields, strict=True)
            if isinstance(data, bytes)
        ]
        for turn, fields in zip(job.turns, job.fields, strict=True)
    ]


def _image_tokens(turns: list[list[Image.Image]], renderer: Renderer) -> int:
    if renderer.images is None:
        return 0
    tiles = sum(
        renderer.images.tile_count(*picture.size, len(pictures))
        for pictures in turns
        for picture in pictures
    )
    return tiles * renderer.tokens_per_tile


def _prompt(job: Job, pictures: list[list[Image.Image]], renderer: Renderer) -> Prompt:
    turns = [
        replace(turn, images=tuple(map(_decoded, shown, fields)))
        for turn, shown, fields in zip(job.turns, pictures, job.fields, strict=True)
    ]
    try:
        return renderer.conversation(turns, system=job.system)
    except DataError as error:
        raise Refusal(f"messages: {error}", param="messages") from error


def _decoded(picture: Image.Image, field: str) -> Image.Image:
    try:
        return decode(picture, field)
    except DataError as error:
        raise Refusal(str(error), param=field, code="invalid_image") from error


def _check_length(tokens: int, most: int) -> None:
    if tokens > most:
        raise _too_long(f"messages: {tokens} tokens, images included; {most} at most")


def _too_long(message: str) -> Refusal:
    return Refusal(message, param="messages", code="context_length_exceeded")
