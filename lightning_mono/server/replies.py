"""Answers in OpenAI's words: one object, or chunks of server-sent events."""

from __future__ import annotations

import json
import time
from typing import Any

from starlette.exceptions import HTTPException

from lightning_mono.server.jobs import Ended
from lightning_mono.server.refusal import error_body

DONE = "data: [DONE]\n\n"


class Reply:
    """The frame of one answer, which is the same in all of its chunks.

    Args:
        id: of the request.
        model: as the client called it.
        usage: whether a stream ends with the tokens that were used.
    """

    def __init__(self, id: str, model: str, *, usage: bool = False) -> None:
        self._usage = usage
        self._frame = {"id": f"chatcmpl-{id}", "created": int(time.time()), "model": model}

    def whole(self, text: str, end: Ended) -> dict[str, Any]:
        """An answer in one piece."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": end.reason}
        return {
            **self._frame,
            "object": "chat.completion",
            "choices": [choice],
            "usage": _usage(end),
        }

    def first(self) -> str:
        """Opens a stream."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def piece(self, text: str) -> str:
        return self._chunk({"content": text}, None)

    def last(self, end: Ended) -> str:
        """Ends a stream."""
        chunk = self._chunk({}, end.reason)
        if self._usage:
            chunk += _event(
                {
                    **self._frame,
                    "object": "chat.completion.chunk",
                    "choices": [],
                    "usage": _usage(end),
                }
            )
        return chunk + DONE

    def _chunk(self, delta: dict[str, Any], reason: str | None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        further = {"usage": None} if self._usage else {}
        return _event(
            {**self._frame, "object": "chat.completion.chunk", "choices": [choice], **further}
        )


def failure(error: HTTPException) -> str:
    """Ends a stream that had begun and cannot go on."""
    return _event(error_body(error))


def _event(entry: dict[str, Any]) -> str:
    return f"data: {json.dumps(entry)}\n\n"


def _usage(end: Ended) -> dict[str, Any]:
    return {
        "prompt_tokens": end.prompt_tokens,
        "completion_tokens": end.new_tokens,
        "total_tokens": end.prompt_tokens + end.new_tokens,
        "prompt_tokens_details": {"cached_tokens": end.cached_tokens},
    }
