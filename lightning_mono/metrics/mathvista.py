"""MathVista: answers brought to the type that the question asks for, then compared as texts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning_mono.metrics.anls import edit_distance
from lightning_mono.metrics.answers import AnswerMetric, mean
from lightning_mono.metrics.choices import extract_choice
from lightning_mono.metrics.judge import Judge, Request

# Ours; the official one shows a language model five worked examples.
PROMPT = """\
Below are a question and a response to it. Reply with the final answer of the response alone, in \
the form that the question asks for: an option's letter, a whole number, a decimal number, a list.
{question}

Response: {prediction}
Final answer:"""

_QUOTED = re.compile(r'The answer is "(.*)"\.')
_LETTER = re.compile(r"\(([a-zA-Z])\)")


@dataclass(frozen=True)
class MathProblem:
    """A problem, by the fields of MathVista's `testmini.json`."""

    question: str  # the whole prompt, choices and hint included
    answer: str
    answer_type: Literal["text", "integer", "float", "list"]
    choices: tuple[str, ...] = ()  # none: free form
    precision: int = 1  # decimals of a float
    kind: str = ""  # the task
    skills: tuple[str, ...] = ()


def extract_by_rules(response: str, problem: MathProblem) -> str | None:
    """Take the answer from a response where no reader is needed; None: one is.

    As MathVista's `extract_answer.py` with `--quick_extract`: a response that is a choice, or a
    number of the right type, or says: The answer is "...". And, of choices, as VLMEvalKit: see
    `choices.extract_choice`. An empty response has an empty answer.
    """
    response = response.strip()
    if not response or response in problem.choices:
        return response
    if problem.answer_type in ("integer", "float"):
        try:
            return str(int(response) if problem.answer_type == "integer" else float(response))
        except ValueError:
            pass
    quoted = _QUOTED.search(response)
    if quoted:
        return quoted[1]
    if problem.choices:
        letters = {chr(ord("A") + place): text for place, text in enumerate(problem.choices)}
        return extract_choice(response, letters)
    return None


def normalise(extraction: str, problem: MathProblem) -> str | None:
    """Bring an extracted answer to the type asked for, as MathVista's `calculate_score.py` does.

    A letter, alone or in brackets, becomes its choice; any other text the choice nearest to it in
    edit distance, of equals the first. A whole number loses its decimals, a float is rounded to
    the problem's precision. None: it is not of that type, or empty
    (`--ignore_empty_extractions`).
    """
    if not extraction.strip():
        return None
    if problem.choices:
        return _choice(extraction.strip(), problem.choices)
    try:
        if problem.answer_type == "integer":
            return str(int(float(extraction)))
        if problem.answer_type == "float":
            return str(round(float(extraction), problem.precision))
    except (ValueError, OverflowError):
        return None
    return extraction


def _choice(extraction: str, choices: Sequence[str]) -> str:
    in_brackets = _LETTER.search(extraction)
    letter = in_brackets[1].upper() if in_brackets else extraction
    letters = [chr(ord("A") + place) for place in range(len(choices))]
    if letter in letters:
        return choices[letters.index(letter)]
    return min(choices, key=lambda choice: edit_distance(letter, choice))


class MathVistaAccuracy(AnswerMetric[MathProblem]):
    """MathVista's accuracy, overall, by task (`accuracy/<task>`) and by skill (`skill/<skill>`).

    Lu et al. 2023, section 3.2: extraction, normalisation, comparison.

    Args:
        questions: of MathVista.
        reader: is asked for the answer in responses that rules cannot read; as published, GPT-4.
            None: such responses are wrong. `unread` is their share, then.
    """

    columns = ("accuracy", "unread")

    def __init__(
        self, questions: Mapping[str, MathProblem], reader: Judge | None = None, **options: Any
    ) -> None:
        super().__init__(questions, **options)
        self.reader = reader

    def check(self, question: MathProblem) -> None:
        """Refuse a problem whose answer is not among its choices."""
        if question.choices and question.answer not in question.choices:
            raise ValueError(f"its answer {question.answer!r} is not among its choices")

    def measure_all(
        self, predictions: Sequence[str], ids: Sequence[str]
    ) -> list[tuple[float, ...]]:
        """Extract, normalise and compare a batch of responses."""
        pairs = [(said, self.questions[name]) for said, name in zip(predictions, ids, strict=True)]
        found = [extract_by_rules(said, problem) for said, problem in pairs]
        hard = [place for place, extraction in enumerate(found) if extraction is None]
        if self.reader and hard:
            requests = [_request(ids[place], *pairs[place]) for place in hard]
            for place, verdict in zip(hard, self.reader.verdicts(requests), strict=True):
                found[place] = verdict
        return [
            (0.0, 1.0) if got is None else (float(normalise(got, problem) == problem.answer), 0.0)
            for got, (_, problem) in zip(found, pairs, strict=True)
        ]

    def summarise(self, scores: dict[str, list[float]]) -> dict[str, float]:
        """Return accuracies overall, by task and by skill."""
        results = super().summarise({"accuracy": scores["accuracy"]})
        scored = list(zip(scores["accuracy"], self.questions.values(), strict=True))
        for skill in dict.fromkeys(skill for _, problem in scored for skill in problem.skills):
            part = [value for value, problem in scored if skill in problem.skills]
            results[f"skill/{skill}"] = mean(part)
        return {**results, "unread": mean(scores["unread"])}


def _request(name: str, said: str, problem: MathProblem) -> Request:
    prompt = PROMPT.format(question=problem.question, prediction=said)
    return Request(name, said, prompt)
