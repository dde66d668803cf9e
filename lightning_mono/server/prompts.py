"""From a job to a place in the engine: pictures decoded, the prompt rendered and measured."""

from __future__ import annotations

from dataclasses import replace

from lightning_mono.data.example import Prompt
from lightning_mono.data.images import decode
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
    prompt = _prompt(job, assistant)
    length, capacity = len(prompt.input_ids), engine.settings.capacity
    most = min(limits.prompt_tokens or capacity, capacity - 1)
    if length > most:
        raise _too_long(f"messages: {length} tokens, images included; {most} at most")
    new = job.max_new_tokens or min(limits.new_tokens, capacity - length)
    request = Request(
        input_ids=prompt.input_ids,
        pixel_values=prompt.pixel_values,
        max_new_tokens=new,
        sampling=Sampling(job.temperature, job.top_p, job.top_k, job.repetition_penalty),
        stop_ids=assistant.renderer.stop_ids,
        seed=job.seed,
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


def _prompt(job: Job, assistant: Assistant) -> Prompt:
    turns = []
    for turn, fields in zip(job.turns, job.fields, strict=True):
        if fields and assistant.renderer.images is None:
            raise Refusal(f"{fields[0]}: the model takes text only", param=fields[0])
        images = [_decoded(data, field) for data, field in zip(turn.images, fields, strict=True)]
        turns.append(replace(turn, images=tuple(images)))
    try:
        return assistant.renderer.conversation(turns, system=job.system)
    except DataError as error:
        raise Refusal(f"messages: {error}", param="messages") from error


def _decoded(data: bytes, field: str):
    try:
        return decode(opened(data, field), field)
    except DataError as error:
        raise Refusal(str(error), param=field, code="invalid_image") from error


def _too_long(message: str) -> Refusal:
    return Refusal(message, param="messages", code="context_length_exceeded")
