"""Multiple choice, plain (SEED-I, AI2D, MMMU) and with circular evaluation (MMBench, CCBench)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_uppercase

from lightning_mono.metrics.answers import AnswerMetric, share_all_right

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LATE_WORDS = 5  # an option's letter counts among this many last words
_ANSWER_IS = re.compile(r"(?:correct\s+)?answer\s+is\s+\**([ABCD])\**", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """A question with lettered options, one of which is right."""

    options: Mapping[str, str]  # letter to text
    answer: str  # a letter
    kind: str = ""
    group: str = ""  # circular evaluation: what all rotations of one question have in common


def open_question(answer: str, kind: str = "") -> Choice:
    """Make a choice of a question without options, as VLMEvalKit does with MMMU's.

    The answer is option A, and everything else is "Other Answers".
    """
    return Choice({"A": answer, "B": "Other Answers"}, "A", kind)


def extract_choice(prediction: str, options: Mapping[str, str]) -> str | None:
    """Find out which option a prediction chooses; None where it does not say.

    The rules of VLMEvalKit, `matching_util.py`, without a language model to help. First letters:
    punctuation aside, exactly one option's letter stands alone in the text, and among its last five
    words. Else "answer is X" with a letter from A to D. Else texts: exactly one option's text is
    in the prediction, which is at most twice as long as all options together; case does not count
    there.

    A text that refuses to answer, or chooses "Z", chooses nothing.
    """
    if any(refusal in prediction for refusal in _REFUSALS):
        return None
    words = prediction.translate(_MARKS).split()
    letters = [letter for letter in options if letter in words]
    if len(letters) == 1 and words.index(letters[0]) > len(words) - _LATE_WORDS:
        return letters[0]
    if not letters and "Z" in words:
        return None
    stated = _ANSWER_IS.search(prediction)
    if stated and stated[1].upper() in options:
        return stated[1].upper()
    text = prediction.lower()
    if len(text) > 2 * sum(map(len, options.values())):
        return None
    quoted = [letter for letter, option in options.items() if option.lower() in text]
    return quoted[0] if len(quoted) == 1 else None


class ChoiceAccuracy(AnswerMetric[Choice]):
    """Share of questions whose right option is chosen, between 0 and 1.

    A prediction from which no choice can be read is wrong. (VLMEvalKit asks GPT about those and
    guesses where that fails; MMMU's own script guesses at once: the two gain a little by luck.)
    """

    def check(self, question: Choice) -> None:
        """Refuse letters that are not letters, and an answer that is not an option."""
        bad = [letter for letter in question.options if letter not in list(ascii_uppercase)]
        if bad:
            raise ValueError(f"options are named by the letters A to Z, not {bad[0]!r}")
        if question.answer not in question.options:
            raise ValueError(
                f"its answer {question.answer!r} is not among its options "
                f"{', '.join(question.options)}"
            )

    def measure(self, prediction: str, question: Choice) -> tuple[float, ...]:
        """Return 1 for the right choice, else 0."""
        return (float(extract_choice(prediction, question.options) == question.answer),)


class CircularAccuracy(ChoiceAccuracy):
    """Multiple choice with circular evaluation: right is what is right in every rotation.

    Liu et al. 2023 (MMBench), section 4.1; `mcq_circular_eval` of VLMEvalKit, where rotations are
    rows whose index is the same modulo a million. Results: `accuracy` and `accuracy/<kind>` over
    groups, and `vanilla`, the share of single rows.
    """

    def check(self, question: Choice) -> None:
        """Refuse, besides, a question that is of no group."""
        super().check(question)
        if not question.group:
            raise ValueError("circular evaluation needs the group of each question")

    def summarise(self, scores: dict[str, list[float]]) -> dict[str, float]:
        """Return shares of groups that are right in every row."""
        values = scores["accuracy"]
        rows = list(zip(values, self.questions.values(), strict=True))
        groups = [question.group for question in self.questions.values()]
        results = {"accuracy": share_all_right(values, groups)}
        for kind in dict.fromkeys(question.kind for _, question in rows if question.kind):
            of_kind = [(value, q.group) for value, q in rows if q.kind == kind]
            results[f"accuracy/{kind}"] = share_all_right(*zip(*of_kind, strict=True))
        return {**results, "vanilla": sum(values) / len(values)}
