"""Conversations have the tokens of the text that each model's own code writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from lightning_mono.backbones.chat import CHATML
from lightning_mono.backbones.tokenizer import add_image_tokens
from lightning_mono.data.images import ImageProcessor
from lightning_mono.data.render import Renderer
from lightning_mono.data.sample import Turn
from lightning_mono.data.templates import CHAT_TEMPLATES
from lightning_mono.errors import DataError

from .conftest import png
from .made_tokenizers import KINDS, made

INTERNVL = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
    "是一个有用无害的人工智能助手。"
)
# As TinyLlama-1.1B-Chat-v1.0 and Meta-Llama-3-8B-Instruct publish them.
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
PICTURE = "<img><IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT></img>"

Said = Sequence[tuple[str, str]]


def jinja(source: str, **tokens: str) -> Callable[[Said, str], str]:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(source)

    def write(said: Said, system: str) -> str:
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": role, "content": words} for role, words in said]
        return template.render(messages=messages, add_generation_prompt=True, **tokens)

    return write


def internvl(said: Said, system: str) -> str:
    """InternVL's separator style "MPT" with the bos token that its tokenizer puts in front."""
    text = f"<s><|im_start|>system\n{system}<|im_end|>" if system else "<s>"
    for role, words in said:
        text += f"<|im_start|>{role}\n{words}<|im_end|>"
    return text + "<|im_start|>assistant\n"


def plain(said: Said, system: str) -> str:
    text = f"{system}\n" if system else ""
    for role, words in said:
        text += f" {words}<|im_end|>\n" if role == "assistant" else f"{words}\nAnswer:"
    return text


WRITTEN = {
    "internlm2-chat": internvl,
    "chatml": jinja(CHATML),
    "llama3": jinja(LLAMA3, bos_token="<|begin_of_text|>"),
    "zephyr": jinja(ZEPHYR, eos_token="</s>"),
    "plain": plain,
}

words = (
    st.text(list("abcxyz AB?!.,:;'\"()[]{}09\n\t你是é😀\u0301"), min_size=1, max_size=12)
    | st.sampled_from(["what color is the shape?", "yes, it is", "12345 red", "{question}"])
).filter(str.strip)


@st.composite
def turns(draw: st.DrawFn, answered: bool) -> Turn:
    """A turn with up to three pictures, in front or where ``<image>`` says."""
    parts = draw(st.lists(words, min_size=1, max_size=4))
    placed = draw(st.booleans())
    count = len(parts) - 1 if placed else draw(st.integers(0, 2))
    question = "<image>".join(parts) if placed else " ".join(parts)
    if placed and draw(st.booleans()):
        question = "<image>\n" * count + parts[0]
    return Turn(question, (png(),) * count, draw(words) if answered else None)


conversations = st.builds(
    lambda past, last: [*past, last], st.lists(turns(True), max_size=2), turns(False)
)


def shown(turn: Turn, name: str) -> str:
    """The words of a turn with its pictures spelled out."""
    question, count = turn.question.strip(), len(turn.images)
    lines = "<image>\n" * count
    asked = "Question: {}" if name == "plain" else "{}"
    if "<image>" not in question or question.startswith(lines):
        front = f"{PICTURE}\n" * count
        return front + asked.format(question.removeprefix(lines))
    return asked.format(question).replace("<image>", PICTURE)


def renderer(kind: str, name: str, system: str | None = None) -> Renderer:
    tokenizer = made(kind)
    eyes = add_image_tokens(tokenizer), ImageProcessor(8), 3
    return Renderer(tokenizer, CHAT_TEMPLATES[name], *eyes, system=system)


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_has_the_tokens_of_its_text(kind: str, name: str) -> None:
    of_this_kind = renderer(kind, name)

    @given(conversations, st.one_of(st.just(""), words))
    @settings(max_examples=40)
    def check(turns: list[Turn], system: str) -> None:
        system = system.strip()  # llama 3 strips it
        said: list[tuple[str, str]] = []
        for turn in turns:
            said.append(("user", shown(turn, name)))
            if turn.answer is not None:
                said.append(("assistant", turn.answer.strip()))
        whole = made(kind).encode(WRITTEN[name](said, system), add_special_tokens=False)
        asked = of_this_kind.conversation(turns, system=system)
        assert asked.input_ids.tolist() == whole.ids
        assert len(asked.pixel_values) == sum(len(turn.images) for turn in turns)

    check()


def test_every_template_is_checked() -> None:
    assert set(WRITTEN) == set(CHAT_TEMPLATES)


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_the_system_message_is_the_templates_the_renderers_or_the_conversations(name: str) -> None:
    def begins(made: Renderer, system: str | None = None) -> str:
        ids = made.conversation([Turn("red?")], system=system).input_ids.tolist()
        return made.tokenizer.decode(ids, skip_special_tokens=False)

    default = INTERNVL if name == "internlm2-chat" else ""
    assert begins(renderer("words", name)) == WRITTEN[name]([("user", ask("red?", name))], default)
    own = renderer("words", name, system="be kind")
    assert begins(own) == begins(renderer("words", name), "be kind") != begins(own, "")
    assert "be kind" in begins(own)
    assert begins(renderer("words", name, system="")) == begins(own, "")
    assert (
        own.prompt("red?").input_ids.tolist() == own.conversation([Turn("red?")]).input_ids.tolist()
    )
    assert own.fingerprint != renderer("words", name).fingerprint


def ask(question: str, name: str) -> str:
    return shown(Turn(question), name)


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("internlm2-chat", ["</s>", "<|im_start|>", "<|im_end|>"]),
        ("chatml", ["<|im_end|>", "<|endoftext|>"]),
        ("llama3", ["<|eot_id|>", "<|end_of_text|>"]),
        ("zephyr", ["</s>"]),
        ("plain", ["<|im_end|>", "<|endoftext|>", "</s>", "<|end_of_text|>"]),
    ],
)
def test_generation_ends_at_the_models_own_tokens(name: str, stops: list[str]) -> None:
    assert renderer("words", name).stop_ids == tuple(map(made("words").token_to_id, stops))


def bare(*specials: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.add_special_tokens(list(specials))
    return tokenizer


@pytest.mark.parametrize("end", ["<|im_end|>", "</s>", "<|end_of_text|>", "<|endoftext|>"])
def test_plain_ends_answers_with_what_the_tokenizer_has(end: str) -> None:
    tokenizer = bare("<pad>", end)
    renderer = Renderer(tokenizer, CHAT_TEMPLATES["plain"])
    assert renderer.answer_close_id == tokenizer.token_to_id(end)
    assert renderer.stop_ids == (renderer.answer_close_id,)
    both = Renderer(bare("<|endoftext|>", "<|im_end|>"), CHAT_TEMPLATES["plain"])
    assert both.tokenizer.id_to_token(both.answer_close_id) == "<|im_end|>"


@pytest.mark.parametrize(
    ("name", "specials", "lacking"),
    [
        ("internlm2-chat", ["<|im_end|>"], "<s>"),
        ("llama3", ["<|begin_of_text|>"], "<|eot_id|>"),
        ("chatml", [], "<|im_end|>"),
        ("plain", [], "<|im_end|> or </s> or <|end_of_text|> or <|endoftext|>"),
    ],
)
def test_a_tokenizer_without_the_templates_tokens_is_refused(
    name: str, specials: list[str], lacking: str
) -> None:
    with pytest.raises(DataError) as caught:
        Renderer(bare(*specials), CHAT_TEMPLATES[name])
    assert str(caught.value) == f"the tokenizer has no {lacking}; use another chat template"
