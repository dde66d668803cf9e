"""What a model is asked, as data: a template and the longest answer for each benchmark.

The templates are those of the published evaluations of InternVL: its own scripts
(`internvl_chat/eval`), and VLMEvalKit's adapter for it where there is no script.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lightning_mono.errors import DataError

FIELDS = ("question", "hint", "options")
_FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Words:
    """What a record puts into a template."""

    question: str
    hint: str = ""
    options: Mapping[str, str] = field(default_factory=dict)  # letter to text


@dataclass(frozen=True)
class Prompt:
    """How a benchmark asks.

    Attributes:
        template: text with some of {question}, {hint} and {options}; options are lines such as
            "A. red". A line is left out where all fields in it are empty.
        max_new_tokens: the longest answer.
        without_options: the template for questions that have none, where it is another.
    """

    template: str
    max_new_tokens: int
    without_options: str | None = None

    def __post_init__(self) -> None:
        for template in (self.template, self.without_options or ""):
            check_template(template)

    def fill(self, words: Words) -> str:
        """Return what the model is asked.

        >>> Prompt("{hint}\\n{question}\\n{options}\\nBriefly.", 8).fill(Words("Which?"))
        'Which?\\nBriefly.'
        """
        template = self.template
        if self.without_options is not None and not words.options:
            template = self.without_options
        options = "\n".join(f"{letter}. {text}" for letter, text in words.options.items())
        values = {"question": words.question, "hint": words.hint, "options": options}
        lines = []
        for line in template.split("\n"):
            names = _FIELD.findall(line)
            if not names or any(values[name] for name in names):
                lines.append(_FIELD.sub(lambda found: values[found[1]], line))
        return "\n".join(lines)


def check_template(template: str) -> None:
    """Refuse a template with a field that is none.

    Raises:
        DataError: names the field, and the nearest one that there is.
    """
    for name in _FIELD.findall(template):
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, 1)
            hint = f"did you mean {{{near[0]}}}?" if near else f"there are {', '.join(FIELDS)}"
            raise DataError(f"prompt {template!r}: no field {{{name}}}; {hint}")


_SHORT = "Answer the question using a single word or phrase."
_LETTER = (
    "{hint}\n{question}\n{options}\n"
    "Answer with the option's letter from the given choices directly."
)
_LETTER_CN = "{hint}\n{question}\n{options}\n请直接回答选项字母。"
_CAPTION = Prompt("Provide a one-sentence caption for the provided image.", 30)

PROMPTS: Mapping[str, Prompt] = {
    "ai2d": Prompt(_LETTER, 10),
    "ccbench": Prompt(_LETTER_CN, 100),
    "chartqa": Prompt(f"{{question}} {_SHORT}", 100),
    "coco": _CAPTION,
    "docvqa": Prompt(f"{{question}} {_SHORT}", 100),
    "exact_match": Prompt("{question}", 16),
    "flickr30k": _CAPTION,
    "gqa": Prompt(f"{{question}} {_SHORT}", 10),
    "hallusionbench": Prompt(f"{{question}} Please answer yes or no. {_SHORT}", 20),
    "infovqa": Prompt(f"{{question}} {_SHORT}", 100),
    "mathvista": Prompt("{question}", 4096),
    "mis": Prompt("{question}", 1024),
    "mmbench": Prompt(_LETTER, 100),
    "mmbench_cn": Prompt(_LETTER_CN, 100),
    "mme": Prompt(f"{{question}} {_SHORT}", 20),
    "mmmu": Prompt(_LETTER, 10, without_options=f"{{hint}}\n{{question}}\n{_SHORT}"),
    "mmvet": Prompt("{question}", 1000),
    "nocaps": _CAPTION,
    "ocrbench": Prompt("{question}", 1024),
    "okvqa": Prompt(f"{{question}} {_SHORT}", 10),
    "reading": Prompt("{question}", 512),
    "refcoco": Prompt(
        "Please provide the bounding box coordinate of the region this sentence describes: "
        "<ref>{question}</ref>",
        100,
    ),
    "scienceqa": Prompt(_LETTER, 100),
    "seed": Prompt(_LETTER, 100),
    "textvqa": Prompt(f"{{question}} {_SHORT}", 10),
    "vqav2": Prompt(f"{{question}} {_SHORT}", 10),
}
"""By the name of the scoring, and `mmbench_cn` for MMBench in Chinese."""


def other_words(prompt: Prompt, text: str) -> Prompt:
    r"""Return a prompt that asks as `--prompt` says: as one of `PROMPTS`, or as is written out.

    A written template may say ``\n`` for the end of a line.

    Raises:
        DataError: a field that is none, or a single word that is no name.
    """
    if text in PROMPTS:
        named = PROMPTS[text]
        return Prompt(named.template, prompt.max_new_tokens, named.without_options)
    if re.fullmatch(r"\w+", text):
        near = difflib.get_close_matches(text, PROMPTS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(PROMPTS)}."
        raise DataError(f"no prompt {text!r}; {hint} Or write a template such as '{{question}}'")
    return Prompt(text.replace("\\n", "\n"), prompt.max_new_tokens)
