"""lm-evaluation-harness drives our models on text: ``python -m lightning_mono.harness.lm_eval``.

The command is lm-eval's own, with one more model, ``lightning_mono``. Its API is that of
lm-eval 0.4, ``lm_eval/api/model.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lightning_mono.data.render import Prompt
from lightning_mono.data.sample import Turn
from lightning_mono.errors import UserError
from lightning_mono.harness.requests import (
    Decoding,
    HarnessError,
    Scoring,
    cut,
    open_assistant,
    scores,
    whole_number,
)

try:
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import Collator
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as error:
    raise ImportError(f"{error}; pip install 'lightning-mono[lm-eval]'") from error

Pair = tuple[Any, list[int], list[int]]
"""A request, the ids of its context, and those of its continuation."""


@register_model("lightning_mono")
class LightningMono(TemplateLM):
    """A model of ours, as lm-eval asks it.

    Contexts and continuations are tokenized together and cut where the context's own tokens end;
    no special token is added, but a BOS (or else the token that ends an answer) where a context is
    empty. A context that is too long loses its beginning.

    Args:
        pretrained: a run folder, a model folder, a hub id, a packaged name or a GGUF file.
        batch_size: requests that are read at once.
        device: by default an accelerator where there is one.
        dtype: of the weights: float32 or bfloat16; by default that of the files.
        max_length: most tokens that are read; by default the model's.
        max_batch_size: what lm-eval hands on for ``batch_size=auto``, which is not supported.

    Raises:
        UserError: the model cannot be had, or a setting is not supported.
    """

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 8,
        device: str | None = None,
        dtype: str | None = None,
        max_length: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.assistant = open_assistant(pretrained, device, dtype)
        self.pretrained = pretrained
        self.batch_size = whole_number("batch_size", batch_size)
        self.words = self.assistant.renderer.tokenizer
        longest = self.assistant.model.config.decoder.max_positions
        self.max_length = whole_number("max_length", longest if max_length is None else max_length)
        self._device = self.assistant.model.device

    @property
    def eot_token_id(self) -> int:
        return self.assistant.renderer.answer_close_id

    @property
    def prefix_token_id(self) -> int:
        """BOS where the tokenizer has one, for what has no context."""
        named = self.assistant.files.settings.get("bos_token")
        word = named.get("content") if isinstance(named, dict) else named
        known = self.words.token_to_id(word) if word else None
        return self.eot_token_id if known is None else known

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        return self.words.encode(string, add_special_tokens=bool(add_special_tokens)).ids

    # -- likelihoods ------------------------------------------------------------------------

    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Scores in batches, the longest first; answers are in the order of the requests."""
        order = sorted(range(len(requests)), key=lambda i: -sum(map(len, requests[i][1:])))
        found: dict[int, tuple[float, bool]] = {}
        for start in range(0, len(order), self.batch_size):
            some = order[start : start + self.batch_size]
            rows = [self._row(requests[i]) for i in some]
            for i, score in zip(some, scores(self.assistant.model, rows), strict=True):
                found[i] = score
                if requests[i][0] is not None:
                    self.cache_hook.add_partial("loglikelihood", requests[i][0], score)
        return [found[i] for i in range(len(requests))]

    def _row(self, request: Pair) -> Scoring:
        _, context, continuation = request
        room = self.max_length + 1 - len(continuation)  # the last token is not read
        if not continuation or room < 1:
            raise HarnessError(
                f"a continuation has {len(continuation)} tokens, and the model reads from 1 to "
                f"{self.max_length}; set max_length, or leave the task out"
            )
        return Scoring(context[-room:], continuation)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Each text as a whole, in windows as long as the model reads; no token is told twice."""
        windows: list[Pair] = []
        owners = []
        for number, request in enumerate(requests):
            for context, said in get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            ):
                windows.append((None, *make_disjoint_window((context, said))))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, (score, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[number] += score
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    # -- words ------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continues contexts, in batches of equal settings."""
        asked = Collator(
            [request.args for request in requests],
            sort_fn=lambda args: -len(self.tok_encode(args[0])),
            group_fn=lambda args: args[1],
            group_by="gen_kwargs",
        )
        said = []
        for batch in asked.get_batched(n=self.batch_size):
            decoding = Decoding.of(batch[0][1])
            contexts = [context for context, _ in batch]
            for args, text in zip(batch, self._continued(contexts, decoding), strict=True):
                said.append(text)
                self.cache_hook.add_partial("generate_until", args, text)
        return asked.get_original(said)

    def _continued(self, contexts: Iterable[str], decoding: Decoding) -> list[str]:
        room = self.max_length - decoding.max_new_tokens
        if room < 1:
            raise HarnessError(
                f"{decoding.max_new_tokens} new tokens leave no room for a context: the model "
                f"reads {self.max_length}; set max_gen_toks"
            )
        none = np.zeros((0, 3, 1, 1), np.float32)
        ids = [self.tok_encode(context)[-room:] or [self.prefix_token_id] for context in contexts]
        answers = self.assistant.complete(
            [Prompt(np.array(row, np.int64), none) for row in ids],
            decoding.max_new_tokens,
            stop=decoding.until,
            **decoding.sampling,
        )
        return [cut(self.words.decode(answer.ids), decoding.until) for answer in answers]

    # -- chat -------------------------------------------------------------------------------

    @property
    def tokenizer_name(self) -> str:
        return self.pretrained.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The name of the model's template: the only one that it was trained with."""
        return self.assistant.chat if chat_template else None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Messages as the text that the model's own template makes of them.

        Raises:
            HarnessError: they are not questions and answers in turn, up to a question.
        """
        system = [message["content"] for message in chat_history[:1] if message["role"] == "system"]
        said = chat_history[len(system) :]
        asked, answered = said[::2], said[1::2]
        roles = {"user": asked, "assistant": answered}
        in_turn = all(m["role"] == role for role, messages in roles.items() for m in messages)
        if not (add_generation_prompt and in_turn and len(said) % 2):
            raise HarnessError("a chat is questions and answers in turn, and ends with a question")
        answers = [*(message["content"] for message in answered), None]
        turns = [
            Turn(question["content"], (), answer)
            for question, answer in zip(asked, answers, strict=True)
        ]
        prompt = self.assistant.renderer.conversation(turns, system=system[0] if system else None)
        return self.words.decode(prompt.input_ids.tolist(), skip_special_tokens=False)


def main() -> int:
    """lm-eval's command line."""
    try:
        cli_evaluate()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
