"""What beam search and contrastive search have in common: the way from a prompt to the end."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import IsCancelled
from chatapp.chat.generation import PromptRead
from chatapp.chat.record import FinishReason
from chatapp.engine.decoding.ending import Limit, failure
from chatapp.engine.decoding.prefill import prefill
from chatapp.engine.runtimes.base import CannotFork, Floats, KVSequence, Reading, Rows, Runtime
from chatapp.engine.sampler.chain import BadLogits


class Search(ABC):
    """One search; whatever goes wrong in the middle of it is told by its last event."""

    states = False
    """Whether the prompt's hidden states are wanted."""

    def __init__(
        self, runtime: Runtime, prompt_ids: Sequence[int], max_tokens: int, cancelled: IsCancelled
    ) -> None:
        """`prompt_ids`: at least one."""
        self.runtime = runtime
        self.cancelled = cancelled
        self.limit = Limit(len(prompt_ids), runtime.facts.context_length, max_tokens)
        self._prompt_ids = tuple(prompt_ids)
        self._asked_at = self._first_at = self.last_at = time.monotonic()
        """`last_at`: when the last step was done."""

    @abstractmethod
    def steps(self, rows: Rows, prompt: Reading) -> Generator[Any, None, str]:
        """Every step; returns why there are no more. `rows`: one row, which has read the prompt."""

    @abstractmethod
    def end(self, reason: str, seconds: float, words: str) -> Any:
        """The last event."""

    def events(self, sequence: KVSequence) -> Iterator[Any]:
        """`Progress` while the prompt is read, `PromptRead`, every step, and the end.

        `sequence`: holds the prompt afterwards, and may hold some of it before. Raises CannotFork:
        this model's state cannot be split into rows (an EngineError).
        """
        reason, words = str(FinishReason.CANCELLED), ""
        try:
            if self.limit.room <= 0:
                reason = FinishReason.CONTEXT
            elif read := (
                yield from prefill(sequence, self._prompt_ids, self.cancelled, states=self.states)
            ):
                self._first_at = self.last_at = time.monotonic()
                waited = self._first_at - self._asked_at
                yield PromptRead(self._prompt_ids, read.cached_tokens, waited)
                with closing(sequence.rows()) as rows:
                    reason = yield from self.steps(rows, read.reading)
            if reason == FinishReason.CONTEXT:
                words = self.limit.words(self.limit.longest)
        except CannotFork:
            raise
        except (EngineError, RuntimeError, MemoryError) as error:
            reason, words = FinishReason.ERROR, failure(error)
        yield self.end(reason, self.last_at - self._first_at, words)


def check_logits(logits: Floats) -> None:
    """See that every row of (V,) or (rows, V) logits makes a distribution; -inf is allowed.

    Raises BadLogits: NaN, +inf, or nothing but -inf.
    """
    if not np.isfinite(logits.max(axis=-1)).all():  # the largest is NaN where any is
        raise BadLogits(
            "the model's logits make no distribution (NaN or infinite); load it with"
            " --dtype float32 or check its file with `chatapp models info`"
        )


def log_softmax(logits: Floats) -> Floats:
    """ln p of every token, in float32 as transformers has it; of the shape of the logits."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    total = np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)
    logprobs: Floats = shifted - np.log(total).astype(np.float32)
    return logprobs
