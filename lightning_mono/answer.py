"""An answer as it grows: token ids in, text out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

# InternLM2's decoder closes up the blank before these once they are whole: "do n't", " 's".
_LOOSE = ("n", "n'", "'", "'v", "'r")


class Answer:
    """Decodes the ids of one answer, up to its end.

    Attributes:
        ids: the answer's tokens, without what ended it.
        ended_by: the stop id that ended it, or None.
        done: whether it has ended.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        stop_ids: Collection[int],
        stop: Sequence[str] = (),
    ) -> None:
        """Begins empty.

        Args:
            decode: ids to text.
            stop_ids: ids that end an answer.
            stop: strings that end an answer; neither they nor what follows belongs to it.
        """
        if any(not text for text in stop):
            raise ValueError("a stop string is empty")
        self.ids: list[int] = []
        self.ended_by: int | None = None
        self.done = False
        self._decode, self._stop_ids, self._stop = decode, frozenset(stop_ids), tuple(stop)
        self._whole = ""
        self._shown = 0

    @property
    def text(self) -> str:
        """All of it so far."""
        return self._whole[: self._end(self._whole)].strip()

    def add(self, token: int) -> str:
        """Takes the next id; returns what of the text can be shown now.

        Half of a character, trailing blanks and what may become a stop string are held back until
        the next token; :meth:`rest` gives what is left.
        """
        if token in self._stop_ids:
            self.ended_by, self.done = token, True
            return ""
        self.ids.append(token)
        self._whole = self._decode(self.ids)
        if self._end(self._whole) < len(self._whole):
            self.done = True
            return ""
        if self._whole.endswith("\ufffd"):
            return ""
        return self._show(self._whole[: len(self._whole) - self._held()].strip())

    def rest(self) -> str:
        """What was held back of an answer that is over."""
        return self._show(self.text)

    def words(self) -> int:
        """How many of the ids lie before the stop string that ended it; all, where none did."""
        end = self._end(self._whole)
        if end == len(self._whole):
            return len(self.ids)
        kept = len(self.ids)
        while kept and len(self._decode(self.ids[:kept])) > end:
            kept -= 1
        return kept

    def _show(self, text: str) -> str:
        piece, self._shown = text[self._shown :], max(self._shown, len(text))
        return piece

    def _end(self, text: str) -> int:
        return min((at for stop in self._stop if (at := text.find(stop)) >= 0), default=len(text))

    def _held(self) -> int:
        """Characters at the end that may yet change: a stop string's beginning, or `_LOOSE`."""
        _, space, word = self._whole.rpartition(" ")
        if space and word in _LOOSE:
            return len(word) + 1
        for length in range(max(map(len, self._stop), default=1) - 1, 0, -1):
            tail = self._whole[-length:]
            if any(stop.startswith(tail) for stop in self._stop):
                return length
        return 0
