"""The loop: prefill, then predict, sample, append, one token a step.

One sampling path serves the first token and every later one. The sampling parameters are read once
at the top of every step, so a change made while a reply runs holds for the very next token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import torch

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import Progress
from chatapp.chat.generation import (
    GenerateOptions,
    GenerationEnd,
    GenerationEvent,
    Paused,
    PromptRead,
    TokenStep,
)
from chatapp.chat.record import FinishReason, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.cache import PrefixCache
from chatapp.engine.controls import Controls
from chatapp.engine.detokenize import Detokenizer, StopSequences
from chatapp.engine.loader import LoadedModel
from chatapp.engine.sampler.chain import ChainState, Outcome, StepContext, draw, run_chain
from chatapp.engine.sampler.record import make_record

PREFILL_CHUNK = 256
"""Tokens read at once: progress and cancelling come between chunks."""


@dataclass(frozen=True, slots=True)
class Task:
    """One reply to write, as ids."""

    prompt_ids: tuple[int, ...]
    options: GenerateOptions
    end_ids: tuple[int, ...]
    """All ids that end this reply: the model's, and those the format asks for."""
    stop: tuple[str, ...] = ()
    """All stop sequences: the person's, the template's, the format's."""
    reply_ids: tuple[int, ...] = ()
    """The start of the reply that is there already; the prompt's last ids."""
    dry_breakers: Callable[[], frozenset[int]] = frozenset
    """The ids at which DRY stops looking back; asked for only while DRY is on."""


def generate(
    loaded: LoadedModel, cache: PrefixCache, task: Task, controls: Controls
) -> Iterator[GenerationEvent]:
    """Write one reply.

    Yields `Progress` while the prompt is read, then `PromptRead`, a `TokenStep` for each token and
    a `GenerationEnd`. Nothing is raised for what can go wrong in a step: the end says it, and what
    came before stands.
    """
    reply = _Reply(loaded, cache, task, controls)
    with torch.inference_mode():
        try:
            yield from reply.run()
        except EngineError as error:
            yield reply.end(FinishReason.ERROR, str(error))
        except (RuntimeError, MemoryError) as error:
            cache.clear()
            words = str(error).strip().split("\n", 1)[0][:200] or type(error).__name__
            yield reply.end(FinishReason.ERROR, f"the model failed in mid-reply: {words}")


class _Reply:
    """The state of one reply under way."""

    def __init__(
        self, loaded: LoadedModel, cache: PrefixCache, task: Task, controls: Controls
    ) -> None:
        self._cache = cache
        self._task = task
        self._controls = controls
        self._context_length = loaded.facts.context_length
        self._tokenizer = loaded.tokenizer
        self._detokenizer = Detokenizer(loaded.tokenizer)
        self._stops = StopSequences(task.stop)
        for token_id in task.reply_ids:  # an unfinished character goes on where it was cut
            self._stops.push(self._detokenizer.push(token_id))
        self._state = ChainState(task.options.seed)
        self._end_ids = torch.tensor(task.end_ids, dtype=torch.int64)
        self._ids = _Ids(task.prompt_ids)
        self._asked_at = time.monotonic()
        self._first_at = self._last_at = 0.0

    def run(self) -> Iterator[GenerationEvent]:
        """The whole reply: prefill, then decode until something ends it."""
        prompt_ids = self._task.prompt_ids
        room = self._context_length - len(prompt_ids)
        if room <= 0:
            yield self.end(FinishReason.CONTEXT, self._no_room())
            return
        cached = self._cache.reuse(prompt_ids)
        unread = prompt_ids[cached:]
        size = PREFILL_CHUNK if self._cache.chunkable else len(unread)
        for start in range(0, len(unread), size):
            logits = self._cache.read(unread[start : start + size])
            yield Progress("reading the prompt", len(self._cache.ids), len(prompt_ids), "tokens")
            if self._controls.cancelled:
                yield self.end(FinishReason.CANCELLED)
                return
        yield PromptRead(prompt_ids, cached, time.monotonic() - self._asked_at)
        yield from self._decode(logits, room)

    def end(self, reason: FinishReason, words: str = "") -> GenerationEnd:
        """The last event, with the times so far."""
        waited = self._first_at - self._asked_at if self._first_at else 0.0
        return GenerationEnd(reason, self._last_at - self._first_at, waited, words)

    def _decode(self, logits: torch.Tensor, room: int) -> Iterator[GenerationEvent]:
        """Sample, append, predict."""
        longest = min(self._task.options.max_tokens or room, room)
        at_limit = FinishReason.CONTEXT if longest == room else FinishReason.LENGTH
        used: SamplingParams | None = None
        for number in range(longest):
            forced = yield from self._wait_for_leave(logits, number)
            if self._controls.cancelled:
                yield self.end(FinishReason.CANCELLED)
                return
            sampling = self._controls.sampling
            ending = at_limit if number == longest - 1 else None
            record, ending = self._step(logits, number, sampling, forced, ending)
            self._last_at = time.monotonic()
            self._first_at = self._first_at or self._last_at
            yield TokenStep(record, sampling if sampling != used else None)
            used = sampling
            if ending is not None:
                words = self._no_room() if ending is FinishReason.CONTEXT else ""
                yield self.end(ending, words)
                return
            logits = self._cache.read((record.id,))

    def _wait_for_leave(
        self, logits: torch.Tensor, number: int
    ) -> Generator[GenerationEvent, None, int | None]:
        """While paused, show what could come next; return the token the person chose, if any."""
        forced = self._task.options.forced_ids
        if number < len(forced):
            return forced[number]
        while (leave := self._controls.leave()) is None:
            sampling = self._controls.sampling
            # A copy of the state: looking ahead must not use up the numbers of the real draw.
            state = ChainState.restore(self._state.snapshot())
            outcome = run_chain(logits, sampling, self._context(sampling), state)
            best = outcome.final.first()
            yield Paused(self._record(outcome, best, number, sampling, text="", uniform=None))
            self._controls.hold(sampling)
            if self._controls.cancelled:
                return None
        return leave.token_id

    def _step(
        self,
        logits: torch.Tensor,
        number: int,
        sampling: SamplingParams,
        forced: int | None,
        ending: FinishReason | None,
    ) -> tuple[TokenRecord, FinishReason | None]:
        """Take one token.

        Args:
            logits: (V,) float32.
            number: how many tokens this request took before.
            sampling: what to draw with.
            forced: the token to take instead of drawing one.
            ending: why this token is the last in any case, if it is.
        """
        outcome = run_chain(logits, sampling, self._context(sampling), self._state)
        if forced is None:
            drawn = draw(outcome, self._state)
            token_id, uniform = drawn.id, drawn.uniform
        else:
            token_id, uniform = forced, None
        self._state.observe(outcome, token_id)
        self._ids.append(token_id)
        text, ending = self._text_of(token_id, ending)
        return self._record(outcome, token_id, number, sampling, text, uniform), ending

    def _context(self, sampling: SamplingParams) -> StepContext:
        return StepContext(
            ids=self._ids.tensor(),
            prompt_length=len(self._task.prompt_ids) - len(self._task.reply_ids),
            end_ids=self._end_ids,
            dry_breakers=self._task.dry_breakers() if sampling.dry_multiplier else frozenset(),
        )

    def _record(
        self,
        outcome: Outcome,
        token_id: int,
        number: int,
        sampling: SamplingParams,
        text: str,
        uniform: float | None,
    ) -> TokenRecord:
        return make_record(
            outcome,
            token_id,
            index=len(self._task.reply_ids) + number,
            top_logprobs=self._task.options.top_logprobs,
            end_ids=self._end_ids,
            temperature=sampling.temperature,
            token_bytes=self._tokenizer.token_bytes,
            text=text,
            draw=uniform,
        )

    def _text_of(
        self, token_id: int, ending: FinishReason | None
    ) -> tuple[str, FinishReason | None]:
        """What becomes printable with a token, and whether the reply ends with it."""
        text = ""
        if token_id in self._task.end_ids:
            ending = FinishReason.STOP
        else:
            text, matched = self._stops.push(self._detokenizer.push(token_id))
            if matched:
                return text, FinishReason.STOP_SEQUENCE
        if ending is not None:
            # What was held back for a stop sequence or an unfinished character comes out now.
            rest, _ = self._stops.push(self._detokenizer.flush())
            text += rest + self._stops.flush()
        return text, ending

    def _no_room(self) -> str:
        return (
            f"the context is full: {len(self._ids)} of {self._context_length} tokens; "
            "start a new chat, branch from an earlier message, or shorten what is there"
        )


class _Ids:
    """Prompt and reply as one tensor that grows without being copied at every step."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._length = len(ids)
        self._buffer = torch.empty(max(2 * len(ids), 256), dtype=torch.int64)
        self._buffer[: len(ids)] = torch.tensor(ids, dtype=torch.int64)

    def __len__(self) -> int:
        return self._length

    def append(self, token_id: int) -> None:
        if self._length == len(self._buffer):
            self._buffer = torch.cat((self._buffer, torch.empty_like(self._buffer)))
        self._buffer[self._length] = token_id
        self._length += 1

    def tensor(self) -> torch.Tensor:
        """All ids, (n,) int64; a view that the next append does not change."""
        return self._buffer[: self._length]
