"""Chat templates as data: the pieces of text around questions and answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ChatTemplate:
    """How a conversation is written.

    It reads ``opening``, ``system`` where there is a system message, and then its turns with
    ``between`` between them. A turn reads ``turn_open``, the images and text it is about,
    ``question``, ``question_close``, ``answer``, ``answer_close``. ``{system}``, ``{question}``
    and ``{answer}`` hold words, in which no special token is ever recognised; in the other pieces
    it is, where the tokenizer has it, and is spelled out where not.

    Attributes:
        opening: one special token before all, documents included; empty for none.
        system: the system message's turn, with ``{system}``.
        turn_open: opens a turn, before images and text.
        question: plain text with ``{question}``.
        question_close: ends the question and hands over to the model.
        answer: plain text with ``{answer}``.
        answer_close: special tokens, the first that a tokenizer has ends answers and documents.
        between: between the turns of a dialogue.
        stops: special tokens at which generation ends; those that a tokenizer lacks are left out.
        default_system: the system message where none is given; empty for none.
    """

    opening: str
    system: str
    turn_open: str
    question: str
    question_close: str
    answer: str
    answer_close: tuple[str, ...]
    between: str
    stops: tuple[str, ...]
    default_system: str = ""


CHAT_TEMPLATES: Mapping[str, ChatTemplate] = {
    "internlm2-chat": ChatTemplate(  # InternVL's, whose turns follow each other without a break
        opening="<s>",
        system="<|im_start|>system\n{system}<|im_end|>",
        turn_open="<|im_start|>user\n",
        question="{question}",
        question_close="<|im_end|><|im_start|>assistant\n",
        answer="{answer}",
        answer_close=("<|im_end|>",),
        between="",
        stops=("</s>", "<|im_start|>", "<|im_end|>"),
        default_system=(
            "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，"
            "英文名叫InternVL, 是一个有用无害的人工智能助手。"
        ),
    ),
    "chatml": ChatTemplate(
        opening="",
        system="<|im_start|>system\n{system}<|im_end|>\n",
        turn_open="<|im_start|>user\n",
        question="{question}",
        question_close="<|im_end|>\n<|im_start|>assistant\n",
        answer="{answer}",
        answer_close=("<|im_end|>",),
        between="\n",
        stops=("<|im_end|>", "<|endoftext|>"),
    ),
    "llama3": ChatTemplate(
        opening="<|begin_of_text|>",
        system="<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>",
        turn_open="<|start_header_id|>user<|end_header_id|>\n\n",
        question="{question}",
        question_close="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        answer="{answer}",
        answer_close=("<|eot_id|>",),
        between="",
        stops=("<|eot_id|>", "<|end_of_text|>"),
    ),
    "zephyr": ChatTemplate(  # TinyLlama's, to whose tokenizer the names of the roles are text
        opening="",
        system="<|system|>\n{system}</s>\n",
        turn_open="<|user|>\n",
        question="{question}",
        question_close="</s>\n<|assistant|>\n",
        answer="{answer}",
        answer_close=("</s>",),
        between="\n",
        stops=("</s>",),
    ),
    "plain": ChatTemplate(  # for models that were never taught to chat
        opening="",
        system="{system}\n",
        turn_open="",
        question="Question: {question}\nAnswer:",
        question_close="",
        answer=" {answer}",
        answer_close=("<|im_end|>", "</s>", "<|end_of_text|>", "<|endoftext|>"),
        between="\n",
        stops=("<|im_end|>", "<|endoftext|>", "</s>", "<|end_of_text|>"),
    ),
}
