"""Requests read or refused by field, messages made turns, and answers in OpenAI's words."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from lightning_mono.data.sample import Turn
from lightning_mono.server.content import Talk, read_talk
from lightning_mono.server.jobs import Ended
from lightning_mono.server.protocol import ChatRequest, File, Image, read_request
from lightning_mono.server.refusal import Refusal
from lightning_mono.server.replies import DONE, Reply

HELLO = [{"role": "user", "content": "hello"}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:a"}}


def read(**entries: Any) -> ChatRequest:
    return read_request(json.dumps({"model": "m", "messages": HELLO, **entries}).encode())


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def talk(*messages: dict[str, Any], most: int = 9) -> Talk:
    """The conversation of messages; each picture is where it stood."""

    async def fetch(part: Image | File, field: str) -> bytes:
        return field.encode()

    return asyncio.run(read_talk(read(messages=list(messages)), fetch, most))


def refusal_of(**entries: Any) -> dict[str, Any]:
    with pytest.raises(Refusal) as refused:
        read(**entries)
    detail: Any = refused.value.detail
    return detail


# -- requests ------------------------------------------------------------------------------------


def test_what_asks_for_nothing_is_left_out() -> None:
    request = read(
        n=1, frequency_penalty=0.0, presence_penalty=0, tools=[], logprobs=False, user="me",
        response_format={"type": "text"}, metadata={"a": "b"}, logit_bias=None, stop=None,
    )  # fmt: skip
    assert request == read()


@given(
    field=st.sampled_from(["n", "tools", "logit_bias", "response_format", "functions", "logprobs"]),
    value=st.one_of(
        st.integers(2), st.text(min_size=1), st.lists(st.integers(), min_size=1), st.just(True)
    ),
)
def test_what_cannot_be_done_is_refused_by_name(field: str, value: Any) -> None:
    if field == "n" and value is True:  # which JSON's 1 equals, here
        return
    detail = refusal_of(**{field: value})
    assert detail == {
        "message": f"{field} is not supported; leave it out",
        "param": field,
        "code": "unsupported",
    }


@pytest.mark.parametrize(
    ("entries", "param"),
    [
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"messages": ["x"]}, "messages.0"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [text("a"), {"type": "text"}]}]},
            "messages.0.content.1.text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "messages.0.content.0.image_url",
        ),
        ({"messages": [{"role": "system", "content": [PICTURE]}]}, "messages.0.content"),
        ({"stop": [""]}, "stop.0"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"seed": 2**63}, "seed"),
        ({"top_p": 0}, "top_p"),
        ({"temperature": "1"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"stream_options": {"x": 1}}, "stream_options.x"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_refusal_names_the_field(entries: dict[str, Any], param: str) -> None:
    detail = refusal_of(**entries)
    assert detail["param"] == param
    assert param in detail["message"]
    assert "\n" not in detail["message"]


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        read_request(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from([*ChatRequest.model_fields, "n", "tools", "user"]), JSON),
    st.lists(
        st.fixed_dictionaries(
            {}, optional={"role": st.sampled_from(["user", "assistant", "x"]), "content": JSON}
        ),
        max_size=3,
    ),
)
def test_no_json_does_more_than_be_refused(
    entries: dict[str, Any], messages: list[dict[str, Any]]
) -> None:
    with suppress(Refusal):
        read(**{**entries, "messages": messages})


# -- turns ---------------------------------------------------------------------------------------


def test_messages_become_turns_with_their_own_pictures() -> None:
    found = talk(
        {"role": "developer", "content": "be brief"},
        {"role": "system", "content": [text("be"), text("kind")]},
        {"role": "user", "content": [text("what"), text("is this?"), PICTURE]},
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": [PICTURE, text("or this"), PICTURE, text("?")]},
    )
    first, second, third = (
        f"messages.{at}" for at in ("2.content.2", "4.content.0", "4.content.2")
    )
    assert found.system == "be brief\nbe\nkind"
    assert found.turns == (
        Turn("what\nis this?", (first.encode(),), "a cat"),
        Turn("<image>\nor this\n<image>\n?", (second.encode(), third.encode())),
    )
    assert found.fields == ((first,), (second, third))
    assert talk(*HELLO).system is None


@given(st.lists(st.sampled_from(["system", "user", "assistant"]), min_size=1, max_size=6))
def test_only_turns_that_alternate_are_conversations(roles: list[str]) -> None:
    spoken = roles[next((at for at, role in enumerate(roles) if role != "system"), len(roles)) :]
    due = [("user", "assistant")[at % 2] for at in range(len(spoken))]
    messages = [{"role": role, "content": "x"} for role in roles]
    if spoken == due and len(spoken) % 2:
        assert len(talk(*messages).turns) == (len(spoken) + 1) // 2
    else:
        with pytest.raises(Refusal, match=r"messages(\.\d+\.role)?"):
            talk(*messages)


def test_pictures_of_all_turns_count_together() -> None:
    shows = {"role": "user", "content": [PICTURE]}
    answered = {"role": "assistant", "content": "x"}
    assert len(talk(shows, answered, shows, most=2).turns) == 2
    with pytest.raises(Refusal, match="2 images, 1 are allowed"):
        talk(shows, answered, shows, most=1)


# -- replies -------------------------------------------------------------------------------------


@given(st.lists(st.text(min_size=1), max_size=4), st.booleans())
def test_replies_are_what_the_client_reads(pieces: list[str], usage: bool) -> None:
    end = Ended("stop", 9, 4, 3)
    reply = Reply("x", "m", usage=usage)
    events = [reply.first(), *map(reply.piece, pieces), *reply.last(end).split("\n\n")[:-1]]
    assert f"{events[-1].strip()}\n\n" == DONE
    chunks = [ChatCompletionChunk(**json.loads(event[6:])) for event in events[:-1]]
    said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    whole = ChatCompletion(**reply.whole("".join(pieces), end))
    assert "".join(said) == whole.choices[0].message.content == "".join(pieces)
    assert whole.usage is not None
    assert whole.usage.total_tokens == 12
    assert chunks[-1].usage == (whole.usage if usage else None)
