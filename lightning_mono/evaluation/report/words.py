"""Numbers and findings of a run in words. Every number comes from the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_mono.evaluation.benchmark import Scores
from lightning_mono.evaluation.report.run import Retention, Run

THIN = "\u202f"  # a narrow space that does not break the line
MINUS = "\u2212"


@dataclass(frozen=True)
class Tile:
    """A headline: a large figure and what it means."""

    figure: str
    meaning: str


def percent(share: float | None) -> str:
    """Write a share between 0 and 1: 0.8123 is "81.2 %", None an em dash."""
    return "\u2014" if share is None or math.isnan(share) else f"{100 * share:.1f}{THIN}%"


def points(share: float) -> str:
    """Write a difference of shares with its sign: 0.178 is "+17.8"."""
    return f"{100 * share:+.1f}".replace("-", MINUS)


def duration(seconds: float) -> str:
    """Write a time with as much detail as helps: "0.4 s", "38 s", "4 min 51 s", "1 h 12 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f}{THIN}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{THIN}s"
    if whole < 3600:
        return f"{whole // 60}{THIN}min {whole % 60}{THIN}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}{THIN}h {minutes % 60}{THIN}min"


def count(number: float) -> str:
    """Write a count: in full up to 99,999, then as "3.50 million" or "1.81 billion"."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g}{THIN}{word}"
    return f"{number:,.0f}"


def small(number: float) -> str:
    """Write a number near zero, zero itself included, to two digits."""
    return f"{number:.2g}".replace("-", MINUS)


def listing(names: Sequence[str]) -> str:
    """Join names: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def interval(share: float, questions: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share of `questions` independent questions."""
    z = 1.96
    middle = share + z * z / (2 * questions)
    spread = z * math.sqrt(share * (1 - share) / questions + z * z / (4 * questions**2))
    scale = 1 + z * z / questions
    return (middle - spread) / scale, (middle + spread) / scale


def tiles(run: Run) -> list[Tile]:
    """Choose the headlines of a run: those that it has figures for."""
    found = []
    if run.test:
        questions = f"of {run.test['questions']:,} test questions answered correctly"
        found.append(Tile(percent(run.test["accuracy"]), questions))
        blind = run.test["question_only_accuracy"]
        if blind is not None:
            gain = f"{points(run.test['accuracy'] - blind)}{THIN}pts"
            found.append(Tile(gain, "over a model that reads the question and sees no picture"))
        else:
            share = percent(run.test["kind_majority_accuracy"])
            found.append(Tile(share, "by giving each kind of question its most frequent answer"))
    checks = run.journal.retention
    if len(checks) > 1 and all(check.logits_identical for check in checks):
        found.append(Tile("bit for bit", "the language model it was before, on text alone"))
    elif len(checks) > 1:
        change = points(checks[-1].perplexity / checks[0].perplexity - 1)
        found.append(Tile(f"{change}{THIN}%", "perplexity on text: its language has moved"))
    if run.total_seconds:
        found.append(Tile(duration(run.total_seconds), "from start to finish"))
    return found


def summary(run: Run) -> str:
    """Say in one paragraph what came of a run."""
    sentences = _seeing(run.test) + _language(run.journal.retention) + _cost(run)
    return " ".join(sentences)


def _seeing(test: Scores | None) -> list[str]:
    if not test:
        return ["This run has not been evaluated yet, so this page tells how it was trained."]
    return [
        f"Of {test['questions']:,} test questions about pictures, the model answers "
        f"{percent(test['accuracy'])} correctly.",
        _worth_of_pictures(test),
    ]


def guessing(test: Scores) -> str:
    """Say what guessing would give, and how sure the accuracy is."""
    low, high = interval(test["accuracy"], test["questions"])
    return (
        f"Always saying \u201c{test['majority_answer']}\u201d would be right for "
        f"{percent(test['majority_accuracy'])} of the questions, and the most frequent answer to "
        f"each kind of question for {percent(test['kind_majority_accuracy'])}. Were the questions "
        f"independent of each other, the 95{THIN}% interval of the model's accuracy would be "
        f"{100 * low:.1f} to {percent(high)}."
    )


def _worth_of_pictures(test: Scores) -> str:
    blind = test["question_only_accuracy"]
    if blind is None:
        return (
            f"The most frequent answer to each kind of question would be right for "
            f"{percent(test['kind_majority_accuracy'])}; no question-only model was trained beside "
            "it, so how much comes from the pictures is not measured here."
        )
    gain = test["accuracy"] - blind
    model, without = (interval(share, test["questions"]) for share in (test["accuracy"], blind))
    against = f"A model that reads only the question reaches {percent(blind)}"
    if model[0] > without[1]:
        return f"{against}: seeing the picture is worth {100 * gain:.1f} points."
    if model[1] < without[0]:
        return f"{against}, {100 * -gain:.1f} points more: this model does worse with its pictures."
    return f"{against}: too close to say that the pictures help."


def _language(checks: list[Retention]) -> list[str]:
    if len(checks) < 2:
        return ["Whether its language was kept was not measured before and after training."]
    changed = [check for check in checks if not check.logits_identical]
    before, after = checks[0].perplexity, checks[-1].perplexity
    if not changed:
        return [
            f"Its language is untouched: in {len(checks)} checks, from the start to the end of "
            f"{checks[-1].stage}, every text-only logit is identical, bit for bit."
        ]
    return [
        f"Its language has moved since the stage {changed[0].stage}: perplexity on text went from "
        f"{before:.1f} to {after:.1f}, and a text-only logit differs by up to "
        f"{small(max(check.max_abs_difference for check in changed))}."
    ]


def _cost(run: Run) -> list[str]:
    steps, stages = run.journal.steps, run.journal.stages
    if not steps:
        return []
    names = f" in the stages {listing([stage.name for stage in stages])}" if stages else ""
    said = (
        f"Training took {duration(sum(step.seconds for step in steps))} for {len(steps):,} steps "
        f"and {count(sum(step.tokens for step in steps))} tokens{names}."
    )
    return [said]
