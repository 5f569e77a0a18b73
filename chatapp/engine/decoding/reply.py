"""One reply as it is written: its draws, its text, its records, and whether it is over.

What is here needs no model: logits come in, a token with its record comes out. So one reply at a
time (`decode`), several side by side (`several`) and a paused reply that looks ahead all take their
tokens in the same way.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from chatapp.chat.generation import GenerateOptions, GenerationEnd, TokenStep
from chatapp.chat.record import FinishReason, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.ending import Limit, untaken
from chatapp.engine.decoding.reply_text import ReplyText
from chatapp.engine.runtimes.base import Floats, Runtime
from chatapp.engine.sampler.alive import Alive
from chatapp.engine.sampler.chain import ChainState, Snapshot, StepContext, draw, run_chain
from chatapp.engine.sampler.lookup import Lookup
from chatapp.engine.sampler.record import look_up_leaders, make_record
from chatapp.engine.sampler.trace import trace_tokens
from chatapp.engine.sampler.vocabulary import NO_VOCABULARY, Vocabulary


@dataclass(frozen=True, slots=True)
class Task:
    """One reply to write, as ids."""

    prompt_ids: tuple[int, ...]
    options: GenerateOptions
    end_ids: tuple[int, ...]
    """All ids that end this reply: the model's, and those the format asks for."""
    stop: tuple[str, ...] = ()
    """All stop sequences: the user's, the template's, the format's."""
    reply_ids: tuple[int, ...] = ()
    """The start of the reply that is there already; the prompt's last ids."""
    reply_text: str | None = None
    """What of it has been printed; None is all of it."""
    vocabulary: Vocabulary = NO_VOCABULARY


class Reply:
    """The state of one reply under way."""

    def __init__(self, runtime: Runtime, task: Task) -> None:
        """The times that `end` tells count from here."""
        self._task = task
        self._limit = Limit(
            len(task.prompt_ids), runtime.facts.context_length, task.options.max_tokens
        )
        self._token_bytes = runtime.tokenizer.token_bytes
        self._text = ReplyText(
            runtime.tokenizer, task.end_ids, task.stop, task.reply_ids, task.reply_text
        )
        self._state = ChainState(task.options.seed)
        self._end_ids = np.array(task.end_ids, dtype=np.int64)
        self._ids = Growing(np.array(task.prompt_ids, dtype=np.int64))
        self._used: SamplingParams | None = None
        self._held_seconds = 0.0
        self._asked_at = self._now()
        self._first_at = self._last_at = 0.0
        self.count = 0
        """How many tokens this request took."""
        self.weighed: Alive | None = None
        """The model's logits that the last token was taken from."""
        self.finished: FinishReason | None = None
        """Why it is over, once it is."""
        if self._limit.room <= 0:
            self.finished = FinishReason.CONTEXT

    @property
    def seconds(self) -> float:
        """How long it has been at work since it was asked for."""
        return self._now() - self._asked_at

    def wait(self, seconds: float) -> None:
        """It was held for so long, which is no time of its own."""
        self._held_seconds += seconds

    def _now(self) -> float:
        return time.monotonic() - self._held_seconds

    @property
    def forced(self) -> int | None:
        """The token that the request itself demands next, if any."""
        ids = self._task.options.forced_ids
        return ids[self.count] if self.count < len(ids) else None

    @property
    def state(self) -> Snapshot:
        """The chain's state before the next token."""
        return self._state.snapshot()

    def look(self, logits: Floats, sampling: SamplingParams) -> TokenRecord:
        """What the next step would weigh, told for its most probable token; nothing is taken."""
        # A copy of the state: looking ahead must not use up the numbers of the real draw.
        state = ChainState.restore(self._state.snapshot())
        outcome = run_chain(logits, sampling, self._context(sampling), state)
        first = outcome.final.first()
        lookup = look_up_leaders(outcome, self._task.options.top_logprobs, first)
        return self._record(lookup, first, text="", uniform=None)

    def take(
        self, logits: Floats, sampling: SamplingParams, forced: int | None = None
    ) -> TokenStep:
        """Take one token; `finished` tells whether it is the last.

        `forced`: the token to take instead of drawing one. Raises EngineError: the logits, or the
        user's own bans, leave no token to take.
        """
        outcome = run_chain(logits, sampling, self._context(sampling), self._state)
        if forced is None:
            drawn = draw(outcome, self._state)
            token_id, uniform = drawn.id, drawn.uniform
        else:
            token_id, uniform = forced, None
        self._state.observe(outcome, token_id)
        self.weighed = outcome.model
        self._ids.append(token_id)
        last = self.count + 1 >= self._limit.longest
        printed = self._text.push(token_id, self._limit.reason if last else None)
        lookup = look_up_leaders(outcome, self._task.options.top_logprobs, token_id)
        record = self._record(lookup, token_id, printed.text, uniform)
        self.count += 1
        self.finished = printed.ending
        self._last_at = self._now()
        self._first_at = self._first_at or self._last_at
        changed = sampling if sampling != self._used else None
        self._used = sampling
        trace = trace_tokens(lookup) if self._task.options.trace else None
        return TokenStep(record, changed, trace)

    def end(
        self, reason: FinishReason | None = None, words: str = "", chosen: int = 0
    ) -> GenerationEnd:
        """The last event, with the times so far.

        Args:
            reason: why it is over where that isn't for the reply to know: cancelled, failed.
            words: what happened and what to do.
            chosen: how many tokens the user chose while it was held, that it has not taken.
        """
        if reason is None:
            reason = self.finished
            assert reason is not None  # a reply that isn't over is ended for a reason
            left = chosen + max(len(self._task.options.forced_ids) - self.count, 0)
            words = untaken(reason, left)
            if reason is FinishReason.CONTEXT:
                words = "; ".join(filter(None, (self._limit.words(self.count), words)))
            if reason in (FinishReason.LENGTH, FinishReason.CONTEXT) and self._is_incomplete():
                cut = "the reply is cut before what it is held to lets it end"
                words = "; ".join(filter(None, (words, cut)))
        waited = self._first_at - self._asked_at if self._first_at else 0.0
        return GenerationEnd(reason, self._last_at - self._first_at, waited, words)

    def _is_incomplete(self) -> bool:
        """Whether its grammar wants more of it."""
        if self._used is None or not self._used.grammar:
            return False
        now = self._context(self._used)
        where = (now.ids, now.prompt_length, now.end_ids)
        return not now.vocabulary.allowed(self._used.grammar, *where)[now.end_ids].any()

    def _context(self, sampling: SamplingParams) -> StepContext:
        return StepContext(
            ids=self._ids.array(),
            prompt_length=len(self._task.prompt_ids) - len(self._task.reply_ids),
            end_ids=self._end_ids,
            vocabulary=self._task.vocabulary,
        )

    def _record(
        self, lookup: Lookup, token_id: int, text: str, uniform: float | None
    ) -> TokenRecord:
        return make_record(
            lookup,
            token_id,
            index=len(self._task.reply_ids) + self.count,
            end_ids=self._end_ids,
            token_bytes=self._token_bytes,
            text=text,
            draw=uniform,
        )


class Growing:
    """An array that grows along its first axis without being copied at every step."""

    def __init__(self, start: npt.NDArray[Any]) -> None:
        self._buffer = start
        self._length = len(start)

    def append(self, row: npt.ArrayLike) -> None:
        if self._length == len(self._buffer):
            more = max(self._length, 256)
            spare = np.empty((more, *self._buffer.shape[1:]), dtype=self._buffer.dtype)
            self._buffer = np.concatenate((self._buffer, spare))
        self._buffer[self._length] = row
        self._length += 1

    def array(self) -> npt.NDArray[Any]:
        """All of it; a view that the next append does not change."""
        return self._buffer[: self._length]
