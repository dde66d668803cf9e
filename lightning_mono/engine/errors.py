"""Why the engine does not answer."""

from __future__ import annotations

from lightning_mono.errors import UserError


class EngineError(UserError):
    """A request that gets no answer, or no whole one."""


class EngineFull(EngineError):  # noqa: N818
    """As many requests wait as may; this one may be sent again later."""


class EngineClosed(EngineError):  # noqa: N818
    """The engine was closed, before the request came or before it was answered."""


class RequestRefused(EngineError):  # noqa: N818
    """A request that could never be answered as it is."""


class RequestTooLong(RequestRefused):
    """Prompt and answer together do not fit the room that a request has."""
