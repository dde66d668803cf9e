"""A conversation of several turns: what was read once is never read again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lightning_mono.data.sample import Turn

if TYPE_CHECKING:
    from lightning_mono.inference import Assistant, Picture


class Conversation:
    """Questions and answers that follow upon each other; pictures may come in any turn.

    The keys and values of earlier turns stay in the model's cache. A turn costs what is new in it.
    """

    def __init__(self, assistant: Assistant, *, system: str | None = None) -> None:
        self._assistant = assistant
        self._system = system
        self._session = assistant.model.session()
        self._closed = True
        self._turns = 0

    def ask(
        self,
        question: str,
        images: Sequence[Picture] = (),
        *,
        max_new_tokens: int = 256,
        stop: Sequence[str] = (),
        **sampling: Any,
    ) -> Iterator[str]:
        """Yields the answer piece by piece; pieces joined are the whole answer.

        A question that holds ``<image>`` shows its pictures there, otherwise they come first.

        Args:
            images: pictures of this turn.
            max_new_tokens: at most so many tokens.
            stop: the answer ends before the first of these strings.
            sampling: temperature, top_p, top_k, repetition_penalty and seed of
                ``MonoModel.generate``.

        Raises:
            DataError: a picture cannot be read, or pictures and ``<image>`` do not match.
        """
        renderer = self._assistant.renderer
        turn = Turn(question, tuple(images))
        if self._turns:
            prompt = renderer.follow_up(turn, closed=self._closed)
        else:
            prompt = renderer.conversation([turn], system=self._system)
        inputs = self._assistant.inputs([prompt])
        answer = self._assistant.new_answer(stop)
        self._turns, self._closed = self._turns + 1, False
        said = 0
        try:
            for step in self._session.stream(
                **inputs,
                max_new_tokens=max_new_tokens,
                stop_ids=renderer.stop_ids,
                **sampling,
            ):
                said += 1
                yield answer.add(int(step[0]))
                if answer.done:
                    break
            yield answer.rest()
        finally:
            # What the next turn stands behind: the answer's own words, and its closing token
            # where the model said it.
            self._closed = answer.ended_by == renderer.answer_close_id
            forget = said - answer.words() - (1 if self._closed else 0)
            if forget:
                self._session.rewind(forget)
