"""What a sample becomes: who sees whom, where positions go on, and what is learnt."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lightning_mono.backbones.tokenizer import add_image_tokens
from lightning_mono.data.images import ImageProcessor
from lightning_mono.data.render import Example, Prompt, Renderer
from lightning_mono.data.sample import Exchange, Sample, Turn
from lightning_mono.data.templates import CHAT_TEMPLATES
from lightning_mono.data.words import Script, Words
from lightning_mono.errors import DataError

from .conftest import png
from .made_tokenizers import KINDS, made

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
usual = st.text(list("abc yes red, 19\n是?"), min_size=1, max_size=9).filter(str.strip)
exchanges = st.lists(st.builds(Exchange, words, words), min_size=1, max_size=5).map(tuple)
samples = st.builds(
    Sample,
    id=st.just("s"),
    images=st.sampled_from([(), (png(),), (png("blue"), png("red"))]),
    exchanges=exchanges,
    text=st.one_of(st.just(""), words),
    dialogue=st.booleans(),
)
any_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)


@st.composite
def placed_dialogues(draw: st.DrawFn) -> Sample:
    """A dialogue whose questions say where each picture stands."""
    asked = [draw(st.lists(usual, min_size=1, max_size=3)) for _ in range(draw(st.integers(1, 4)))]
    said = tuple(Exchange("<image>".join(parts), draw(usual)) for parts in asked)
    count = sum(len(parts) - 1 for parts in asked)
    return Sample("s", tuple(png(c) for c in ["red", "blue", "green"] * 4)[:count], said, "", True)


def renderer_of(
    kind: str, template: str, images: ImageProcessor | None = None, **options: str
) -> Renderer:
    eyes = add_image_tokens(made(kind)), images or ImageProcessor(8), 3
    return Renderer(made(kind), CHAT_TEMPLATES[template], *eyes, **options)


@pytest.fixture(params=list(CHAT_TEMPLATES))
def renderer(request: pytest.FixtureRequest) -> Renderer:
    return renderer_of("words", request.param)


@pytest.fixture(params=[(kind, name) for kind in (*KINDS, "newlines") for name in CHAT_TEMPLATES])
def any_renderer(request: pytest.FixtureRequest) -> Renderer:
    return renderer_of(*request.param)


def rendered(renderer: Renderer, sample: Sample, max_length: int = 10_000) -> Example:
    example = renderer.example(sample, max_length)
    assert example is not None
    return example


def text_of(renderer: Renderer, ids: np.ndarray) -> str:
    return renderer.tokenizer.decode(ids.tolist(), skip_special_tokens=False)


@given(sample=samples, max_length=st.integers(5, 200))
@any_fixture
def test_length_agrees_with_the_example(
    renderer: Renderer, sample: Sample, max_length: int
) -> None:
    tokens, dropped = renderer.length(sample, max_length)
    example = renderer.example(sample, max_length)
    if example is None:
        assert (tokens, dropped) == (0, len(sample.exchanges))
    else:
        assert (tokens, dropped) == (len(example.input_ids), example.dropped)
        assert tokens <= max_length
        assert dropped < len(sample.exchanges)


@given(sample=samples)
@any_fixture
def test_branches_go_on_from_the_prefix(renderer: Renderer, sample: Sample) -> None:
    example = rendered(renderer, sample)
    prefix = int((example.branches == 0).sum())
    assert example.positions[:prefix].tolist() == list(range(prefix))
    assert not example.supervised[:prefix].any()
    last = 1 if sample.dialogue else len(sample.exchanges)
    assert example.branches.max() == last
    for branch in range(1, last + 1):
        positions = example.positions[example.branches == branch]
        assert positions.tolist() == list(range(prefix, prefix + len(positions)))


@given(sample=samples)
@any_fixture
def test_answers_and_their_ends_are_all_that_is_learnt(renderer: Renderer, sample: Sample) -> None:
    example = rendered(renderer, sample)
    end = renderer.tokenizer.id_to_token(renderer.answer_close_id)
    said = [renderer.template.answer.format(answer=e.answer.strip()) for e in sample.exchanges]
    learnt = text_of(renderer, example.input_ids[example.supervised])
    assert learnt == "".join(answer + end for answer in said)


@given(sample=samples)
@any_fixture
def test_every_tile_has_its_tokens(renderer: Renderer, sample: Sample) -> None:
    example = rendered(renderer, sample)
    assert renderer.image_tokens is not None
    visual = example.input_ids == renderer.image_tokens.context
    assert visual.sum() == len(example.tiles) * renderer.tokens_per_tile
    assert not example.branches[visual].any()


@given(sample=samples | placed_dialogues())
@settings(any_fixture, max_examples=10)
def test_a_prompt_is_what_training_shows_before_the_answer(
    any_renderer: Renderer, sample: Sample
) -> None:
    example = rendered(any_renderer, sample)
    seen = 0
    placing = any("<image>" in exchange.question for exchange in sample.exchanges)
    for number, exchange in enumerate(sample.exchanges, 1):
        history = sample.exchanges[: number - 1] if sample.dialogue else ()
        placed = sum(past.question.count("<image>") for past in (*history, exchange))
        images = sample.images[:placed] if placing else sample.images
        prompt = any_renderer.prompt(exchange.question, images, text=sample.text, history=history)
        own = example.branches == (1 if sample.dialogue else number)
        shown = example.input_ids[(example.branches == 0) | own]
        learnt = example.supervised[(example.branches == 0) | own]
        assert prompt.input_ids.tolist() == shown[: len(prompt.input_ids)].tolist()
        assert not learnt[seen if sample.dialogue else 0 : len(prompt.input_ids)].any()
        assert learnt[len(prompt.input_ids)]
        seen = len(prompt.input_ids) + learnt[len(prompt.input_ids) :].argmin()
        tiles = any_renderer.pixels([example.tiles])[: len(prompt.pixel_values)]
        assert np.array_equal(prompt.pixel_values, tiles)
        assert len(prompt.pixel_values) == len(images)


@given(sample=placed_dialogues())
@settings(any_fixture, max_examples=10)
def test_answers_are_learnt_between_pictures_too(any_renderer: Renderer, sample: Sample) -> None:
    example = rendered(any_renderer, sample)
    learnt = np.split(example.input_ids, np.flatnonzero(np.diff(example.supervised)) + 1)[1::2]
    assert len(learnt) == len(sample.exchanges)
    for ids, exchange in zip(learnt, sample.exchanges, strict=True):
        assert ids[-1] == any_renderer.answer_close_id
        said = any_renderer.tokenizer.decode(ids[:-1].tolist())
        assert said.strip() == exchange.answer.strip()
    assert any_renderer.image_tokens is not None
    visual = example.input_ids == any_renderer.image_tokens.context
    assert visual.sum() == 3 * len(sample.images) == 3 * len(example.tiles)
    assert not example.supervised[visual].any()


turns = st.builds(
    lambda parts, answer: Turn("<image>".join(parts), (png(),) * (len(parts) - 1), answer),
    st.lists(usual, min_size=1, max_size=3),
    usual,
) | st.builds(Turn, usual, st.sampled_from([(), (png(),), (png("blue"), png())]), usual)


@given(past=st.lists(turns, min_size=1, max_size=2), last=turns, closed=st.booleans())
@settings(any_fixture, max_examples=10)
def test_what_follows_up_continues_what_was_read(
    any_renderer: Renderer, past: list[Turn], last: Turn, closed: bool
) -> None:
    def conversation(*turns: Turn) -> Prompt:
        return any_renderer.conversation([*turns[:-1], replace(turns[-1], answer=None)])

    read, whole = conversation(*past), conversation(*past, last)
    follow = any_renderer.follow_up(replace(last, answer=None), closed=closed)
    said = whole.input_ids[len(read.input_ids) : len(whole.input_ids) - len(follow.input_ids)]
    assert whole.input_ids.tolist() == [*read.input_ids, *said, *follow.input_ids]
    assert (any_renderer.answer_close_id in said) is closed
    assert any_renderer.tokenizer.decode(said.tolist()).strip() == (past[-1].answer or "").strip()
    pixels = np.concatenate([read.pixel_values, follow.pixel_values])
    assert np.array_equal(whole.pixel_values, pixels)


def test_a_merge_never_crosses_into_an_answer() -> None:
    renderer = renderer_of("newlines", "chatml")
    answered = [Turn("what", answer="yes"), Turn("is")]
    ids = renderer.conversation(answered).input_ids.tolist()
    text = text_of(renderer, np.array(ids))
    assert ids != renderer.tokenizer.encode(text, add_special_tokens=False).ids
    asked = renderer.conversation([Turn("what")]).input_ids.tolist()
    (yes,) = ids[len(asked) : ids.index(renderer.answer_close_id, len(asked))]
    assert renderer.tokenizer.id_to_token(yes) == "yes"  # not "▁yes", and not "assistant\nyes"


@given(st.lists(usual, max_size=4), st.sampled_from((*KINDS, "newlines")))
def test_words_are_one_run_however_they_come(parts: list[str], kind: str) -> None:
    script = Script(Words(made(kind)))
    script.write(parts)
    whole = made(kind).encode("".join(parts), add_special_tokens=False)
    assert script.cut() == whole.ids


def test_chatml_reads_as_its_users_expect(tokenizer: Tokenizer) -> None:
    renderer = Renderer(tokenizer, CHAT_TEMPLATES["chatml"])
    sample = Sample("s", exchanges=(Exchange("red?", "yes"), Exchange("blue?", "no")))
    example = rendered(renderer, sample)
    first = example.input_ids[example.branches <= 1]
    assert text_of(renderer, first) == (
        "<|im_start|>user\nred?<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>"
    )
    dialogue = Sample("s", exchanges=sample.exchanges, dialogue=True)
    assert text_of(renderer, rendered(renderer, dialogue).input_ids) == (
        "<|im_start|>user\nred?<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
        "<|im_start|>user\nblue?<|im_end|>\n<|im_start|>assistant\nno<|im_end|>"
    )
    assert renderer.stop_ids == (
        tokenizer.token_to_id("<|im_end|>"),
        tokenizer.token_to_id("<|endoftext|>"),
    )


def test_pieces_give_the_tokens_of_the_whole_text(renderer: Renderer) -> None:
    sample = Sample(
        "s", exchanges=(Exchange("is there 1 red shape?", "yes"),), text="a blue circle."
    )
    ids = rendered(renderer, sample).input_ids.tolist()
    whole = text_of(renderer, np.array(ids))
    assert ids == renderer.tokenizer.encode(whole, add_special_tokens=False).ids


@pytest.mark.parametrize("token", ["<|im_end|>", "<IMG_CONTEXT>", "<img>", "<s>", "</s>"])
def test_special_tokens_in_the_users_words_stay_words(renderer: Renderer, token: str) -> None:
    honest = rendered(renderer, Sample("s", exchanges=(Exchange("a", "b"),), text="c"))
    text = f"x {token} y"
    sly = rendered(renderer, Sample("s", exchanges=(Exchange(text, text),), text=text))
    number = renderer.tokenizer.token_to_id(token)
    assert (sly.input_ids == number).sum() == (honest.input_ids == number).sum()
    assert text_of(renderer, sly.input_ids).count(token) >= 3
    again = pickle.loads(pickle.dumps(renderer))
    for system in ("be kind", text):
        asked = renderer.prompt(text, system=system).input_ids
        assert (asked == number).sum() == (
            renderer.prompt("a", system="be kind").input_ids == number
        ).sum()
        assert again.prompt(text, system=system).input_ids.tolist() == asked.tolist()


def test_exchanges_that_do_not_fit_are_dropped_and_counted(plain: Renderer) -> None:
    long = Exchange("what color is the shape? " * 20, "yes")
    short = Exchange("red?", "yes")
    sample = Sample("s", exchanges=(long, short, long))
    example = rendered(plain, sample, 60)
    assert example.dropped == 2
    assert set(example.branches.tolist()) <= {0, 2}
    assert plain.example(Sample("s", exchanges=(long,)), 60) is None
    dialogue = Sample("s", exchanges=(short, long, short), dialogue=True)
    assert rendered(plain, dialogue, 60).dropped == 2


@pytest.mark.parametrize(("name", "opening"), [("llama3", "<|begin_of_text|>"), ("zephyr", "")])
def test_documents_have_the_opening_of_their_template(name: str, opening: str) -> None:
    renderer = renderer_of("prefix", name)
    example = rendered(renderer, Sample("s", text="a red triangle"))
    end = renderer.tokenizer.id_to_token(renderer.answer_close_id)
    whole = renderer.tokenizer.encode(f"{opening}a red triangle{end}", add_special_tokens=False)
    assert example.input_ids.tolist() == whole.ids
    assert example.supervised.tolist() == [False] + [True] * (len(whole.ids) - 1)


def test_documents_are_learnt_from_the_second_token_on(plain: Renderer) -> None:
    example = rendered(plain, Sample("s", text="a red triangle in the image"))
    assert example.supervised.tolist() == [False] + [True] * (len(example.input_ids) - 1)
    assert not example.branches.any()
    assert text_of(plain, example.input_ids) == "a red triangle in the image<|im_end|>"
    cut = rendered(plain, Sample("s", text="a red triangle in the image"), 3)
    assert cut.input_ids.tolist() == example.input_ids[:3].tolist()
    assert cut.dropped == 1
    assert plain.example(Sample("s", text="a red triangle"), 1) is None


def test_tiles_count_from_prepared_sizes_alone(tokenizer: Tokenizer) -> None:
    tokens = add_image_tokens(tokenizer)
    images = ImageProcessor(8, max_tiles=6, thumbnail=True)
    renderer = Renderer(tokenizer, CHAT_TEMPLATES["plain"], tokens, images, 3)
    sample = Sample("s", (png(size=(24, 16)),), (Exchange("q", "a"),))
    example = rendered(renderer, sample)
    assert len(example.tiles) == 7
    known = Sample("s", (b"not opened",), sample.exchanges, sizes=((24, 16),))
    assert renderer.length(known, 1000) == (len(example.input_ids), 0)


def test_pictures_of_one_turn_share_the_tiles_and_those_of_a_sample() -> None:
    renderer = renderer_of("words", "chatml", ImageProcessor(8, max_tiles=6))
    wide = png(size=(48, 8))
    one, two = Turn("a", (wide,), "b"), Turn("<image> or <image>", (wide, wide))
    asked = renderer.conversation([one, two])
    assert len(asked.pixel_values) == 6 + 3 + 3
    assert text_of(renderer, asked.input_ids).count("<IMG_CONTEXT>") == 3 * (6 + 3 + 3)
    said = (Exchange("<image> a", "b"), Exchange("<image> or <image>", "c"))
    sample = Sample("s", (wide,) * 3, said, dialogue=True)
    example = rendered(renderer, sample)
    assert len(example.tiles) == 2 + 2 + 2
    assert text_of(renderer, example.input_ids).count("<IMG_CONTEXT>") == 3 * (2 + 2 + 2)


def test_dropped_turns_take_their_pictures_along() -> None:
    renderer = renderer_of("words", "chatml", ImageProcessor(8, max_tiles=6, thumbnail=True))
    said = (Exchange("red <image>?", "yes"), Exchange("and <image>", "no"))
    pictures = (png(size=(24, 8)), png("blue", (8, 16)))
    sample = Sample("s", pictures, said, dialogue=True)
    whole = rendered(renderer, sample)
    cut = rendered(renderer, sample, len(whole.input_ids) - 1)
    assert (len(whole.tiles), len(cut.tiles), cut.dropped) == (4 + 3, 4, 1)
    assert np.array_equal(cut.tiles, whole.tiles[:4])
    assert renderer.length(sample, len(whole.input_ids) - 1) == (len(cut.input_ids), 1)


@pytest.mark.parametrize("opening", ["<image>\n", "<image>", " <image> \n"])
def test_placeholders_that_open_the_first_question_change_nothing(
    renderer: Renderer, opening: str
) -> None:
    said = (Exchange("red?", "yes"), Exchange("blue?", "no"))
    for count in (1, 2):
        sample = Sample("s", (png(),) * count, said)
        first = replace(said[0], question=opening * count + "red?")
        placed = replace(sample, exchanges=(first, said[1]))
        example, other = rendered(renderer, sample), rendered(renderer, placed)
        for field in ("input_ids", "positions", "branches", "supervised", "tiles"):
            assert np.array_equal(getattr(example, field), getattr(other, field))


@pytest.mark.parametrize(
    ("questions", "images", "dialogue", "message"),
    [
        (["<image> or <image>?"], 1, True, "7: 2 <image> in the text but 1 picture; write"),
        (["a", "<image>"], 2, True, "7: 1 <image> in the text but 2 pictures; write"),
        (["<image><image> a", "b"], 1, False, "7: 2 <image> in the text but 1 picture; write"),
        (["<image>a", "b"], 0, False, "7: 1 <image> in the text but 0 pictures; write"),
        (["is <image> red?"], 1, False, "7: <image> among exchanges that are independent; write"),
        (["<image>a", "<image>b"], 1, False, "7: <image> among exchanges that are independent"),
    ],
)
def test_placeholders_that_do_not_fit_are_one_line(
    plain: Renderer, questions: list[str], images: int, dialogue: bool, message: str
) -> None:
    said = tuple(Exchange(question, "yes") for question in questions)
    sample = Sample("7", (png(),) * images, said, dialogue=dialogue)
    for call in (plain.length, plain.example):
        with pytest.raises(DataError) as caught:
            call(sample, 1000)
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)


def test_placeholders_of_a_turn_count_its_own_pictures(plain: Renderer) -> None:
    first = Turn("a", (png(),), "b")
    with pytest.raises(DataError, match=r"^turn 2: 1 <image> in the text but 0 pictures; "):
        plain.conversation([first, Turn("<image>")])
    with pytest.raises(DataError, match=r"^the next turn: 1 <image> in the text but 2 pictures; "):
        plain.follow_up(Turn("<image>", (png(), png())), closed=True)
    with pytest.raises(DataError, match=r"^prompt: 2 <image> in the text but 1 picture; "):
        plain.prompt("<image>", [png()], history=[Exchange("<image>", "b")])
    with pytest.raises(DataError, match=r"^turn 2: cannot read image: not an image"):
        plain.conversation([first, Turn("a", (b"no picture",))])


@pytest.mark.parametrize("answers", [[], ["a"], [None, None], ["a", None, "b"]])
def test_only_the_last_turn_is_open(plain: Renderer, answers: list[str | None]) -> None:
    with pytest.raises(ValueError, match="every turn has an answer but the last"):
        plain.conversation([Turn("q", (), answer) for answer in answers])


def test_a_text_model_refuses_pictures_by_name(tokenizer: Tokenizer) -> None:
    renderer = Renderer(tokenizer, CHAT_TEMPLATES["plain"])
    with pytest.raises(DataError, match="train/7 has an image"):
        renderer.length(Sample("train/7", (png(),), (Exchange("q", "a"),)), 100)
    with pytest.raises(DataError, match="turn 1 has an image, but the model takes text only"):
        renderer.prompt("q", [png()])


def test_the_fingerprint_follows_what_changes_lengths(tokenizer: Tokenizer) -> None:
    def fingerprint(template: str, tokens: int, images: ImageProcessor, system: str = "") -> str:
        eyes = add_image_tokens(tokenizer), images, tokens
        return Renderer(tokenizer, CHAT_TEMPLATES[template], *eyes, system=system).fingerprint

    small = ImageProcessor(8, max_tiles=4)
    base = fingerprint("plain", 3, small)
    assert base == fingerprint("plain", 3, small)
    others = [
        fingerprint("chatml", 3, small),
        fingerprint("plain", 4, small),
        fingerprint("plain", 3, small, "be kind"),
        fingerprint("plain", 3, replace(small, size=16)),
        fingerprint("plain", 3, replace(small, min_tiles=2)),
        fingerprint("plain", 3, replace(small, max_tiles=5)),
        fingerprint("plain", 3, replace(small, thumbnail=True)),
    ]
    assert len({base, *others}) == 8
