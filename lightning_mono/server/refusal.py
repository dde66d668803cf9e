"""Errors as OpenAI's clients read them."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class Refusal(HTTPException):
    """A request that is not answered, with what the client can do about it.

    Args:
        message: one line that names the field.
        param: the field, such as ``messages.0.content.1.image_url.url``.
        code: a word for programs, such as ``context_length_exceeded``.
        status: of HTTP.
    """

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400
    ) -> None:
        line = " ".join(message.split())
        self.said = {"message": line, "param": param, "code": code}
        super().__init__(status, self.said)


def error_body(error: AnyHTTPException) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``."""
    detail: Any = error.detail
    if not isinstance(detail, dict):  # of LitServe or Starlette: a path that is not there, and such
        detail = {"message": str(detail), "param": None, "code": None}
    kind = "server_error" if error.status_code >= 500 else "invalid_request_error"
    return {"error": {**detail, "type": _TYPES.get(error.status_code, kind)}}


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """Answers with an HTTP error; an exception handler of the application."""
    if isinstance(error, ClientDisconnect):  # nobody reads this; it is no error of the server's
        error = AnyHTTPException(499, "the client hung up")
    if not isinstance(error, AnyHTTPException):
        error = AnyHTTPException(500, "the server failed; its log says why")
    headers = dict(error.headers or {})
    if error.status_code == 429:
        headers["Retry-After"] = "1"
    return JSONResponse(error_body(error), error.status_code, headers)
