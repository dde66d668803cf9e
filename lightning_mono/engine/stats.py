"""What an engine is doing and has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineStats:
    """Counts of an engine since it was made, and what it holds now.

    Attributes:
        running: requests that get a token at every step.
        reading: requests whose prompt is being read.
        waiting: requests that have no slot yet.
        finished: requests that got all of their answer.
        cancelled: requests that were given up by whoever asked.
        failed: requests that ended in an error.
        prompt_tokens: tokens of prompts that were read, those found in the prefix cache included.
        cached_tokens: how many of them were found there.
        new_tokens: tokens of answers.
        passes: pieces of prompts that were computed.
        steps: steps in which all running requests got a token.
        slot_bytes: keys and values of the slots; allocated once.
        prefix_bytes: keys and values of the prefix cache.
        prefix_pieces: how many pieces these are.
    """

    running: int
    reading: int
    waiting: int
    finished: int
    cancelled: int
    failed: int
    prompt_tokens: int
    cached_tokens: int
    new_tokens: int
    passes: int
    steps: int
    slot_bytes: int
    prefix_bytes: int
    prefix_pieces: int
