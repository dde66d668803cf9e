"""A real server, driven by OpenAI's own client: answers, streams, hang-ups, limits and the end."""

from __future__ import annotations

import base64
import io
import json
import signal
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI
from PIL import Image

from lightning_mono.data.sample import Exchange, Turn
from lightning_mono.inference import Assistant

from .conftest import KEY, Server, serving

NAME = "tiny"
CROWD = 16


def picture(seed: int, width: int = 40, height: int = 16) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    return file.getvalue()


def shown(data: bytes) -> dict[str, Any]:
    """A picture as a part of a message."""
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def asked(text: str, *images: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """As many slots as half of a crowd, so that the other half has to wait."""
    flags = ("--slots", "8", "--queue", "8", "--context", "4096", "--max-new-tokens", "4000")
    with serving(folder, *flags, "--prefix-mb", "16") as running:
        yield running
        client, broken = running.client(), threading.Event()
        stream = client.chat.completions.create(
            model=NAME, messages=asked("and what?"), max_tokens=4000, stream=True
        )
        next(iter(stream))  # a stream is open as the server is told to end

        def drain() -> None:
            try:
                for _ in stream:
                    pass
            except openai.APIError:
                pass
            broken.set()

        reading = threading.Thread(target=drain)
        reading.start()
        assert running.stop(signal.SIGTERM) == 0
        assert running.log() == "", "nothing that clients do is an error of the server's"
        reading.join(10)
        assert broken.is_set(), "the stream hangs"
        with pytest.raises(openai.APIConnectionError):
            client.models.list()


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with server.client(retries=0) as client:
        yield client


def stats(server: Server) -> dict[str, int]:
    return httpx.get(f"{server.url}/stats").json()


def until(holds: Callable[[], bool]) -> None:
    """Waits for something that is to happen soon, and fails if it does not."""
    for _ in range(200):
        if holds():
            return
        time.sleep(0.05)
    pytest.fail("it never came")


def said(client: OpenAI, messages: Any, new: int = 12, **further: Any) -> str:
    reply = client.chat.completions.create(model=NAME, messages=messages, max_tokens=new, **further)
    return reply.choices[0].message.content or ""


# -- answers ---------------------------------------------------------------------------------------


def test_models_and_health(server: Server, client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).id == NAME
    with pytest.raises(openai.NotFoundError, match="'other' is not served here; 'tiny' is"):
        client.models.retrieve("other")
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_an_answer_is_the_assistants(client: OpenAI, alone: Assistant) -> None:
    data = picture(0)
    expected = alone.answer([([data], "is it red?")], 12)[0]
    assert said(client, asked("is it red?", shown(data))) == expected
    assert said(client, [{"role": "user", "content": "is it red?"}]) != expected
    reply = client.chat.completions.create(
        model=NAME, messages=asked("is it red?", shown(data)), max_completion_tokens=12
    )
    prompt = len(alone.renderer.prompt("is it red?", [data]).input_ids)
    usage = reply.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (prompt, 12)
    assert usage.total_tokens == prompt + 12
    assert reply.choices[0].finish_reason == "length"


def test_a_stream_is_the_answer_in_pieces(client: OpenAI, alone: Assistant) -> None:
    expected = alone.answer([([], "what shape?")], 20)[0]
    stream = client.chat.completions.create(
        model=NAME,
        messages=asked("what shape?"),
        max_tokens=20,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == expected
    assert sum(bool(piece) for piece in pieces) > 1
    assert chunks[0].choices[0].delta.role == "assistant"
    ends = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert ends[-1] == "length"
    assert set(ends[:-1]) == {None}
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens == 20


def test_turns_pictures_and_the_system_message_reach_the_model(
    client: OpenAI, alone: Assistant
) -> None:
    first, second = picture(1), picture(2, 16, 16)
    system = "be a blue square"
    talk = [
        {"role": "system", "content": system},
        *asked("is it red?", shown(first)),
        {"role": "assistant", "content": "yes"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "and"}, shown(second), *asked("?")[0]["content"]],
        },
    ]
    turns = [Turn("is it red?", (first,), "yes"), Turn("and\n<image>\n?", (second,))]
    prompt = alone.renderer.conversation(turns, system=system)
    assert said(client, talk) == alone.complete([prompt], 12)[0].text
    history = [Exchange("is it red?", "yes")]
    other = alone.renderer.prompt("and?", history=history, system=system)
    assert said(client, talk) != alone.complete([other], 12)[0].text


def test_a_message_of_the_server_may_be_sent_back(client: OpenAI, alone: Assistant) -> None:
    talk: list[Any] = asked("is it red?")
    reply = client.chat.completions.create(model=NAME, messages=talk, max_tokens=6)
    talk += [reply.choices[0].message, *asked("and now?")]
    conversation = alone.conversation()
    "".join(conversation.ask("is it red?", max_new_tokens=6))
    turns = [Turn("is it red?", (), reply.choices[0].message.content), Turn("and now?")]
    expected = alone.complete([alone.renderer.conversation(turns)], 6)[0].text
    assert said(client, talk, 6) == expected


def test_a_stop_string_ends_an_answer(client: OpenAI, alone: Assistant) -> None:
    whole = alone.answer([([], "what shape?")], 20)[0]
    stop = whole[4:6]
    reply = client.chat.completions.create(
        model=NAME, messages=asked("what shape?"), max_tokens=20, stop=[stop]
    )
    assert reply.choices[0].message.content == whole[: whole.index(stop)].strip()
    assert reply.choices[0].finish_reason == "stop"


def test_a_seed_makes_a_drawn_answer_repeatable(client: OpenAI) -> None:
    drawn = {
        said(client, asked("what shape?"), 20, temperature=1.5, seed=seed) for seed in (1, 1, 2)
    }
    assert len(drawn) == 2


def test_earlier_turns_are_not_read_again(client: OpenAI, alone: Assistant) -> None:
    shows = asked("what shape? " * 30, shown(picture(4)))
    turns = [Turn(shows[0]["content"][1]["text"], (picture(4),), "a square")]
    turns += [Turn("and now?", (), "a circle"), Turn("is it?")]
    talk: list[Any] = [
        *shows,
        {"role": "assistant", "content": "a square"},
        *asked("and now?"),
        {"role": "assistant", "content": "a circle"},
        *asked("is it?"),
    ]
    cached = []
    for spoken in (3, 5, 5):
        reply = client.chat.completions.create(model=NAME, messages=talk[:spoken], max_tokens=4)
        usage = reply.usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        cached.append(usage.prompt_tokens_details.cached_tokens)
    prompt = alone.renderer.conversation(turns)
    assert cached == [0, prompt.questions_at[1], prompt.questions_at[2]]
    assert reply.choices[0].message.content == alone.complete([prompt], 4)[0].text


def test_an_uploaded_picture_is_shown_by_its_id(client: OpenAI, alone: Assistant) -> None:
    data = picture(3)
    file = client.files.create(file=("a.png", data), purpose="vision")
    assert (file.bytes, file.filename, file.purpose) == (len(data), "a.png", "vision")
    assert client.files.retrieve(file.id).id == file.id
    part = {"type": "file", "file": {"file_id": file.id}}
    expected = alone.answer([([data], "is it red?")], 12)[0]
    assert said(client, asked("is it red?", part)) == expected
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError, match=r"messages\.0\.content\.0\.file\.file_id"):
        said(client, asked("is it red?", part))


# -- many at a time, and hang-ups ------------------------------------------------------------------


def test_sixteen_at_a_time_of_which_some_hang_up(server: Server, alone: Assistant) -> None:
    questions = [(f"is it {number} red or blue?", picture(number)) for number in range(CROWD)]
    expected = alone.answer([([data], text) for text, data in questions[1::2]], 40)
    before = stats(server)

    def ask(number: int) -> str:
        text, data = questions[number]
        leaves = number % 2 == 0
        with server.client() as client:
            stream = client.chat.completions.create(
                model=NAME,
                messages=asked(text, shown(data)),
                max_tokens=3500 if leaves else 40,
                stream=True,
            )
            pieces = []
            for chunk in stream:
                pieces.append(chunk.choices[0].delta.content or "")
                if leaves and len(pieces) == 4:
                    stream.close()
                    break
            return "".join(pieces)

    with ThreadPoolExecutor(CROWD) as crowd:
        answers = list(crowd.map(ask, range(CROWD)))
    assert answers[1::2] == expected
    until(lambda: stats(server)["running"] + stats(server)["waiting"] == 0)
    after = stats(server)
    assert after["cancelled"] - before["cancelled"] >= CROWD // 2
    assert after["new_tokens"] - before["new_tokens"] < CROWD // 2 * 3500, "they were all finished"


def test_a_hang_up_while_nothing_is_streamed_frees_the_slot_too(
    server: Server, client: OpenAI
) -> None:
    body = json.dumps({"model": NAME, "messages": asked("and what?"), "max_tokens": 3900})
    port = httpx.URL(server.url).port
    before = stats(server)
    with socket.create_connection(("127.0.0.1", port or 0)) as line:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        line.sendall(f"{head}Content-Type: application/json\r\n\r\n{body}".encode())
        until(lambda: stats(server)["running"] == 1)
    until(lambda: stats(server)["running"] == 0)
    after = stats(server)
    assert after["cancelled"] == before["cancelled"] + 1
    assert after["new_tokens"] - before["new_tokens"] < 3900
    assert said(client, asked("is it red?"))


@pytest.mark.parametrize("body", [b"", b'{"model": "ti'])
def test_a_hang_up_before_the_request_is_whole_is_nothing(
    server: Server, client: OpenAI, body: bytes
) -> None:
    before = stats(server)
    with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port or 0)) as line:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n"
        line.sendall(head + b"Content-Type: application/json\r\n\r\n" + body)
    assert said(client, asked("is it red?"))
    assert stats(server)["finished"] == before["finished"] + 1


def test_one_more_than_may_wait_is_told_to_come_back(server: Server, client: OpenAI) -> None:
    streams = [
        client.chat.completions.create(
            model=NAME, messages=asked("and what?"), max_tokens=3900, stream=True
        )
        for _ in range(16)
    ]
    try:
        with pytest.raises(openai.RateLimitError, match="try again later") as refused:
            said(client, asked("is it red?"))
        assert refused.value.response.headers["retry-after"] == "1"
        assert refused.value.code == "queue_full"
    finally:
        for stream in streams:
            stream.close()
    with server.client(retries=5) as patient:
        assert said(patient, asked("is it red?"))


# -- what is refused -------------------------------------------------------------------------------

DOT = picture(0, 1, 1)
TRUNCATED = picture(0, 40, 40)[:-400]


def _bomb(side: int) -> bytes:
    """The beginning of a PNG that says it is of ``side`` x ``side`` pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    end = struct.pack(">I", zlib.crc32(header))
    data = b"IDAT" + zlib.compress(bytes(64))
    data = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + end + data


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "model": ({"model": "gpt"}, 404, "model 'gpt' is not served here"),
    "no messages": ({"messages": []}, 400, "messages: "),
    "role": ({"messages": [{"role": "wizard", "content": "?"}]}, 400, r"messages\.0\.role must be"),
    "order": (
        {"messages": [*asked("a"), *asked("b")]},
        400,
        r"messages\.1\.role is 'user' where 'assistant' is due",
    ),
    "last": (
        {"messages": [*asked("a"), {"role": "assistant", "content": "b"}]},
        400,
        r"messages\.1\.role: the last message must be the user's",
    ),
    "content": ({"messages": [{"role": "user", "content": 3}]}, 400, r"messages\.0\.content: "),
    "part": (
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        400,
        r"messages\.0\.content\.0\.type must be one of",
    ),
    "unknown field": ({"max_token": 3}, 400, "max_token is unknown; did you mean max_tokens?"),
    "n": ({"n": 2}, 400, "n is not supported"),
    "penalty": ({"presence_penalty": 0.5}, 400, "presence_penalty is not supported"),
    "tools": ({"tools": [{"type": "function"}]}, 400, "tools is not supported"),
    "temperature": ({"temperature": -1}, 400, "temperature: "),
    "too many new": ({"max_tokens": 5000}, 400, "max_tokens: 4000 at most"),
    "no room": (
        {"messages": asked("red " * 200), "max_tokens": 4000},
        400,
        "more than the 4096 that a request may have",
    ),
    "too long": ({"messages": asked("is it red? " * 2000)}, 400, "messages: [0-9]+ tokens, images"),
    "no data URL": (
        {"messages": asked("?", {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}})},
        400,
        r"messages\.0\.content\.0\.image_url\.url: not a data:image",
    ),
    "remote": (
        {"messages": asked("?", {"type": "image_url", "image_url": {"url": "http://a.org/b.png"}})},
        400,
        r"image_url\.url: addresses are not fetched here",
    ),
    "no picture": ({"messages": asked("?", shown(b"PK\x03\x04"))}, 400, "not a picture that can"),
    "truncated": ({"messages": asked("?", shown(TRUNCATED))}, 400, "cannot read image"),
    "many pixels": ({"messages": asked("?", shown(_bomb(7000)))}, 413, "7000x7000 is more than"),
    "bomb": ({"messages": asked("?", shown(_bomb(60_000)))}, 413, "too many pixels"),
    "too many": ({"messages": asked("?", *[shown(DOT)] * 17)}, 400, "17 images, 16 are allowed"),
    "placeholder": ({"messages": asked("what is <image>?")}, 400, "1 <image> in the text but 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_is_wrong_is_refused_in_one_line(name: str, client: OpenAI) -> None:
    change, status, says = REFUSED[name]
    request = {"model": NAME, "messages": asked("is it red?"), "max_tokens": 4, **change}
    for stream in (False, True):  # refused before the first byte of a stream
        with pytest.raises(openai.APIStatusError, match=says) as refused:
            client.post(
                "/chat/completions", body={**request, "stream": stream}, cast_to=httpx.Response
            )
        error = refused.value
        assert error.status_code == status
        assert set(error.response.json()["error"]) == {"message", "type", "param", "code"}
        assert "\n" not in error.response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "says"),
    [
        (b"{", "application/json", 400, "the body is not JSON"),
        (b"[]", "application/json", 400, "must be a JSON object"),
        (b'{"a": "\\ud800"}', "application/json", 400, "the body is not JSON"),
        (b"[" * 10_000, "application/json", 400, "the body is not JSON"),
        (b"{}", "text/plain", 415, "application/json"),
        (b"{}", "application/json", 400, "model is missing"),
        (b" " * (33 << 20), "application/json", 413, "too large"),
    ],
)
def test_a_body_that_is_no_request_is_refused(
    server: Server, body: bytes, kind: str, status: int, says: str
) -> None:
    url = f"{server.url}/v1/chat/completions"
    reply = httpx.post(url, content=body, headers={"Content-Type": kind})
    assert reply.status_code == status
    assert says in reply.json()["error"]["message"]


def test_an_upload_that_is_no_picture_is_refused(server: Server, client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="file: not a picture"):
        client.files.create(file=("a.txt", b"words"), purpose="vision")
    with pytest.raises(openai.BadRequestError, match="purpose must be one of vision"):
        client.files.create(file=("a.png", picture(0)), purpose="batch")
    with pytest.raises(openai.APIStatusError, match="file: more than 10485760 bytes"):
        client.files.create(file=("a.png", picture(0) + bytes(11 << 20)), purpose="vision")
    assert httpx.get(f"{server.url}/v1/nothing").json()["error"]["message"] == "Not Found"


# -- another server, with a key and little room ----------------------------------------------------


def test_a_server_with_a_key_few_bits_and_little_room(folder: Path, tmp_path: Path) -> None:
    few_bits = Assistant.from_pretrained(folder, device="cpu", quantize="int8")
    (tmp_path / "key").write_text(f"{KEY}\n")
    flags = ["--api-key-file", str(tmp_path / "key"), "--slots", "1", "--queue", "0"]
    flags += ["--name", "small", "--max-prompt-tokens", "30", "--uploads-mb", "1"]
    flags += ["--max-image-pixels", "10000", "--allow-remote", "--uploads-seconds", "1"]
    flags += ["--quantize", "int8"]
    with serving(folder, *flags) as server:
        with server.client(key="wrong") as stranger:
            with pytest.raises(openai.AuthenticationError, match="wrong or missing API key"):
                stranger.models.list()
            with pytest.raises(openai.AuthenticationError):
                stranger.files.create(file=("a.png", DOT), purpose="vision")
        assert httpx.get(f"{server.url}/stats").status_code == 401
        assert httpx.get(f"{server.url}/health").status_code == 200
        with server.client() as client:
            create: Any = client.chat.completions.create
            said = create(model="small", messages=asked("red?"), max_tokens=8)
            assert [said.choices[0].message.content] == few_bits.answer([([], "red?")], 8)
            with pytest.raises(openai.BadRequestError, match="30 at most") as refused:
                create(model="small", messages=asked("red? " * 30))
            assert refused.value.code == "context_length_exceeded"
            with pytest.raises(openai.APIStatusError, match="200x100 is more than 10000 pixels"):
                create(model="small", messages=asked("?", shown(picture(0, 200, 100))))
            with pytest.raises(openai.BadRequestError, match="32 tokens, images included; 30 at"):
                create(model="small", messages=asked("?", *[shown(TRUNCATED)] * 8))  # not decoded
            inside = {"type": "image_url", "image_url": {"url": f"{server.url}/v1/files/x"}}
            with pytest.raises(openai.BadRequestError, match="its host is not a public one"):
                create(model="small", messages=asked("?", inside))
            stream = create(model="small", messages=asked("?"), max_tokens=1000, stream=True)
            with pytest.raises(openai.RateLimitError):
                create(model="small", messages=asked("red?"))
            stream.close()
            file = client.files.create(file=("a.png", DOT), purpose="user_data")
            until(lambda: _gone(client, file.id))
        assert server.stop(signal.SIGINT) == 0
        assert server.log() == ""


def _gone(client: OpenAI, file: str) -> bool:
    try:
        client.files.retrieve(file)
    except openai.NotFoundError:
        return True
    return False
