"""Splitting captions into words as COCO's evaluation does, without Java.

COCO's scripts call Stanford's PTBTokenizer (CoreNLP 3.4.1, `-preserveLines -lowerCase`) and drop a
list of punctuation marks. Here are that tokenizer's rules as far as its output shows them on
captions and on prose; what is left is said in docs/metrics.md.
"""

from __future__ import annotations

import re

_DROPPED = "'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;"
PUNCTUATION = frozenset(_DROPPED.split())
"""Tokens that COCO's script drops. Brackets stay: it lists them in capitals and compares them in
lower case."""

_WRITTEN = {
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **{"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"},
    **{"£": "#", "€": "$", "¢": "cents", "…": "...", "–": "--", "—": "--"},
    **{"‘": "`", "’": "'", "“": "``", "”": "''", '"': "''"},
}
# Abbreviations that keep their full stop: always, before a number, and when written with a capital.
_ALWAYS = """
    adm al apr assn atty aug ave b.b.q bldg blvd bros capt cf cmdr co col comdr corp cpl dec
    dept det dr est etc ext feb ft gen gov hon inc ind insp intl jan jr jul jun lt ltd maj mar
    messrs mfg mlle mme mon mr mrs ms mt nov oct ph ph.d pres prof rd rep rev sen sep sept seq
    sgt sq sr st supt tel thu thurs treas tue tues univ vs wed fri ariz calif colo conn fla ga
    kan ky md mich minn mo mont neb nev okla tenn va vt wis wyo ct
"""
_BEFORE_A_NUMBER = "art ca fig figs no nos p pp"
_CAPITAL = "Ark Del Ill La Mass Miss Ore Pa Wash"
# A capital after a full stop begins a sentence with these, and takes the stop from a single letter.
_STARTERS = """
    A According Additionally After An As At But He Her Here However If In It Last Many Now Once One
    Other She Since So Some Such That The Their Then There These They This We What When While You
"""
# Words in two parts: the first, where the second follows.
_TWO_PARTS = {"can": "not", "gon": "na", "wan": "na", "got": "ta", "gim": "me", "lem": "me"}

_MARKS = "\u0300-\u036f\u0900-\u0e7f"  # accents, and the scripts of India and Thailand
_SMALL = "²³¹⁰-⁹½¼¾⅓⅔"
_A = "['’]"  # an apostrophe
_L = rf"(?:[^\W\d_{_SMALL}{_MARKS}]|[{_MARKS}])"  # a letter
_X = rf"(?:[^\W_{_SMALL}{_MARKS}]|[{_MARKS}])"  # a letter or digit
_END = rf"(?!{_X})"


def _any(words: str) -> str:
    return "|".join(re.escape(word) for word in words.split())


# Stanford's lexer takes the longest of all rules that match; these stand in an order to that
# effect.
_TOKEN = re.compile(
    "|".join(
        (
            r"(?:https?://|www\.)[^\s<>\"|(){}]*[^\s<>\"|(){}.,!?;:'-]",
            r"[\w.+-]+@\w[\w-]*(?:\.[\w-]+)+",
            r"</?[A-Za-z!][^>]*>",
            r"[#@][A-Za-z]\w*",
            r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]](?!\w)",  # a smiley
            rf"{_L}(?:\.{_L})+{_END}\.?",  # U.S., a.m.
            rf"(?i:{_any(_ALWAYS)})\.(?!\w)|(?:{_any(_CAPITAL)})\.(?!\w)",
            rf"(?i:{_any(_BEFORE_A_NUMBER)})\.(?=\s?\d)",
            rf"{_L}\.(?!\w|\s(?:{_any(_STARTERS)})\b)",  # an initial
            *(rf"(?i:{first}(?={second}{_END}))" for first, second in _TWO_PARTS.items()),
            rf"(?i:{_A}t(?=(?:is|was){_END})|y{_A}(?={_L}))",  # 't is, y' all
            rf"(?i:(?<={_L})n{_A}t{_END})",
            rf"(?i:{_A}(?:s|m|d|re|ve|ll){_END})",
            rf"(?i:{_A}(?:n{_A}?|em|till?|cause|[2-9]0s|\d\d){_END}|[cs]{_A}mo(?:n|res){_END}|ol{_A})",
            rf"\d{{1,2}}[-/]\d{{1,2}}[-/]\d{{2,4}}{_END}",  # a date
            rf"\d{{1,4}}/\d{{1,4}}{_END}",
            rf"{_X}+(?:_{_X}+)+",
            rf"(?i:{_L}+?(?=n{_A}t{_END}))",
            r"[A-Z]{1,2}\$",  # US$
            rf"[A-Z]+(?:[+&][A-Z]+)+{_END}",  # R&B
            rf"(?:\d+(?:[.,]\d+)+|(?:[dDoOlL]{_A})?{_X}+)(?:-(?:[dDoOlL]{_A})?{_X}+)+",
            rf"[dDoOlL]{_A}{_X}{{2,}}|[A-HJ-XZ]{_A}{_L}{{2,}}",  # o'clock
            rf"{_L}*[aeiouyAEIOUY]{_A}[aeiouA-Z]{_L}*",  # ma'am
            r"[A-Za-z0-9]+(?:/[A-Za-z0-9]+){1,2}(?!\w)",
            rf"{_L}{_X}*(?:[.!?]{_L}{_X}*)*",
            rf"[-+]?(?:\d*(?:[.:,]\d+)+|\d+{_END})",
            rf"{_X}+",
            r"-+|_+|#+|\*+|\.{3,}|[?!]+|''|``|~+|[\U00010000-\U0010ffff]+",
            r"\S",
        )
    )
)
_CURLY = re.compile("n?’[a-z]+")


def ptb_words(caption: str) -> list[str]:
    """Split a caption into words, in lower case, without punctuation."""
    return [token for token in ptb_tokens(caption) if token not in PUNCTUATION]


def ptb_tokens(caption: str) -> list[str]:
    """Split a caption into tokens, in lower case. Emoji are left out, as the tokenizer does."""
    return [_written(token) for token in _TOKEN.findall(caption) if token < "\U00010000"]


def _written(token: str) -> str:
    token = _WRITTEN.get(token, token.lower())
    if _CURLY.fullmatch(token):
        return token.replace("’", "'")
    if token in ("---", "----"):
        return "--"
    return "..." if token.startswith("...") else token
