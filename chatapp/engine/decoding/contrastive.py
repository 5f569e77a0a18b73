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
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chatapp.chat.facts import IsCancelled
from chatapp.chat.record import FinishReason
from chatapp.chat.search import (
    ContrastiveCandidate,
    ContrastiveEnd,
    ContrastiveEvent,
    ContrastiveOptions,
    ContrastiveStep,
)
from chatapp.engine.decoding.reply import Growing
from chatapp.engine.decoding.reply_text import ReplyText
from chatapp.engine.decoding.searching import Search, check_logits, log_softmax
from chatapp.engine.runtimes.base import Floats, Reading, Rows, Runtime


@dataclass(frozen=True, slots=True)
class Weighed:
    """The candidates of one step, most probable first."""

    penalties: Floats
    """(k,): how like what came before each is."""
    closest: npt.NDArray[np.int64]
    """(k,): the place of what it is most like."""
    scores: Floats
    """(k,)."""
    chosen: int


def weigh(probs: Floats, hidden: Floats, context: Floats, alpha: float) -> Weighed:
    """Score the candidates of one step: equation 5.

    Args:
        probs: the candidates' model probabilities, (k,).
        hidden: their hidden states, scaled to length 1, (k, d).
        context: those of everything before them, scaled to length 1, (n, d).
    """
    likeness = hidden @ context.T
    closest = likeness.argmax(axis=1)
    penalties = likeness[np.arange(len(hidden)), closest]
    scores = np.float32(1 - alpha) * probs - np.float32(alpha) * penalties
    return Weighed(penalties, closest, scores, int(scores.argmax()))


class ContrastiveSearch(Search):
    """What is found, and the hidden states of all that was read.

    `events` yields a `ContrastiveStep` a token. It needs an empty sequence: the prompt's hidden
    states are needed, and no sequence keeps them.
    """

    states = True

    def __init__(
        self,
        runtime: Runtime,
        prompt_ids: Sequence[int],
        options: ContrastiveOptions,
        *,
        end_ids: Sequence[int],
        cancelled: IsCancelled,
        stop: Sequence[str] = (),
        reply_ids: Sequence[int] = (),
    ) -> None:
        """`reply_ids`: the start of the reply that is there already; the prompt's last ids."""
        super().__init__(runtime, prompt_ids, options.max_tokens, cancelled)
        self._options = options
        self._text = ReplyText(runtime.tokenizer, end_ids, stop, reply_ids)
        self._start = len(reply_ids)

    def steps(self, rows: Rows, prompt: Reading) -> Generator[ContrastiveEvent, None, str]:
        states = Growing(_unit(prompt.states))
        logits, row = prompt.logits[-1], 0
        for count in range(1, self.limit.longest + 1):
            if self.cancelled():
                break
            check_logits(logits)
            best = np.argsort(-logits, kind="stable")[: self._options.top_k]
            ids: list[int] = best.tolist()
            probs = np.exp(log_softmax(logits)[best])
            rows.select([row] * len(ids))
            reading = rows.read(ids, states=True)
            hidden = _unit(reading.states)
            found = weigh(probs, hidden, states.array(), self._options.penalty_alpha)
            row = found.chosen
            states.append(hidden[row])
            logits = reading.logits[row]
            last = self.limit.reason if count == self.limit.longest else None
            printed = self._text.push(ids[row], last)
            self.last_at = time.monotonic()
            candidates = self._describe(ids, probs, found)
            yield ContrastiveStep(self._start + count - 1, candidates, row, printed.text)
            if printed.ending is not None:
                return printed.ending
        return FinishReason.CANCELLED

    def end(self, reason: str, seconds: float, words: str) -> ContrastiveEnd:
        return ContrastiveEnd(FinishReason(reason), seconds, words)

    def _describe(
        self, ids: Sequence[int], probs: Floats, found: Weighed
    ) -> tuple[ContrastiveCandidate, ...]:
        columns = (probs, found.penalties, found.closest, found.scores)
        return tuple(
            ContrastiveCandidate(self.runtime.tokenizer.piece(token_id), *values)
            for token_id, *values in zip(ids, *(column.tolist() for column in columns), strict=True)
        )


def _unit(states: Floats) -> Floats:
    """Vectors scaled to length 1, so that a dot product is their cosine; (n, d)."""
    unit: Floats = states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12)
    return unit
