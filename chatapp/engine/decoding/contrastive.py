"""Contrastive search: probable, but not like what was said before.

Source: Su et al. 2022, "A Contrastive Framework for Neural Text Generation", arXiv 2202.06417,
equation 5. Of the k most probable tokens v after the text x, the one is taken that has the largest

    (1 − α) · p(v | x) − α · max { cos(h_v, h_j) : j in x }

where h are the model's last hidden states (those its head reads: after the last norm), h_v that of
v read after x, and j runs over all of x, prompt and reply. Each step reads the k candidates as k
rows of one batch and keeps the row of the one taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import torch

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import Progress
from chatapp.chat.generation import PromptRead
from chatapp.chat.record import FinishReason
from chatapp.chat.search import (
    ContrastiveCandidate,
    ContrastiveEnd,
    ContrastiveEvent,
    ContrastiveOptions,
    ContrastiveStep,
)
from chatapp.engine.decoding.checks import check_logits
from chatapp.engine.decoding.ending import Limit, failure
from chatapp.engine.decoding.prefill import PREFILL_CHUNK
from chatapp.engine.decoding.reply_text import ReplyText
from chatapp.engine.runtimes.batch import BatchCache, NoRows
from chatapp.engine.runtimes.loader import LoadedModel


def contrastive_search(
    loaded: LoadedModel,
    prompt_ids: Sequence[int],
    options: ContrastiveOptions,
    *,
    end_ids: Sequence[int],
    cancelled: Callable[[], bool],
    stop: Sequence[str] = (),
    reply_ids: Sequence[int] = (),
) -> Iterator[ContrastiveEvent]:
    """Continue a prompt by contrastive search.

    Yields `Progress` while the prompt is read, `PromptRead`, a `ContrastiveStep` a token, and a
    `ContrastiveEnd`, which also tells of what went wrong in mid-search. The prompt is always read
    in whole: its hidden states are needed, and a KV cache doesn't hold them.

    Args:
        loaded: the model.
        prompt_ids: what to continue; at least one id.
        options: how to search.
        end_ids: the tokens that end a reply.
        cancelled: asked before every step.
        stop: stop sequences.
        reply_ids: the start of the reply that is there already; the prompt's last ids.

    Raises:
        NoRows: this model's cache cannot be split into candidates (an EngineError).
    """
    search = _ContrastiveSearch(loaded, tuple(prompt_ids), options, tuple(end_ids))
    text = ReplyText(loaded.tokenizer, end_ids, stop, reply_ids)
    with torch.inference_mode():
        if search.limit.room <= 0:
            yield search.end(FinishReason.CONTEXT)
            return
        try:
            logits = yield from search.read_prompt(cancelled)
            if logits is None:
                yield search.end(FinishReason.CANCELLED)
                return
            yield PromptRead(tuple(prompt_ids), 0, search.seconds)
            yield from search.run(logits, text, len(reply_ids), cancelled)
        except NoRows:
            raise
        except EngineError as error:
            yield search.end(FinishReason.ERROR, str(error))
        except (RuntimeError, MemoryError) as error:
            yield search.end(FinishReason.ERROR, failure(error))


@dataclass(frozen=True, slots=True)
class Weighed:
    """The candidates of one step, most probable first; all tensors (k,) float32 or int64."""

    penalties: torch.Tensor
    closest: torch.Tensor
    scores: torch.Tensor
    chosen: int


def weigh(
    probs: torch.Tensor, hidden: torch.Tensor, context: torch.Tensor, alpha: float
) -> Weighed:
    """Score the candidates of one step: equation 5.

    Args:
        probs: the candidates' model probabilities, (k,) float32.
        hidden: their hidden states, scaled to length 1, (k, d) float32.
        context: those of everything before them, scaled to length 1, (n, d) float32.
        alpha: how much the penalty counts.
    """
    nearest = (hidden @ context.T).max(dim=1)
    scores = (1 - alpha) * probs - alpha * nearest.values
    return Weighed(nearest.values, nearest.indices, scores, int(scores.argmax()))


class _ContrastiveSearch:
    """The text so far: its KV cache and its hidden states."""

    def __init__(
        self,
        loaded: LoadedModel,
        prompt_ids: tuple[int, ...],
        options: ContrastiveOptions,
        end_ids: tuple[int, ...],
    ) -> None:
        self._loaded = loaded
        self._prompt_ids = prompt_ids
        self._options = options
        self._batch = BatchCache(loaded)
        self._states = _States()
        self._count = 0
        self._asked_at = self._first_at = self._last_at = time.monotonic()
        self.limit = Limit(len(prompt_ids), loaded.facts.context_length, options.max_tokens)

    @property
    def seconds(self) -> float:
        """How long ago it was asked for."""
        return time.monotonic() - self._asked_at

    def read_prompt(
        self, cancelled: Callable[[], bool]
    ) -> Generator[Progress, None, torch.Tensor | None]:
        """Read the prompt, in pieces where the model allows it.

        Returns:
            The logits after it, (V,) float32; None when it was cancelled.
        """
        ids = self._prompt_ids
        size = len(ids) if self._loaded.recurrent else PREFILL_CHUNK
        for start in range(0, len(ids), size):
            reading = self._batch.read([ids[start : start + size]], hidden=True)
            self._batch.check_rows()
            self._states.append(_unit(reading.hidden[0]))
            yield Progress("reading the prompt", min(start + size, len(ids)), len(ids), "tokens")
            if cancelled():
                return None
        return reading.logits[0]

    def run(
        self,
        logits: torch.Tensor,
        text: ReplyText,
        start: int,
        cancelled: Callable[[], bool],
    ) -> Iterator[ContrastiveEvent]:
        """Search.

        Args:
            logits: after the prompt, (V,) float32.
            text: what the tokens become.
            start: the index of the first token.
            cancelled: asked before every step.
        """
        self._first_at = self._last_at = time.monotonic()
        row = 0
        ending: FinishReason | None = None
        while ending is None:
            if cancelled():
                ending = FinishReason.CANCELLED
                break
            check_logits(logits)
            best = torch.softmax(logits, dim=-1).topk(min(self._options.top_k, logits.numel()))
            ids: list[int] = best.indices.tolist()
            self._batch.select([row] * len(ids))
            reading = self._batch.read([[token_id] for token_id in ids], hidden=True)
            hidden = _unit(reading.hidden[:, -1])
            found = weigh(best.values, hidden, self._states.all(), self._options.penalty_alpha)
            row = found.chosen
            self._states.append(hidden[row : row + 1])
            logits = reading.logits[row]
            self._count += 1
            at_limit = self._count == self.limit.longest
            printed = text.push(ids[row], self.limit.reason if at_limit else None)
            ending = printed.ending
            self._last_at = time.monotonic()
            candidates = self._describe(ids, best.values, found)
            yield ContrastiveStep(start + self._count - 1, candidates, row, printed.text)
        yield self.end(ending)

    def end(self, reason: FinishReason, words: str = "") -> ContrastiveEnd:
        """The last event, with the time so far."""
        if reason is FinishReason.CONTEXT:
            words = self.limit.words(self._count)
        return ContrastiveEnd(reason, self._last_at - self._first_at, words)

    def _describe(
        self, ids: Sequence[int], probs: torch.Tensor, found: Weighed
    ) -> tuple[ContrastiveCandidate, ...]:
        columns = (probs, found.penalties, found.closest, found.scores)
        return tuple(
            ContrastiveCandidate(self._loaded.tokenizer.piece(token_id), *values)
            for token_id, *values in zip(ids, *(column.tolist() for column in columns), strict=True)
        )


class _States:
    """Hidden states as one tensor that grows without being copied at every step."""

    def __init__(self) -> None:
        self._buffer = torch.empty((0, 0))
        self._length = 0

    def append(self, states: torch.Tensor) -> None:
        """Add some, (n, d) float32."""
        length = self._length + states.shape[0]
        if length > self._buffer.shape[0]:
            grown = states.new_empty((max(2 * length, PREFILL_CHUNK), states.shape[1]))
            if self._length:
                grown[: self._length] = self._buffer[: self._length]
            self._buffer = grown
        self._buffer[self._length : length] = states
        self._length = length

    def all(self) -> torch.Tensor:
        """All of them, (n, d) float32."""
        return self._buffer[: self._length]


def _unit(states: torch.Tensor) -> torch.Tensor:
    """Vectors scaled to length 1, so that a dot product is their cosine; (n, d) float32."""
    return torch.nn.functional.normalize(states, dim=-1)
