"""A text-only quiz that says whether a language model still knows what it knew.

Questions are the capitals and animal young of the `quiz` game in Debian's bsdgames, made into
four-way multiple choice. Each choice is scored by its mean log-likelihood a token after the prompt,
so long answers are not punished. Chance is one in four; facts and borders are those of the 1990s.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from lightning_mono import assets
from lightning_mono.errors import DataError
from lightning_mono.retention.measures import LanguageModel

FOLDER = "usr/share/games/bsdgames/quiz"
TOPICS = {  # file of the game: the sentence that its first field completes
    "europe": "The capital of {} is",
    "asia": "The capital of {} is",
    "africa": "The capital of {} is",
    "state": "The capital of the state of {} is",
    "babies": "A {} is a young",
}
CHOICES = 4
ITEMS_IN_A_BATCH = 8


@dataclass(frozen=True)
class Item:
    """A sentence to complete, and its possible ends, of which one is right."""

    topic: str
    prompt: str
    choices: tuple[str, ...]
    right: int  # index into choices


@dataclass(frozen=True)
class QuizResult:
    """How many items were answered rightly."""

    correct: int
    total: int
    by_topic: dict[str, tuple[int, int]]  # topic: (correct, total)


def quiz_items(folder: Path | None = None, *, per_topic: int = 20, seed: int = 0) -> list[Item]:
    """Make multiple choice out of the game's files: the same items for the same arguments.

    Args:
        folder: where the files lie; fetched from Debian and cached when not given.
        per_topic: items of each topic.
        seed: of the choice of items and of wrong answers.

    Raises:
        AssetError: the package could not be had.
        DataError: a file holds too few entries.
    """
    folder = folder or assets.debian("bsdgames", FOLDER) / FOLDER
    return [item for topic in TOPICS for item in _topic_items(folder, topic, per_topic, seed)]


def quiz(
    model: LanguageModel,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    device: torch.device | str = "cpu",
) -> QuizResult:
    """Let a model, which is on `device`, complete every item with the choice it finds likeliest."""
    correct: Counter[str] = Counter()
    total = Counter(item.topic for item in items)
    for start in range(0, len(items), ITEMS_IN_A_BATCH):
        batch = items[start : start + ITEMS_IN_A_BATCH]
        pairs = [(item.prompt, f" {choice}") for item in batch for choice in item.choices]
        likelihoods = iter(mean_log_likelihoods(model, tokenizer, pairs, device).tolist())
        for item in batch:
            scores = [next(likelihoods) for _ in item.choices]
            correct[item.topic] += scores.index(max(scores)) == item.right
    by_topic = {topic: (correct[topic], count) for topic, count in total.items()}
    return QuizResult(correct.total(), total.total(), by_topic)


@torch.inference_mode()
def mean_log_likelihoods(
    model: LanguageModel,
    tokenizer: Tokenizer,
    pairs: Sequence[tuple[str, str]],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the mean log-likelihood a token, in nats, of each text after its prompt.

    Args:
        model: a causal language model, on `device`.
        tokenizer: of the model; no special tokens are added.
        pairs: (prompt, text), both of at least one token.
        device: where the model is.

    Returns:
        float32 (pairs,), on the CPU.
    """

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    rows = [(ids(prompt), ids(text)) for prompt, text in pairs]
    longest = max(len(prompt) + len(text) for prompt, text in rows)
    # Padding stands on the right, where causal attention lets no token see it.
    tokens = torch.zeros(len(rows), longest, dtype=torch.int64)
    scored = torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, (prompt, text) in enumerate(rows):
        end = len(prompt) + len(text)
        tokens[row, :end] = torch.tensor(prompt + text)
        scored[row, len(prompt) : end] = True
    tokens = tokens.to(device)
    logits = model(tokens).logits[:, :-1].float()  # (pairs, longest - 1, vocabulary)
    nats = torch.nn.functional.cross_entropy(logits.mT, tokens[:, 1:], reduction="none").cpu()
    return -(nats * scored[:, 1:]).sum(1) / scored[:, 1:].sum(1)


def _topic_items(folder: Path, topic: str, count: int, seed: int) -> list[Item]:
    path = folder / topic
    if not path.is_file():
        raise DataError(f"{path}: no such quiz file; remove the folder to fetch it again")
    lines = path.read_text("latin-1").replace("\\\n", "").splitlines()
    entries = [tuple(map(alternatives, line.split(":")[:2])) for line in lines if ":" in line]
    entries = [entry for entry in entries if all(entry)]
    pool = list(dict.fromkeys(answers[0] for _, answers in entries))
    if len(entries) < count or len(pool) < CHOICES:
        raise DataError(f"{path}: {len(entries)} entries are too few for {count} items")
    draw = random.Random(f"{seed}/{topic}")
    items = []
    for questions, answers in draw.sample(entries, count):
        wrong = draw.sample([answer for answer in pool if answer not in answers], CHOICES - 1)
        right = draw.randrange(CHOICES)
        choices = (*wrong[:right], answers[0], *wrong[right:])
        prompt = re.sub(r"^A (?=[aeiou])", "An ", TOPICS[topic].format(questions[0]))
        items.append(Item(topic, prompt, choices, right))
    return items


def alternatives(pattern: str) -> tuple[str, ...]:
    """List the spellings that a field of the game stands for, the usual one first.

    `a|b` are alternatives, `{x}` is optional and taken, `x[a|b]y` are alternatives inside a word.
    Among the latter the first made of letters alone is taken: the others imitate accents.

    >>> alternatives("Lom['e|e'|e]")
    ('Lome',)
    >>> alternatives("{DR |Republic of the }Congo|Zaire")
    ('DR Congo', 'Zaire')
    """
    innermost = re.compile(r"\[([^][{}]*)\]|\{([^][{}]*)\}")
    while match := innermost.search(pattern):
        inside, optional = match.groups()
        options = (optional if inside is None else inside).split("|")
        plain = [option for option in options if option.isascii() and option.isalpha()]
        taken = plain[0] if inside is not None and plain else options[0]
        pattern = pattern[: match.start()] + taken + pattern[match.end() :]
    return tuple(part.strip() for part in pattern.split("|") if part.strip())
