"""lmms-eval drives our models on pictures: ``lmms-eval --model lightning_mono``.

An entry point of the group ``lmms_eval.models`` makes the model known. It is a *simple* model, one
that gets a task's text and pictures; its API is that of lmms-eval 0.7, ``lmms_eval/api/model.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from PIL import Image

from lightning_mono.data.sample import Exchange
from lightning_mono.harness.requests import (
    Decoding,
    HarnessError,
    Scoring,
    open_assistant,
    scores,
    whole_number,
)

try:
    from lmms_eval.api.instance import Instance
    from lmms_eval.api.model import lmms
except ImportError as error:
    raise ImportError(f"{error}; pip install 'lightning-mono[lmms-eval]'") from error

T = TypeVar("T")


class LightningMono(lmms):
    """A model of ours, as lmms-eval asks it.

    A request is a question with its pictures, written in the model's own chat template: pictures in
    front, or where ``<image>`` stands in the text.

    Args:
        pretrained: a run folder, a model folder or a hub id.
        batch_size: requests that are read at once.
        device: by default an accelerator where there is one.
        dtype: of the weights: float32 or bfloat16; by default that of the files.
        max_batch_size: what lmms-eval hands on for ``batch_size=auto``, which is not supported.

    Raises:
        UserError: the model cannot be had, or a setting is not supported.
    """

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 8,
        device: str | None = None,
        dtype: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.assistant = open_assistant(pretrained, device, dtype)
        self.batch_size = whole_number("batch_size", batch_size)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answers questions greedily, or as the task's ``generation_kwargs`` say."""
        found: dict[int, str] = {}
        numbered = list(enumerate(request.args for request in requests))
        alike: dict[str, list[tuple[int, Any]]] = {}
        for number, args in numbered:
            alike.setdefault(repr(sorted(args[1].items())), []).append((number, args))
        for group in alike.values():
            decoding = Decoding.of(group[0][1][1])
            for batch in _batches(group, self.batch_size):
                answers = self.assistant.answer(
                    [(self._pictures(args), args[0]) for _, args in batch],
                    decoding.max_new_tokens,
                    stop=decoding.until,
                    **decoding.sampling,
                )
                found.update(zip((number for number, _ in batch), answers, strict=True))
        return [found[number] for number in range(len(requests))]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """How likely each answer is, and whether it is what the model would say.

        An answer is written as the chat template writes one; what ends it is not scored.
        """
        found = []
        for batch in _batches([request.args for request in requests], self.batch_size):
            found += scores(self.assistant.model, [self._scoring(args) for args in batch])
        return found

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise HarnessError("tasks of several rounds are not supported: leave them out")

    def _scoring(self, args: Sequence[Any]) -> Scoring:
        context, target, _, number, task, split = args
        said = target if isinstance(target, str) else target(self.task_dict[task][split][number])
        renderer, pictures = self.assistant.renderer, self._pictures(args)
        prompt = renderer.prompt(context, pictures)
        # The same with the answer, and one more question, so that the answer ends.
        told = renderer.prompt("", pictures, history=[Exchange(context, said)]).input_ids.tolist()
        behind = told[len(prompt.input_ids) :]
        answer = behind[: behind.index(renderer.answer_close_id)]
        tiles = torch.from_numpy(prompt.pixel_values) if len(prompt.pixel_values) else None
        return Scoring(prompt.input_ids.tolist(), answer, tiles)

    def _pictures(self, args: Sequence[Any]) -> list[Image.Image]:
        """The pictures of a request.

        Raises:
            HarnessError: it has something else, such as a video.
        """
        *_, look, number, task, split = args
        found = look(self.task_dict[task][split][number]) or []
        if not all(isinstance(visual, Image.Image) for visual in found):
            raise HarnessError(f"task {task}, document {number}: only pictures are supported")
        return [visual.convert("RGB") for visual in found]


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
