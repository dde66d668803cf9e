"""What is shown of a growing answer is never taken back, and nothing of a stop string is shown."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lightning_mono.answer import Answer

STOP = 0


def _decode(ids: list[int]) -> str:
    """A token is a byte."""
    return bytes(ids).decode("utf-8", "replace")


def _said(text: str, stop: tuple[str, ...] = (), ends: bool = True) -> tuple[str, Answer]:
    answer, shown = Answer(_decode, [STOP], stop), ""
    for token in [*text.encode(), *([STOP] if ends else [])]:
        if answer.done:
            break
        shown += answer.add(token)
    return shown + answer.rest(), answer


def _first_end(text: str, stop: list[str]) -> int:
    """Where the stop string begins that is whole first; of two, the one that begins first."""
    said = next((n for n in range(len(text)) if any(s in text[: n + 1] for s in stop)), None)
    if said is None:
        return len(text)
    return min(at for s in stop if (at := text[: said + 1].find(s)) >= 0)


@given(text=st.text(st.characters(exclude_characters="\0\ufffd", codec="utf-8"), max_size=30))
def test_pieces_joined_are_the_answer(text: str) -> None:
    shown, answer = _said(text)
    assert shown == answer.text == text.strip()
    assert answer.ended_by == STOP
    assert answer.words() == len(text.encode())


@example(text="baa", stop=["a", "baa"])  # the longer one never comes to its end
@given(
    text=st.text("ab é", max_size=20),
    stop=st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=3),
)
def test_an_answer_ends_before_its_first_stop_string(text: str, stop: list[str]) -> None:
    shown, answer = _said(text, tuple(stop))
    end = _first_end(text, stop)
    assert shown == answer.text == text[:end].strip()
    if end < len(text):
        assert answer.done
        assert answer.ended_by is None
        assert _decode(answer.ids[: answer.words()]) == text[:end]


def test_half_a_character_waits_for_the_rest() -> None:
    answer = Answer(_decode, [STOP])
    first, second = "é".encode()
    assert answer.add(first) == ""
    assert answer.add(second) == "é"


def test_an_answer_that_ends_in_half_a_character_keeps_it() -> None:
    answer = Answer(_decode, [STOP])
    assert answer.add("é".encode()[0]) == ""
    assert answer.rest() == "\ufffd"


def test_what_may_become_a_stop_string_is_held_back_and_given_when_it_does_not() -> None:
    answer = Answer(_decode, [STOP], ("END",))
    assert [answer.add(token) for token in b"aENb"] == ["a", "", "", "ENb"]


def test_blanks_that_a_decoder_closes_up_later_are_not_shown_before() -> None:
    def decode(ids: list[int]) -> str:
        return _decode(ids).replace(" n't", "n't")

    answer = Answer(decode, [STOP])
    shown = [answer.add(token) for token in b"do n't do no"]
    assert "".join(shown) + answer.rest() == "don't do no"


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Answer(_decode, [STOP], ("",))
