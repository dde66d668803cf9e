"""A chat request as clients send it: read from JSON, and refused in one line where it is wrong."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from pydantic_core import PydanticCustomError, from_json

from lightning_mono.server.refusal import Refusal

# What would change the answer and cannot be done, with the values that ask for nothing.
_CANNOT: dict[str, tuple[Any, ...]] = {
    "audio": (None,),
    "frequency_penalty": (None, 0),
    "function_call": (None, "none"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "modalities": (None, ["text"]),
    "moderation": (None,),
    "n": (None, 1),
    "prediction": (None,),
    "presence_penalty": (None, 0),
    "reasoning_effort": (None, "none"),
    "response_format": (None, {"type": "text"}),
    "tool_choice": (None, "none", "auto"),
    "tools": (None, []),
    "top_logprobs": (None, 0),
    "verbosity": (None, "medium"),
    "web_search_options": (None,),
}

# What says something to OpenAI's own service and nothing about the answer.
_IDLE = (
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _only_text(parts: list[Part]) -> list[Part]:
    if not all(isinstance(part, Text) for part in parts):
        raise PydanticCustomError("only_text", "only text is read here; pictures are the user's")
    return parts


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Text(_Model):
    type: Literal["text"]
    text: str


class ImageAddress(_Model):
    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None  # says nothing to our tiling


class Image(_Model):
    type: Literal["image_url"]
    image_url: ImageAddress


class FileName(_Model):
    file_id: str


class File(_Model):
    type: Literal["file"]
    file: FileName


Part = Annotated[Text | Image | File, Field(discriminator="type")]
Parts = Annotated[list[Part], BeforeValidator(_as_parts), Field(min_length=1)]
Texts = Annotated[list[Part], BeforeValidator(_as_parts), AfterValidator(_only_text)]


class System(_Model):
    role: Literal["system", "developer"]
    content: Texts
    name: str | None = None


class User(_Model):
    role: Literal["user"]
    content: Parts
    name: str | None = None


class Assistant(_Model):
    """What was answered; a message that came from this server may be sent back as it is."""

    role: Literal["assistant"]
    content: Texts
    name: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None
    annotations: list[Any] | None = None


Message = Annotated[System | User | Assistant, Field(discriminator="role")]


class StreamOptions(_Model):
    include_usage: bool = False
    include_obfuscation: bool = False


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


class ChatRequest(_Model):
    """The body of ``POST /v1/chat/completions``, less what asks for nothing."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: (
        Annotated[
            list[Annotated[str, Field(min_length=1)]],
            BeforeValidator(_as_list),
            Field(max_length=4),
        ]
        | None
    ) = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None

    @property
    def new_tokens(self) -> int | None:
        """The most tokens of the answer, by whichever name it was asked for."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def new_tokens_field(self) -> str:
        return "max_completion_tokens" if self.max_completion_tokens else "max_tokens"


def read_request(body: bytes) -> ChatRequest:
    """Reads a chat request.

    Raises:
        Refusal: it is no JSON, or a field is missing, unknown, wrong or not supported.
    """
    try:
        entries = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refusal(f"the body is not JSON: {error}") from error
    if not isinstance(entries, dict):
        raise Refusal("the body must be a JSON object")
    for name, neutral in _CANNOT.items():
        if entries.pop(name, None) not in neutral:
            raise Refusal(f"{name} is not supported; leave it out", param=name, code="unsupported")
    for name in _IDLE:
        entries.pop(name, None)
    try:
        request = ChatRequest.model_validate(entries)
    except ValidationError as error:
        raise _refusal(error) from error
    if None not in (request.max_tokens, request.max_completion_tokens):
        raise Refusal(
            "max_tokens and max_completion_tokens mean the same; send one", param="max_tokens"
        )
    return request


def _refusal(error: ValidationError) -> Refusal:
    """The first thing that is wrong, by the name of its field."""
    first = error.errors(include_url=False, include_input=False)[0]
    name, kind = _field(first["loc"]), first["type"]
    context = first.get("ctx", {})
    if kind == "extra_forbidden":
        return Refusal(f"{name} is unknown; {_nearest(name)}", param=name, code="unknown_field")
    if kind.startswith("union_tag"):
        tag = str(context.get("discriminator", "")).strip("'")
        name = f"{name}.{tag}"
        known = context.get("expected_tags")
        said = f"must be one of {known}, not {context.get('tag')!r}" if known else "is missing"
        return Refusal(f"{name} {said}", param=name)
    if kind == "missing":
        return Refusal(f"{name} is missing", param=name)
    return Refusal(f"{name}: {first['msg']}", param=name)


def _field(location: tuple[int | str, ...]) -> str:
    """A field's name in the request; behind an index pydantic names the kind of what is there."""
    kinds = {at + 1 for at, part in enumerate(location[:-1]) if isinstance(part, int)}
    return ".".join(str(part) for at, part in enumerate(location) if at not in kinds)


def _nearest(name: str) -> str:
    known = [*ChatRequest.model_fields, *_CANNOT, *_IDLE]
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else "leave it out"
