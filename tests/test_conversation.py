"""A conversation reads only what is new, and says what reading everything again would say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lightning_mono.data.images import ImageProcessor
from lightning_mono.data.sample import Turn
from lightning_mono.errors import DataError
from lightning_mono.inference import Assistant, make_renderer
from lightning_mono.model import ExpertsConfig, MonoModel, PatchifierConfig
from lightning_mono.testing import randomize, tiny_backbone

EVERY = (0, 1)


def _assistant() -> Assistant:
    backbone = tiny_backbone()
    model = MonoModel.graft(
        backbone,
        patchifier=PatchifierConfig(16, 4, 6),
        experts=ExpertsConfig(EVERY, EVERY, EVERY),
    ).double()
    randomize(model, seed=1)
    assert model.head is not None
    model.head.weight.data[model.config.image_context_id] = (
        0  # said, it would be an image to reread
    )
    images = ImageProcessor(16, max_tiles=3, thumbnail=True)
    return Assistant(model, make_renderer(model, backbone.tokenizer, "chatml", images), "chatml")


ASSISTANT = _assistant()
RENDERER = ASSISTANT.renderer


def _picture(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16 * (1 + seed % 3), 3), np.uint8)
    return Image.fromarray(noise)


def _expected(
    read: list[int], pixels: list[np.ndarray], new: int, stop: tuple[str, ...], **sampling: Any
) -> Any:
    """The answer behind these ids without any cache of earlier turns."""
    tiles = torch.from_numpy(np.concatenate(pixels)) if pixels else None
    ids = ASSISTANT.model.generate(
        torch.tensor([read]), tiles, max_new_tokens=new, stop_ids=RENDERER.stop_ids, **sampling
    )
    answer = ASSISTANT.new_answer(stop)
    for token in ids[0].tolist():
        if not answer.done:
            answer.add(token)
    return answer


def _follow(
    turns: list[tuple[str, list[Image.Image]]],
    new: int,
    stop: tuple[str, ...] = (),
    **sampling: Any,
) -> list[str]:
    conversation = ASSISTANT.conversation()
    read: list[int] = []
    pixels: list[np.ndarray] = []
    closed, said = True, []
    for number, (question, images) in enumerate(turns):
        turn = Turn(question, tuple(images))
        if number:
            prompt = RENDERER.follow_up(turn, closed=closed)
        else:
            prompt = RENDERER.conversation([turn])
        read += prompt.input_ids.tolist()
        pixels += [prompt.pixel_values] if len(prompt.pixel_values) else []
        expected = _expected(read, pixels, new, stop, **sampling)
        pieces = conversation.ask(question, images, max_new_tokens=new, stop=stop, **sampling)
        assert "".join(pieces) == expected.text
        said.append(expected.text)
        closed = expected.ended_by == RENDERER.answer_close_id
        read += expected.ids[: expected.words()]
        read += [RENDERER.answer_close_id] if closed else []
    return said


@settings(max_examples=25)
@given(
    pictures=st.lists(st.integers(0, 2), min_size=1, max_size=4),
    new=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_turns_build_on_each_other(pictures: list[int], new: int, seed: int) -> None:
    turns = [
        (f"is it {number}?", [_picture(seed + number + i) for i in range(count)])
        for number, count in enumerate(pictures)
    ]
    _follow(turns, new)


def test_the_second_picture_may_come_in_turn_three() -> None:
    said = _follow([("a?", [_picture(0)]), ("b?", []), ("c?", [_picture(1)]), ("d?", [])], 8)
    assert len(set(said)) > 1


def test_a_stop_string_leaves_nothing_of_itself_behind() -> None:
    first = _follow([("a?", [_picture(0)])], 12)[0]
    stop = first[len(first) // 2 : len(first) // 2 + 2]
    assert stop.strip()
    cut = _follow([("a?", [_picture(0)]), ("b?", [_picture(1)])], 12, (stop,))
    assert stop not in cut[0]
    assert first.startswith(cut[0])


def test_sampling_is_repeatable_under_a_seed() -> None:
    sampling = {"temperature": 1.0, "top_p": 0.9, "repetition_penalty": 1.2}
    said = [
        "".join(ASSISTANT.stream("a?", seed=s, max_new_tokens=8, **sampling)) for s in (3, 3, 4)
    ]
    assert said[0] == said[1] != said[2]


def test_a_listener_who_leaves_early_can_go_on() -> None:
    conversation = ASSISTANT.conversation()
    pieces = conversation.ask("a?", [_picture(0)], max_new_tokens=8)
    next(pieces)
    pieces.close()
    assert isinstance("".join(conversation.ask("b?", max_new_tokens=4)), str)


def test_a_batch_says_what_each_would_say_alone() -> None:
    items = [([_picture(1)], "a?"), ([], "is it red or blue, or a square?"), ([_picture(2)], "c?")]
    alone = ["".join(ASSISTANT.stream(q, images, max_new_tokens=9)) for images, q in items]
    assert ASSISTANT.answer(items, 9) == alone


@pytest.mark.parametrize(
    ("question", "count"), [("<image> <image>", 1), ("<image>", 0), ("<image>", 2)]
)
def test_pictures_and_placeholders_must_match(question: str, count: int) -> None:
    conversation = ASSISTANT.conversation()
    said = "".join(conversation.ask("a?", [_picture(0)], max_new_tokens=3))
    with pytest.raises(DataError, match="<image>") as caught:
        list(conversation.ask(question, [_picture(0)] * count))
    assert len(str(caught.value).splitlines()) == 1
    assert "".join(ASSISTANT.stream("a?", [_picture(0)], max_new_tokens=3)) == said
    list(conversation.ask("it goes on", max_new_tokens=2))
