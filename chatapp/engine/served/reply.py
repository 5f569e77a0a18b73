"""One reply of a server, token by token, steered while it comes.

A server draws by itself, so whatever changes under way (the temperature, a token chosen by hand, a
pause) ends its answer, and it is asked again to go on from the tokens so far, or from their text
where it takes no ids. Servers keep the prefix, so that costs little.
"""

from __future__ import annotations

import codecs
import math
import time
from collections.abc import Generator
from dataclasses import fields

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import IsCancelled, Progress
from chatapp.chat.generation import (
    GenerateOptions,
    GenerationEnd,
    GenerationEvent,
    Paused,
    PromptRead,
    TokenStep,
)
from chatapp.chat.prompt import Prompt, Turn
from chatapp.chat.record import FinishReason, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.served import UNTOLD, told_with
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.decoding.ending import Limit
from chatapp.engine.served import http
from chatapp.engine.served.align import Aligner, Placed
from chatapp.engine.served.http import Lines, Refused, Unreached
from chatapp.engine.served.kinds import Chunk, Server, Weighed, Wish
from chatapp.engine.served.record import make_record, taken_instead

_OPEN, _CLOSE = "<think>", "</think>"
"""What is put around what a server sends apart as the model's reasoning."""
_END = Weighed(b"", math.nan), b""
"""An end token of which the server says nothing."""

_Waited = Generator[GenerationEvent, None, Placed | FinishReason]


class _Cancelled(Exception):
    """The user stopped the reply."""


class _Late(Exception):
    """Other settings hold by now than the server draws with."""


def complete_turns(prompt: Prompt) -> tuple[Turn, ...]:
    """The turns that the server's template writes, the system text first. Raises EngineError."""
    if prompt.ids is not None:
        raise EngineError("a server can't be asked in a recorded reply's token ids; ask it anew")
    if prompt.format.name not in ("auto", "model"):
        raise EngineError(
            f"the server writes the turns itself, not in the format {prompt.format.name};"
            " leave it at auto (/set format auto)"
        )
    turns = prompt.turns[:-1] if prompt.continue_reply else prompt.turns
    return (Turn("system", prompt.system), *turns) if prompt.system else turns


class Reply:
    """The state of one reply under way."""

    def __init__(
        self, server: Server, prompt: Prompt, options: GenerateOptions, controls: Controls
    ) -> None:
        """Asks for nothing yet that runs the model. Raises EngineError."""
        self._server = server
        self._options = options
        self._controls = controls
        self._asked_at = time.monotonic()
        self._first_at = self._last_at = 0.0
        self._turns = complete_turns(prompt)
        self._prompt_ids = server.turns_ids(self._turns)
        kept = prompt.turns[-1] if prompt.continue_reply else Turn("assistant", "", ())
        self._text = kept.text
        self._ids = list(kept.ids or ())
        self._kept = len(self._ids)
        self._exact = bool(kept.ids) or not kept.text
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._numbers = server.gives_numbers
        self._top = max(min(options.top_logprobs, server.most), server.least)
        self._refused_numbers = ""
        self._cached = 0
        self._prompt_read = False
        self._count = 0
        """Tokens that this request took."""
        self._drawn_count = self._numbered = self._certain = 0
        """How many of them the server drew; how many of these had a number, and how many 100 %."""
        self._ends_bare = False
        """Whether the last one has no text, as end tokens have."""
        self._known: dict[int, bytes] = {}
        """The bytes of the tokens that were listed."""
        self._sampling: SamplingParams | None = None
        self._answer: _Answer | None = None
        bytes_ = options.forced_bytes or (b"",) * len(options.forced_ids)
        self._known.update(zip(options.forced_ids, bytes_, strict=True))
        self._forced = list(options.forced_ids)

    def events(self) -> Generator[GenerationEvent]:
        """All that comes of it. Raises EngineError before the first token."""
        message = ""
        try:
            ending = yield from self._write()
            message = self._notes(ending)
        except _Cancelled:
            ending = FinishReason.CANCELLED
        except EngineError as error:
            if not self._count:
                raise
            ending, message = FinishReason.ERROR, f"{error}; what came before is kept"
        finally:
            self._stop()
        yield from self._read_prompt()
        if ending is FinishReason.STOP and not self._ends_bare:
            yield self._take(_END)
        first = self._first_at - self._asked_at if self._count else 0.0
        yield GenerationEnd(ending, self._last_at - self._first_at, first, message)

    def _write(self) -> Generator[GenerationEvent, None, FinishReason]:
        while not self._options.max_tokens or self._count < self._options.max_tokens:
            if self._controls.cancelled:
                raise _Cancelled
            if self._is_full:
                return FinishReason.CONTEXT
            chosen = self._forced.pop(0) if self._forced else None
            if chosen is None:
                seen = self._controls.sampling
                if (leave := self._controls.leave()) is None and self._can_ask_again:
                    token, _ = yield from self._look()
                    record = self._record(token, "", self._server.effective(seen))
                    yield from self._read_prompt()
                    yield Paused(record, seen)
                    self._controls.hold(seen)
                    continue
                chosen = leave.token_id if leave is not None else None
            placed = yield from (self._drawn() if chosen is None else self._chosen(chosen))
            if isinstance(placed, FinishReason):
                return placed
            yield from self._read_prompt()
            yield self._take(placed)
        return FinishReason.LENGTH

    @property
    def _is_full(self) -> bool:
        """Whether the context has no room, where the server tells how much it has."""
        length = self._server.facts.context_length
        return 0 < length <= len(self._prompt_ids) + len(self._ids) and bool(self._prompt_ids)

    # Where tokens come from

    def _drawn(self) -> _Waited:
        """The next token that the server draws, or why it draws none."""
        waits = list(http.WAITS)
        while True:
            answer = self._answer = self._answer or self._ask()
            try:
                if self._is_late(answer):
                    raise _Late
                placed = yield from self._next(answer)
            except Unreached as error:
                self._stop()
                if answer.begun or not waits:
                    raise
                left = len(waits)
                yield Progress(f"{error}; try", len(http.WAITS) - left + 2, len(http.WAITS) + 1)
                self._wait(waits.pop(0))
            except _Late:
                self._stop()
            except Refused as error:
                self._stop()
                if answer.begun or not self._numbers or error.status not in (400, 422, 501):
                    raise
                self._numbers, self._refused_numbers = False, str(error)
            else:
                # What was drawn before a change is put away, but for an answer that was cut.
                if placed is FinishReason.LENGTH or not self._is_late(answer):
                    return placed

    def _is_late(self, answer: _Answer) -> bool:
        """Whether other settings hold by now, and can be asked for."""
        return answer.sampling is not self._controls.sampling and self._can_ask_again

    @property
    def _can_ask_again(self) -> bool:
        """Whether the reply so far can be told to the server: by ids, or where no character is
        unfinished by its text."""
        pending, _ = self._decoder.getstate()
        return not pending or self._told_ids is not None

    @property
    def _told_ids(self) -> tuple[int, ...] | None:
        known = self._exact and max(self._ids, default=0) < UNTOLD
        return tuple(self._ids) if known else None

    def _look(self) -> Generator[GenerationEvent, None, Placed]:
        """What the next token is chosen from: one is drawn, and put away again."""
        self._stop()
        placed = yield from self._drawn()
        self._stop()
        return _END if isinstance(placed, FinishReason) else placed

    def _chosen(self, token_id: int) -> _Waited:
        """A token that the user chose, with the numbers that it has among the candidates."""
        weighed, _ = yield from self._look()
        data = self._known.get(token_id, b"")
        if token_id < UNTOLD:
            data = data or self._server.token_bytes(token_id)
        elif not data:
            raise EngineError("this token is known by its text alone, and that is gone")
        id_ = token_id if token_id < UNTOLD else None
        return taken_instead(weighed, Weighed(data, math.nan, id_)), data

    def _ask(self) -> _Answer:
        """Have the server go on from what there is."""
        options, asked = self._options, self._controls.sampling
        wish = Wish(
            turns=self._turns,
            prompt_ids=self._prompt_ids,
            reply=self._text,
            reply_ids=self._told_ids,
            sampling=self._server.effective(asked),
            # Another one for each answer: the server's generator begins anew with each.
            seed=(options.seed + self._count) % 2**31,
            limit=max(options.max_tokens - self._count, 0),
            stop=options.stop,
            top=self._top if self._numbers else -1,
        )
        return _Answer(self._server, wish, asked, self._is_unwanted)

    def _next(self, answer: _Answer) -> _Waited:
        """The next token of an answer, or why it ends. Raises Unreached, Refused, EngineError."""
        while not answer.placed:
            if answer.finish is not None:
                return answer.finish
            if answer.failure is not None:
                raise answer.failure
            if (chunk := answer.read()) is None:
                raise _Cancelled if self._controls.cancelled else _Late
            self._cached = self._cached or chunk.cached
            if not self._kept:  # else the reply's start is among them, split anew
                self._prompt_ids = self._prompt_ids or chunk.prompt_ids
            if chunk.prompt_done < chunk.prompt_total:
                yield Progress("reading", chunk.prompt_done, chunk.prompt_total, "tokens")
        return answer.placed.pop(0)

    def _is_unwanted(self) -> bool:
        """Whether what is waited for is not wanted any more.

        Before its first token an answer is not given up for other settings: reading the prompt
        would begin anew with every turn of a control.
        """
        answer = self._answer
        late = answer is not None and answer.begun and self._is_late(answer)
        return self._controls.cancelled or late

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._controls.cancelled:
                raise _Cancelled
            time.sleep(min(0.02, seconds))

    def _stop(self) -> None:
        if self._answer is not None:
            self._answer.close()
        self._answer = None

    # What becomes of them

    def _read_prompt(self) -> Generator[GenerationEvent]:
        """Tell once, before all else, that the prompt is read."""
        if not self._prompt_read:
            self._prompt_read = True
            ids = (*self._prompt_ids, *self._ids) if self._prompt_ids else ()
            yield PromptRead(ids, self._cached, time.monotonic() - self._asked_at)

    def _take(self, placed: Placed) -> TokenStep:
        token, data = placed
        self._last_at = time.monotonic()
        self._first_at = self._first_at or self._last_at
        text = self._decoder.decode(data)
        sampling = self._controls.sampling
        if self._answer is not None:  # else it was not drawn
            sampling = self._answer.sampling
            self._drawn_count += 1
            self._numbered += not math.isnan(token.logprob)
            self._certain += token.logprob == 0
        sampling = self._server.effective(sampling)
        record = self._record(token, text, sampling)
        changed = sampling if sampling != self._sampling else None
        self._sampling = sampling
        self._text += text
        self._ids.append(record.id)
        self._count += 1
        self._ends_bare = not data
        return TokenStep(record, changed)

    def _record(self, token: Weighed, text: str, sampling: SamplingParams) -> TokenRecord:
        record = make_record(
            token,
            text,
            self._kept + self._count,
            sampling.temperature,
            told_with(self._server.facts.runtime, sampling),
            self._top,
            self._server.facts.vocab_size,
        )
        self._known.update({one.id: one.bytes for one in record.candidates})
        return record

    def _notes(self, ending: FinishReason) -> str:
        name, said = self._server.facts.runtime, self._server.said
        notes: list[str] = []
        asked = self._controls.sampling
        known = self._server.effective(asked)
        names = [
            one.name
            for one in fields(asked)
            if getattr(asked, one.name) != getattr(known, one.name)
        ]
        if names:
            notes.append(f"{name} has no {', '.join(names)}: what is set of that did nothing")
        if self._refused_numbers:
            notes.append(f"no probabilities: {self._refused_numbers}")
        elif self._numbers and self._drawn_count > 1 and not self._numbered:
            notes.append(f"{name} gave no probabilities")
        if not self._numbered and self._drawn_count > 1:
            self._server.gives_numbers = False  # it is not asked for them again
        elif self._certain == self._drawn_count > 3 and known.temperature:
            notes.append(
                f"{name} gives every token 100 %, as servers do that draft tokens (speculative"
                " decoding): these are not the model's probabilities"
            )
        notes = [one for one in notes if one not in said]
        said.update(notes)
        if 0 < self._numbered < self._drawn_count:
            lost = self._drawn_count - self._numbered
            tokens = "1 token" if lost == 1 else f"{lost} tokens"
            notes.append(f"{name} told no probability of {tokens}, inside characters as a rule")
        if ending is FinishReason.CONTEXT:
            length = self._server.facts.context_length
            notes.append(Limit(len(self._prompt_ids), length, 0).words(len(self._ids)))
        if ending is FinishReason.LENGTH and not self._options.max_tokens:
            notes.append(f"{name} ended the reply at a limit of its own, or its context is full")
        return "; ".join(notes)


class _Answer:
    """What a server sends to one question, as tokens with their text."""

    def __init__(
        self,
        server: Server,
        wish: Wish,
        sampling: SamplingParams,
        is_unwanted: IsCancelled,
    ) -> None:
        self.sampling = sampling
        """What was set when it was asked for; `wish` has what of it the server knows."""
        self.begun = False
        """Whether a token has come."""
        self.placed: list[Placed] = []
        self.finish: FinishReason | None = None
        self.failure: EngineError | None = None
        self._server = server
        self._is_unwanted = is_unwanted
        self._lines = Lines(server.http, server.url, server.body(wish), is_unwanted)
        self._aligner = Aligner(numbers=wish.top >= 0)
        self._thinks = wish.reply.count(_OPEN) > wish.reply.count(_CLOSE)
        self._splits = False
        """Whether the server sends reasoning apart."""

    def read(self) -> Chunk | None:
        """Take in the next line, or why there is none. None where it is not waited for any more."""
        try:
            line = self._lines.next()
            if line is None and self._is_unwanted():
                return None
            if line is None:
                raise Unreached(f"{self._server.http.host} ended its answer in the middle")
            chunk = self._server.line(line) or Chunk()
        except EngineError as error:
            chunk, self.failure = Chunk(), error
        else:
            self.placed += self._aligner.feed(self._text_of(chunk), chunk.tokens)
            self.finish = chunk.finish
        if self.finish or self.failure:
            self.placed += self._aligner.finish()
        self.begun = self.begun or bool(self.placed)
        return chunk

    def close(self) -> None:
        self._lines.close()

    def _text_of(self, chunk: Chunk) -> bytes:
        """Its text, with marks around the reasoning that the server took out of it."""
        text = ""
        if chunk.thought:
            text += chunk.thought if self._thinks else f"{_OPEN}\n{chunk.thought}"
            self._thinks = self._splits = True
        elif chunk.data and self._thinks and self._splits:
            text += f"\n{_CLOSE}\n\n"
            self._thinks = False
        return text.encode("utf-8", "replace") + chunk.data
