"""What a model's files say about chatting: which template, and which tokens end a turn."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer

from lightning_mono.backbones.tokenizer import END_OF_TEXT, TURN_END, TURN_START

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n'"
    " + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# What gives a Jinja template away, and our chat template that stands for it.
_MARKS = (
    (TURN_START, "chatml"),
    ("<|start_header_id|>", "llama3"),
    ("<|user|>", "zephyr"),
)


def chat_of_template(template: str, family: str = "") -> str:
    """The name of our chat template that stands for a model's Jinja template.

    Args:
        template: the Jinja source; empty where a model has none.
        family: InternLM2 chats as InternVL does, without line breaks between turns.
    """
    if family == "internlm2":
        return "internlm2-chat"
    return next((name for mark, name in _MARKS if mark in template), "plain")


def stop_ids(tokenizer: Tokenizer, declared: Iterable[int]) -> tuple[int, ...]:
    """Ids that end generation: those a model declares, then the usual ones that it knows."""
    usual = (tokenizer.token_to_id(token) for token in (TURN_END, END_OF_TEXT))
    return tuple(dict.fromkeys([*declared, *(id for id in usual if id is not None)]))
