"""What beam search and contrastive search have in common: the way from a prompt to the end."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
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

    def __init__(self, runtime: Runtime, prompt_ids: Sequence[int], max_tokens: int) -> None:
        self._runtime = runtime
        self._prompt_ids = tuple(prompt_ids)
        self._asked_at = self._first_at = self._last_at = time.monotonic()
        self._limit = Limit(len(prompt_ids), runtime.facts.context_length, max_tokens)

    @abstractmethod
    def run(self, rows: Rows, prompt: Reading, cancelled: IsCancelled) -> Iterator[Any]:
        """Every step, and the end. `rows`: one row, which has read the prompt."""

    @abstractmethod
    def end(self, reason: str, words: str = "") -> Any:
        """The last event."""

    def events(
        self, sequence: KVSequence, cancelled: IsCancelled, *, states: bool = False
    ) -> Iterator[Any]:
        """`Progress` while the prompt is read, `PromptRead`, every step, and the end.

        `states`: whether the prompt's hidden states are wanted. Raises CannotFork: this model's
        state cannot be split into rows (an EngineError).
        """
        if self._limit.room <= 0:
            yield self.end(FinishReason.CONTEXT)
            return
        try:
            read = yield from prefill(sequence, self._prompt_ids, cancelled, states=states)
            if read is None:
                yield self.end(FinishReason.CANCELLED)
                return
            self._first_at = self._last_at = time.monotonic()
            waited = self._first_at - self._asked_at
            yield PromptRead(self._prompt_ids, read.cached_tokens, waited)
            with closing(sequence.rows()) as rows:
                yield from self.run(rows, read.reading, cancelled)
        except CannotFork:
            raise
        except (EngineError, RuntimeError, MemoryError) as error:
            yield self.end(FinishReason.ERROR, failure(error))


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
