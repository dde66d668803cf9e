"""Templates: what is sent for each benchmark, and what a template may hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_mono.benchmarks.prompts import PROMPTS, Prompt, Words, other_words
from lightning_mono.errors import DataError
from lightning_mono.metrics import METRICS

CHOICE = Words("What is it?", "Look left.", {"A": "a cat", "B": "a dog"})
PLAIN = Words("What is it?")
ASKED = "Look left.\nWhat is it?\nA. a cat\nB. a dog\n"
LETTER = "Answer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."

# What InternVL's scripts, and VLMEvalKit's adapter for it, send.
SENT = [
    ("mmbench", CHOICE, ASKED + LETTER),
    ("ccbench", CHOICE, ASKED + "请直接回答选项字母。"),
    ("mmbench_cn", CHOICE, ASKED + "请直接回答选项字母。"),
    ("seed", Words("Q?", "", {"A": "x"}), f"Q?\nA. x\n{LETTER}"),
    ("ai2d", CHOICE, ASKED + LETTER),
    ("scienceqa", CHOICE, ASKED + LETTER),
    ("mmmu", CHOICE, ASKED + LETTER),
    ("mmmu", PLAIN, f"What is it?\n{SHORT}"),
    ("vqav2", PLAIN, f"What is it? {SHORT}"),
    ("okvqa", PLAIN, f"What is it? {SHORT}"),
    ("textvqa", PLAIN, f"What is it? {SHORT}"),
    ("gqa", PLAIN, f"What is it? {SHORT}"),
    ("docvqa", PLAIN, f"What is it? {SHORT}"),
    ("infovqa", PLAIN, f"What is it? {SHORT}"),
    ("chartqa", PLAIN, f"What is it? {SHORT}"),
    ("mme", PLAIN, f"What is it? {SHORT}"),
    ("hallusionbench", PLAIN, f"What is it? Please answer yes or no. {SHORT}"),
    ("mmvet", PLAIN, "What is it?"),
    ("mathvista", PLAIN, "What is it?"),
    ("ocrbench", PLAIN, "What is it?"),
    ("mis", PLAIN, "What is it?"),
    ("exact_match", PLAIN, "What is it?"),
    ("reading", PLAIN, "What is it?"),
    ("coco", PLAIN, "Provide a one-sentence caption for the provided image."),
    ("flickr30k", PLAIN, "Provide a one-sentence caption for the provided image."),
    ("nocaps", PLAIN, "Provide a one-sentence caption for the provided image."),
    (
        "refcoco",
        Words("the man"),
        "Please provide the bounding box coordinate of the region this sentence describes: "
        "<ref>the man</ref>",
    ),
]


@pytest.mark.parametrize(("name", "words", "sent"), SENT)
def test_each_benchmark_is_asked_as_published(name: str, words: Words, sent: str) -> None:
    assert PROMPTS[name].fill(words) == sent


def test_every_scoring_has_a_prompt_and_all_are_tried() -> None:
    assert set(METRICS) <= set(PROMPTS)
    assert {name for name, _, _ in SENT} == set(PROMPTS)


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(question=words, hint=words, options=st.dictionaries(st.sampled_from("ABC"), words))
def test_words_arrive_as_they_are(question: str, hint: str, options: dict[str, str]) -> None:
    """Also where they look like a field."""
    filled = Prompt("<{hint}|{question}>\n{options}", 1).fill(Words(question, hint, options))
    lines = "".join(f"\n{letter}. {text}" for letter, text in options.items())
    assert filled == f"<{hint}|{question}>{lines}"


def test_lines_whose_fields_are_all_empty_are_left_out() -> None:
    prompt = Prompt("Read.\n{hint}\n{hint}{question}\n\n{options}\nSay.", 1)
    assert prompt.fill(PLAIN) == "Read.\nWhat is it?\n\nSay."


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{qestion}", "no field {qestion}; did you mean {question}?"),
        ("{zzz}", "no field {zzz}; there are question, hint, options"),
        ("a {} b", "no field {}"),
        ("mmbenc", "no prompt 'mmbenc'; did you mean 'mmbench'?"),
        ("zzz", "Or write a template such as '{question}'"),
    ],
)
def test_what_is_no_template_is_refused(template: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        other_words(Prompt("{question}", 5), template)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prompt_is_given_by_name_or_written_out() -> None:
    own = Prompt("{question}", 5)
    assert other_words(own, r"{question}\nBriefly.").fill(PLAIN) == "What is it?\nBriefly."
    named = other_words(own, "mmmu")
    assert (named.template, named.without_options, named.max_new_tokens) == (
        PROMPTS["mmmu"].template,
        PROMPTS["mmmu"].without_options,
        5,
    )
