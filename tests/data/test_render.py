"""What a sample becomes: who sees whom, where positions go on, and what is learnt."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lightning_mono.backbones.tokenizer import add_image_tokens
from lightning_mono.data.images import ImageProcessor
from lightning_mono.data.render import Example, Renderer
from lightning_mono.data.sample import Exchange, Sample
from lightning_mono.data.templates import CHAT_TEMPLATES
from lightning_mono.errors import DataError

from .conftest import png

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
exchanges = st.lists(st.builds(Exchange, words, words), min_size=1, max_size=5).map(tuple)
samples = st.builds(
    Sample,
    id=st.just("s"),
    images=st.sampled_from([(), (png(),), (png("blue"), png("red"))]),
    exchanges=exchanges,
    text=st.one_of(st.just(""), words),
    dialogue=st.booleans(),
)
any_fixture = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


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
    end = renderer.template.answer_close
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


@given(sample=samples)
@any_fixture
def test_a_prompt_is_what_training_shows_before_the_answer(
    renderer: Renderer, sample: Sample
) -> None:
    example = rendered(renderer, sample)
    for number, exchange in enumerate(sample.exchanges, 1):
        history = sample.exchanges[: number - 1] if sample.dialogue else ()
        prompt = renderer.prompt(
            exchange.question, sample.images, text=sample.text, history=history
        )
        own = example.branches == (1 if sample.dialogue else number)
        shown = example.input_ids[(example.branches == 0) | own]
        assert prompt.input_ids.tolist() == shown[: len(prompt.input_ids)].tolist()
        assert np.array_equal(prompt.pixel_values, renderer.pixels([example.tiles]))


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


@pytest.mark.parametrize("token", ["<|im_end|>", "<IMG_CONTEXT>", "<img>", "<|im_start|>"])
def test_special_tokens_in_the_users_words_stay_words(renderer: Renderer, token: str) -> None:
    honest = rendered(renderer, Sample("s", exchanges=(Exchange("a", "b"),), text="c"))
    text = f"x {token} y"
    sly = rendered(renderer, Sample("s", exchanges=(Exchange(text, text),), text=text))
    number = renderer.tokenizer.token_to_id(token)
    assert (sly.input_ids == number).sum() == (honest.input_ids == number).sum()
    assert text_of(renderer, sly.input_ids).count(token) >= 3
    again = pickle.loads(pickle.dumps(renderer))
    assert again.prompt(text).input_ids.tolist() == renderer.prompt(text).input_ids.tolist()


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


def test_a_text_model_refuses_pictures_by_name(tokenizer: Tokenizer) -> None:
    renderer = Renderer(tokenizer, CHAT_TEMPLATES["plain"])
    with pytest.raises(DataError, match="train/7 has an image"):
        renderer.length(Sample("train/7", (png(),), (Exchange("q", "a"),)), 100)


def test_a_tokenizer_without_the_end_token_is_refused() -> None:
    from tokenizers import models

    with pytest.raises(DataError, match=r"has no <\|im_end\|>"):
        Renderer(Tokenizer(models.BPE()), CHAT_TEMPLATES["chatml"])


def test_the_fingerprint_follows_what_changes_lengths(tokenizer: Tokenizer) -> None:
    def fingerprint(template: str, tokens: int, size: int) -> str:
        eyes = add_image_tokens(tokenizer), ImageProcessor(size), tokens
        return Renderer(tokenizer, CHAT_TEMPLATES[template], *eyes).fingerprint

    base = fingerprint("plain", 3, 8)
    assert base == fingerprint("plain", 3, 8)
    others = [fingerprint("chatml", 3, 8), fingerprint("plain", 4, 8), fingerprint("plain", 3, 16)]
    assert len({base, *others}) == 4
