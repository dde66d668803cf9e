"""A model against the LLM that it was made from: all measures at once, and their table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from lightning_mono import build
from lightning_mono.errors import CheckpointError, DataError
from lightning_mono.model import MonoModel
from lightning_mono.recipe.schema import SourceSection
from lightning_mono.retention.measures import (
    Continuation,
    Divergence,
    LanguageModel,
    Likelihood,
    continuations,
    followed,
    logits_of,
    read_text,
)
from lightning_mono.retention.quiz import Item, QuizResult, quiz
from lightning_mono.retention.readers import Reader
from lightning_mono.retention.reference import CONTINUED, PROMPT
from lightning_mono.retention.text import held_out_text

CONTINUED_ROWS = 32
"""At most so many rows of the text are continued."""


@dataclass(frozen=True)
class Finding:
    """What is left of the language in one model."""

    name: str
    likelihood: Likelihood
    divergence: Divergence
    continuation: Continuation
    quiz: QuizResult | None


class Comparison:
    """Compares models with one untouched LLM, on one text.

    Models are read over the words that the two have in common: a grafted model has a few more, the
    image markers, which take a little likelihood from all others though its text path is the same.

    Args:
        base: the untouched LLM.
        like: a model of those that will be compared, which all have its tokenizer.
        text: documents to be held out.
        tokens: at most so many of them.
        items: of the quiz; none for no quiz.
        device: where models are run; there is room for two.

    Raises:
        CheckpointError: the two have other words.
        DataError: there is too little text.
    """

    def __init__(
        self,
        base: Reader,
        like: Reader,
        text: Iterable[str],
        tokens: int,
        items: Sequence[Item] = (),
        device: str = "cpu",
    ) -> None:
        self.tokenizer, self.words = common_words(base, like)
        self.text = held_out_text(text, self.tokenizer, tokens)
        self.items = items
        self.device = device
        self._base = self._ready(base)
        self._prompts = self.text.ids[:CONTINUED_ROWS, :PROMPT]
        self._said = continuations(self._base, self._prompts, CONTINUED, device)
        self.base = self._found(base.name, self._base)

    def of(self, reader: Reader) -> Finding:
        """What is left of the language in a model."""
        return self._found(reader.name, self._ready(reader))

    def _found(self, name: str, model: LanguageModel) -> Finding:
        reference = logits_of(self._base, self.text.ids, self.device)
        try:
            likelihood, divergence = read_text(model, self.text, self.device, reference)
        except ValueError as error:
            raise CheckpointError(f"{name}: {error}; its weights are spoilt") from error
        assert divergence is not None
        lengths = followed(model, self._prompts, self._said, self.device)
        answered = quiz(model, self.tokenizer, self.items, self.device) if self.items else None
        return Finding(name, likelihood, divergence, Continuation.of(lengths, CONTINUED), answered)

    def _ready(self, reader: Reader) -> LanguageModel:
        return _Words(reader.model.to(self.device).eval(), self.words)


def compare(
    base: Reader,
    loading: Sequence[Callable[[], Reader]],
    text: Iterable[str],
    tokens: int,
    items: Sequence[Item],
    device: str,
) -> tuple[Comparison, list[Finding]]:
    """Compares one model after the other with the untouched LLM; no two of them are held at once.

    Args:
        loading: each gives a model; all have one tokenizer. For the rest see :class:`Comparison`.
    """
    comparison, findings = None, []
    for load in loading:
        reader = load()
        comparison = comparison or Comparison(base, reader, text, tokens, items, device)
        findings.append(comparison.of(reader))
        del reader  # before the next is loaded
    assert comparison is not None
    return comparison, findings


@dataclass(frozen=True, eq=False)
class _Words:
    """A model that knows its first words only."""

    model: MonoModel
    words: int

    def __call__(self, input_ids: Tensor) -> Any:
        out = self.model(input_ids)
        out.logits = out.logits[..., : self.words]
        return out


def common_words(one: Reader, other: Reader) -> tuple[Tokenizer, int]:
    """The tokenizer of fewer words, and how many they are.

    Raises:
        CheckpointError: some of them are others in the other model.
    """
    small, large = sorted((one, other), key=lambda reader: reader.tokenizer.get_vocab_size())
    words, more = small.tokenizer.get_vocab(), large.tokenizer.get_vocab()
    strange = [word for word, number in words.items() if more.get(word) != number]
    if strange:
        raise CheckpointError(
            f"{one.name} and {other.name} have other words ({len(strange)}, such as "
            f"{strange[0]!r}): only models of one tokenizer can be compared token by token"
        )
    return small.tokenizer, max(words.values()) + 1


def documents(section: SourceSection) -> Iterator[str]:
    """The texts of a data source, as they are asked for."""
    store = build.open_source(section)
    return (store[index].text for index in range(len(store)))


def text_of(name: str) -> Iterable[str]:
    """The documents of a UTF-8 text file, or of a data source's test split.

    Raises:
        DataError: there is no such file or source, or it cannot be read.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        return documents(SourceSection(source=name, split="test"))
    try:
        return [path.read_text(encoding="utf-8-sig")]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--text {name}: cannot be read as UTF-8 text: {error}") from error


def table(comparison: Comparison, findings: Sequence[Finding]) -> str:
    """All findings, a line each, below those of the untouched LLM."""
    head = ["", "logits", "perplexity", "bits/byte", "KL", "largest", "agree", "follow", "quiz"]
    rows = [head, *map(_row, (comparison.base, *findings))]
    if comparison.base.quiz is None:
        rows = [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    read = f"{comparison.text.predicted:,} tokens of text, {comparison.words:,} words in common"
    return "\n".join([*lines, read])


def plain(comparison: Comparison, findings: Sequence[Finding]) -> dict[str, Any]:
    """All findings as plain data."""
    return {
        "tokens": comparison.text.predicted,
        "words": comparison.words,
        "untouched": asdict(comparison.base),
        "models": [asdict(finding) for finding in findings],
    }


def _row(finding: Finding) -> list[str]:
    far, quizzed = finding.divergence, finding.quiz
    return [
        finding.name,
        "same" if far.identical else "other",
        f"{finding.likelihood.perplexity:.2f}",
        f"{finding.likelihood.bits_per_byte:.3f}",
        f"{far.kl:.3g}",
        f"{far.kl_max:.3g}",
        f"{far.agreement:.1%}",
        f"{finding.continuation.followed:.1%}",
        f"{quizzed.correct}/{quizzed.total}" if quizzed else "",
    ]
