"""Chat templates as data: the pieces of text around questions and answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ChatTemplate:
    """How a turn is written.

    A turn reads ``turn_open``, the images and text it is about, ``question``, ``question_close``,
    ``answer``, ``answer_close``. ``question`` and ``answer`` hold the user's words, in which no
    special token is ever recognised; the other pieces may be special tokens.

    Attributes:
        turn_open: opens a turn, before images and text.
        question: plain text with ``{question}``.
        question_close: ends the question and hands over to the model.
        answer: plain text with ``{answer}``.
        answer_close: one special token that ends the answer, and a text document.
        between: between the turns of a dialogue.
        stops: special tokens at which generation ends; those that a tokenizer lacks are left out.
    """

    turn_open: str
    question: str
    question_close: str
    answer: str
    answer_close: str
    between: str
    stops: tuple[str, ...]


CHAT_TEMPLATES: Mapping[str, ChatTemplate] = {
    "chatml": ChatTemplate(
        turn_open="<|im_start|>user\n",
        question="{question}",
        question_close="<|im_end|>\n<|im_start|>assistant\n",
        answer="{answer}",
        answer_close="<|im_end|>",
        between="\n",
        stops=("<|im_end|>", "<|endoftext|>"),
    ),
    "plain": ChatTemplate(
        turn_open="",
        question="Question: {question}\nAnswer:",
        question_close="",
        answer=" {answer}",
        answer_close="<|im_end|>",
        between="\n",
        stops=("<|im_end|>", "<|endoftext|>"),
    ),
}
