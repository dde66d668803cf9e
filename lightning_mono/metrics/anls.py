"""Edit distances: ANLS of documents and infographics (DocVQA, InfoVQA), and of whole pages."""

from __future__ import annotations

from lightning_mono.metrics.answers import AnswerMetric, Question

THRESHOLD = 0.5


def edit_distance(one: str, other: str) -> int:
    """Count the letters to insert, delete or exchange to get from one text to the other.

    (torchmetrics' function of that name searches near the diagonal only, and so overestimates where
    lengths differ much.)
    """
    row = list(range(len(other) + 1))  # of the letters of `one` so far to each beginning of `other`
    for done, letter in enumerate(one, start=1):
        diagonal, row[0] = row[0], done
        for place, their_letter in enumerate(other, start=1):
            exchanged = diagonal + (letter != their_letter)
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, exchanged)
    return row[-1]


def similarity(prediction: str, answer: str) -> float:
    """Return 1 minus the edit distance over the greater length, between 0 and 1.

    As in the evaluation script of the Robust Reading Competition (infographicsVQA): the distance is
    of the texts in lower case with white space collapsed, the length of the texts as they came.
    ST-VQA's and MMF's scripts take the length after stripping, too. Two empty texts are the same.
    """
    length = max(len(prediction.upper()), len(answer.upper()))
    if not length:
        return 1.0
    said, right = (" ".join(text.lower().split()) for text in (prediction, answer))
    return 1 - edit_distance(said, right) / length


class ANLS(AnswerMetric[Question]):
    """Mean over the questions of the best similarity to a right answer, 0 where below a half.

    Biten et al. 2019 (ST-VQA), equation 1. They write that a distance of exactly a half scores 0;
    the evaluation scripts, and this, give it a half. Results: `anls` and `anls/<kind>`.
    """

    columns = ("anls",)

    def check(self, question: Question) -> None:
        """Refuse a question without an answer."""
        if not question.answers:
            raise ValueError("it has no answer")

    def measure(self, prediction: str, question: Question) -> tuple[float, ...]:
        """Return the similarity to the nearest answer, or 0."""
        best = max(similarity(prediction, answer) for answer in question.answers)
        return (best if best >= THRESHOLD else 0.0,)


class EditSimilarity(AnswerMetric[Question]):
    """Mean over the questions of the best similarity to a right answer, between 0 and 1.

    1 minus the normalised edit distance, the measure of reading a whole page. There is no threshold
    as in ANLS, which is made for answers of a few words, where half of the letters are no answer;
    of a page read, half of the letters are half of it. Results: `similarity`, `similarity/<kind>`.
    """

    columns = ("similarity",)

    def check(self, question: Question) -> None:
        """Refuse a question without an answer."""
        if not question.answers:
            raise ValueError("it has no answer")

    def measure(self, prediction: str, question: Question) -> tuple[float, ...]:
        """Return the similarity to the nearest answer."""
        return (max(similarity(prediction, answer) for answer in question.answers),)
