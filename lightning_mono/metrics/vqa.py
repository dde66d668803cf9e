"""VQA accuracy: agreement with ten people, after their answers' spelling is evened out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lightning_mono.metrics.answers import AnswerMetric, Question

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_COMMAS_IN_NUMBER = re.compile(r"\d,+\d")
# The official pattern, (?!<=\d)(\.)(?!\d), has a slip of the pen in its first group, which so
# excludes nothing; and its flag is passed as the number of replacements, re.UNICODE being 32.
_FULL_STOP = re.compile(r"\.(?!\d)")
_LONE_FULL_STOP = re.compile(r"(?<!\d)\.(?!\d)")
_MOST_FULL_STOPS = int(re.UNICODE)

_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4"}
_NUMBERS |= {"five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_ARTICLES = {"a", "an", "the"}
# The official list, by what it corrects to. It leaves out forms that are words (shed, well, its).
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't
    mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're
    you've
"""


def _contractions() -> dict[str, str]:
    """Map each spelling that lacks exactly one apostrophe to the one that has it."""
    table = {"somebody'd": "somebodyd"}  # so the official list has it, and not the other way
    for word in _CONTRACTED.split():
        for place, letter in enumerate(word):
            if letter == "'":
                table[word[:place] + word[place + 1 :]] = word
    return table


_CONTRACTIONS = _contractions()


def normalise_vqa(text: str) -> str:
    """Normalise an answer as VQAv2's evaluation does, `vqaEval.py` of GT-Vision-Lab/VQA.

    Tabs and line ends become blanks. A punctuation mark is dropped where it or any like it stands
    beside a blank, or where a number has a comma; elsewhere it becomes a blank. Full stops go
    unless a digit follows. Then, word by word, in lower case: number words up to ten become
    digits, articles go, contractions get their apostrophe back.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    return _words(strip_punctuation(text, _COMMA_IN_NUMBER, _FULL_STOP))


def normalise_textvqa(text: str) -> str:
    """Normalise an answer as TextVQA's evaluation does, `m4c_evaluators.py` of MMF.

    It is `normalise_vqa` after all commas and question marks are dropped and "'s" is set off as a
    word of its own. So "1,000" is "1000" here, as it is there, but "stop,go" becomes "stopgo" and
    not "stop go".
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    return _words(strip_punctuation(text, _COMMAS_IN_NUMBER, _FULL_STOP))


def normalise_words(text: str) -> list[str]:
    """Split a text into words as VLMEvalKit does: `normalise_vqa` without its rules for words.

    A full stop goes unless a digit stands on either side of it.
    """
    return strip_punctuation(text.lower(), _COMMA_IN_NUMBER, _LONE_FULL_STOP).split()


def strip_punctuation(
    text: str, comma_in_number: re.Pattern[str], full_stop: re.Pattern[str]
) -> str:
    """Drop punctuation marks or make blanks of them, see `normalise_vqa`."""
    drop_all = comma_in_number.search(text) is not None
    result = text
    for mark in _PUNCTUATION:
        drop = drop_all or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if drop else " ")
    return full_stop.sub("", result, count=_MOST_FULL_STOPS)


def _words(text: str) -> str:
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return the accuracy of a prediction against the answers of several people.

    The mean over the people of min(1, k / 3), where k of the *others* gave this very answer
    (Antol et al. 2015, and the evaluation page of visualqa.org). With ten people, 0 to 4 who agree
    give 0, 0.3, 0.6, 0.9, 1.
    """
    agree = sum(answer == prediction for answer in answers)
    by_those = agree * min(1.0, (agree - 1) / 3)
    by_others = (len(answers) - agree) * min(1.0, agree / 3)
    return (by_those + by_others) / len(answers)


class _VQAMetric(AnswerMetric[Question]):
    def check(self, question: Question) -> None:
        """Refuse a question that too few people answered: no prediction could get full marks."""
        if len(question.answers) < 4:
            raise ValueError(
                f"VQA accuracy compares with several people's answers, ten as a rule and four at "
                f"least; it has {len(question.answers)}"
            )


class VQAAccuracy(_VQAMetric):
    """VQA accuracy with the rules of VQAv2 (also OK-VQA), between 0 and 1.

    Where all people gave the same answer, neither side is normalised, so that case counts there:
    that is in the official script. VLMEvalKit normalises always, and does not drop a full stop
    behind a digit.
    """

    def measure(self, prediction: str, question: Question) -> tuple[float, ...]:
        """Return the accuracy of one answer."""
        # Before they are compared, answers lose tabs, line ends and blanks around them.
        said, *answers = (_stripped(text) for text in (prediction, *question.answers))
        if len(set(answers)) > 1:
            said, *answers = (normalise_vqa(text) for text in (said, *answers))
        return (vqa_accuracy(said, answers),)


class TextVQAAccuracy(_VQAMetric):
    """VQA accuracy with the rules of TextVQA, between 0 and 1. Answers are always normalised."""

    def measure(self, prediction: str, question: Question) -> tuple[float, ...]:
        """Return the accuracy of one answer."""
        said, *answers = (normalise_textvqa(text) for text in (prediction, *question.answers))
        return (vqa_accuracy(said, answers),)


def _stripped(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
