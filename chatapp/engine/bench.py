"""How fast a model reads and writes here, and what each of our additions costs.

Every way of writing gets the same prompt and settings and writes the same number of tokens, in
turn: one round of all of them, then the next. So what slows the machine for a while slows all of
them, and the ratios within a round hold. Each way runs by itself, with a sequence of its own: two
that took turns at every token would share a context, and each would pay for the other's text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from chatapp.chat.bench import BenchEvent, BenchOptions, BenchResult, Measured
from chatapp.chat.errors import EngineError
from chatapp.chat.facts import ModelSource, Progress
from chatapp.chat.generation import GenerateOptions, GenerationEnd
from chatapp.chat.record import FinishReason
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.decoding.decode import generate
from chatapp.engine.decoding.reply import Task
from chatapp.engine.look.history import LogitHistory
from chatapp.engine.runtimes.base import Runtime

CANDIDATES = 20
"""How many candidates a token has where records are measured: as many as the server is asked for.
"""

PREFILLS = (16, 128, 1024)
"""Prompts whose reading is timed, in tokens, as far as the context has room."""

TURN_TOKENS = 16
"""What a second turn adds to the text that is read already."""

UNCACHED_SHARE = 16
"""Writing without the cache is timed for so many times fewer tokens, since it takes so long."""

_SAMPLING = SamplingParams()
"""What most replies are drawn with; the chain is part of writing."""

_TEXT = (
    "A language model reads a text as a row of tokens and tells, for every token of its vocabulary,"
    " how probable it is as the next one. One of them is taken and put behind the text, and the"
    " model reads on. Nothing else happens, however long the answer is. "
)


@dataclass(frozen=True, slots=True)
class _Timed:
    """One way of writing, timed once."""

    tokens: int
    passes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Turn:
    """One way of reading or writing."""

    name: str
    words: str
    """What people call it."""
    run: Callable[[], _Timed | None]
    """Times it once; None when it was cancelled."""
    base: str | None = "decode"
    """What its speed is compared with."""


def bench(
    runtime: Runtime,
    source: ModelSource,
    history: LogitHistory,
    options: BenchOptions,
    cancelled: Callable[[], bool],
) -> Iterator[BenchEvent]:
    """Yield how far it is, and at last what was measured, in whole rounds.

    `history`: keeps the logits where they are kept; what it holds may be forgotten. Raises
    EngineError: prompt and new tokens do not fit into the model's context, or it failed.
    """
    import psutil

    room = runtime.facts.context_length
    if options.prompt_tokens + options.new_tokens > room:
        raise EngineError(
            f"{options.prompt_tokens} tokens of a prompt and {options.new_tokens} new ones are more"
            f" than the model's context of {room}; take fewer"
        )
    bencher = _Bencher(runtime, history, options, cancelled)
    bencher.read(options.prompt_tokens)
    resident = psutil.Process().memory_info().rss
    turns = bencher.turns(source)
    rounds: list[list[_Timed]] = []
    total = (options.rounds + 1) * len(turns)
    # The first round warms caches and allocators up, and is not told.
    for number in range(options.rounds + 1):
        timed: list[_Timed] = []
        for turn in turns:
            yield Progress(f"measuring: {turn.words}", number * len(turns) + len(timed), total)
            if cancelled() or (result := turn.run()) is None:
                break
            timed.append(result)
        if len(timed) < len(turns):
            break
        if number:
            rounds.append(timed)
    yield BenchResult(options, _measured(turns, rounds), resident, cancelled=not rounds)


def _measured(turns: Sequence[_Turn], rounds: Sequence[Sequence[_Timed]]) -> tuple[Measured, ...]:
    """What the rounds say of each case; nothing where none is complete."""
    if not rounds:
        return ()
    return tuple(
        Measured(
            name=turn.name,
            words=turn.words,
            base=turn.base,
            tokens=column[0].tokens,
            token_passes=column[0].passes,
            seconds=tuple(one.seconds for one in column),
        )
        for turn, column in zip(turns, zip(*rounds, strict=True), strict=True)
    )


class _Bencher:
    """The ways of reading and writing, all for one prompt."""

    def __init__(
        self,
        runtime: Runtime,
        history: LogitHistory,
        options: BenchOptions,
        cancelled: Callable[[], bool],
    ) -> None:
        self._runtime = runtime
        self._cancelled = cancelled
        self._history = history
        self._count = options.new_tokens
        self._ids = runtime.tokenizer.encode_text(_TEXT)
        self._prompt = self._text(options.prompt_tokens)

    def turns(self, source: ModelSource) -> list[_Turn]:
        """All of them; `decode` is what writing is compared with."""
        room = self._runtime.facts.context_length - TURN_TOKENS - 1
        sizes = sorted({min(size, room) for size in PREFILLS})
        turns = [
            _Turn(f"prefill_{size}", f"reading {size} tokens", partial(self.read, size), None)
            for size in sizes
        ]
        longest = sizes[-1]
        turns += [
            _Turn(
                "second_turn",
                f"first token of a turn after {longest} tokens",
                partial(self._second_turn, longest),
                f"prefill_{longest}",
            ),
            _Turn("decode", "writing: model and draw alone", partial(self._write, 0, None)),
            _Turn(
                "records",
                f"with {CANDIDATES} candidates a token, logits kept",
                partial(self._write, CANDIDATES, self._history),
            ),
            _Turn(
                "trace",
                "with candidates and every stage's trace",
                partial(self._write, CANDIDATES, self._history, trace=True),
            ),
        ]
        if self._runtime.facts.runtime == "transformers":
            return turns + self._others()
        return turns + self._servers(source)

    def read(self, count: int) -> _Timed:
        with closing(self._runtime.sequence()) as sequence:
            began = time.perf_counter()
            sequence.read(self._text(count))
            return _Timed(count, count, time.perf_counter() - began)

    def _text(self, count: int) -> tuple[int, ...]:
        repeats = -(-count // len(self._ids))
        return tuple((self._ids * repeats)[:count])

    def _second_turn(self, count: int) -> _Timed:
        """The logits after a further turn, when all before it has been read.

        Told as the tokens of the whole text over the time that the turn took.
        """
        with closing(self._runtime.sequence()) as sequence:
            sequence.read(self._text(count))
            began = time.perf_counter()
            sequence.read(self._text(TURN_TOKENS))
            return _Timed(count, TURN_TOKENS, time.perf_counter() - began)

    def _write(
        self, candidates: int, history: LogitHistory | None, *, trace: bool = False
    ) -> _Timed | None:
        """Our own loop, from its first token to its last."""
        options = GenerateOptions(
            sampling=_SAMPLING,
            seed=0,
            max_tokens=self._count,
            top_logprobs=candidates,
            trace=trace,
        )
        task = Task(prompt_ids=self._prompt, options=options, end_ids=())
        controls = Controls(_SAMPLING)
        with closing(self._runtime.sequence()) as sequence:
            for event in generate(self._runtime, sequence, task, controls, history):
                if self._cancelled():
                    controls.cancel()
                if isinstance(event, GenerationEnd):
                    end = event
        if end.reason is FinishReason.ERROR:
            raise EngineError(end.message)
        if end.reason is FinishReason.CANCELLED:
            return None
        return self._timed(self._count, end.seconds)

    def _servers(self, source: ModelSource) -> list[_Turn]:
        """llama.cpp's server, where the package that has it is here."""
        try:
            from chatapp.engine.runtimes.server import LlamaServer
        except ImportError:
            return []
        room = len(self._prompt) + self._count + 8
        server = LlamaServer(source.path, room, self._runtime.facts.threads)

        def run(top: int) -> _Timed:
            seconds = server.seconds(self._prompt, self._count, _SAMPLING, top)
            return self._timed(self._count, seconds)

        return [
            _Turn("server", "llama.cpp's server, without probabilities", partial(run, 0)),
            _Turn(
                "server_top",
                f"llama.cpp's server, with the top {CANDIDATES}",
                partial(run, CANDIDATES),
            ),
        ]

    def _others(self) -> list[_Turn]:
        from chatapp.engine.runtimes import peers

        runtime: Any = self._runtime  # a TransformersRuntime

        def generated() -> _Timed:
            times = peers.generate_times(runtime, self._prompt, self._count, _SAMPLING)
            # The prompt is put out first, then every token.
            return self._timed(len(times) - 1, times[-1] - times[1])

        def uncached() -> _Timed:
            count = max(2, self._count // UNCACHED_SHARE)
            began = time.perf_counter()
            passes = peers.write_uncached(runtime, self._prompt, count)
            return _Timed(count, passes, time.perf_counter() - began)

        return [
            _Turn("generate", "transformers' generate()", generated),
            _Turn("no_cache", "without the KV cache", uncached),
        ]

    def _timed(self, tokens: int, seconds: float) -> _Timed:
        """What was written after the first token: that one belongs to the reading."""
        return _Timed(tokens - 1, len(self._prompt) + tokens - 1, seconds)
