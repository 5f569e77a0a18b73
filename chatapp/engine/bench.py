"""How fast a model reads and writes here, and what each of our additions costs.

Every way of writing gets the same prompt and settings and writes the same number of tokens, in
turn: one round of all of them, then the next. So what slows the machine for a while slows all of
them, and the ratios within a round hold. Each way runs by itself, with a sequence of its own: two
that took turns at every token would share a context, and each would pay for the other's text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from chatapp.chat.bench import BenchEvent, BenchOptions, BenchResult, Measured
from chatapp.chat.errors import EngineError
from chatapp.chat.facts import IsCancelled, ModelSource, Progress
from chatapp.chat.generation import GenerateOptions, GenerationEnd
from chatapp.chat.record import FinishReason
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.decoding.decode import generate
from chatapp.engine.decoding.reply import Task
from chatapp.engine.look.history import LogitHistory
from chatapp.engine.runtimes import peers
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


_Turn = tuple[Measured, Callable[[], float | None]]
"""One way of reading or writing, not timed yet; and what times it once, in seconds (None when it
was cancelled)."""


def bench(
    runtime: Runtime,
    source: ModelSource,
    history: LogitHistory,
    options: BenchOptions,
    cancelled: IsCancelled,
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
    rounds: list[list[float]] = []
    total = (options.rounds + 1) * len(turns)
    # The first round warms caches and allocators up, and is not told.
    for number in range(options.rounds + 1):
        timed: list[float] = []
        for turn, run in turns:
            yield Progress(f"measuring: {turn.words}", number * len(turns) + len(timed), total)
            if cancelled() or (seconds := run()) is None:
                break
            timed.append(seconds)
        if len(timed) < len(turns):
            break
        if number:
            rounds.append(timed)
    columns = zip(turns, zip(*rounds, strict=True), strict=True) if rounds else ()
    measured = tuple(replace(turn, seconds=column) for (turn, _), column in columns)
    yield BenchResult(options, measured, resident, cancelled=not rounds)


class _Bencher:
    """The ways of reading and writing, all for one prompt."""

    def __init__(
        self, runtime: Runtime, history: LogitHistory, options: BenchOptions, cancelled: IsCancelled
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
        longest = sizes[-1]
        with_top = f"with {CANDIDATES} candidates a token, logits kept"
        # Told as the tokens of the whole text over the time that the turn took.
        second = Measured(
            name="second_turn",
            words=f"first token of a turn after {longest} tokens",
            tokens=longest,
            token_passes=TURN_TOKENS,
            base=f"prefill_{longest}",
        )
        traced = partial(self._write, CANDIDATES, self._history, trace=True)
        turns: list[_Turn] = [
            *(self._reading(size) for size in sizes),
            (second, partial(self.read, TURN_TOKENS, longest)),
            self._writing("decode", "writing: model and draw alone", partial(self._write, 0, None)),
            self._writing("records", with_top, partial(self._write, CANDIDATES, self._history)),
            self._writing("trace", "with candidates and every stage's trace", traced),
        ]
        others = self._runtime.facts.runtime == "transformers"
        return turns + (self._others() if others else self._servers(source))

    def _reading(self, size: int) -> _Turn:
        name, words = f"prefill_{size}", f"reading {size} tokens"
        told = Measured(name=name, words=words, tokens=size, token_passes=size, base=None)
        return told, partial(self.read, size)

    def _writing(self, name: str, words: str, run: Callable[[], float | None]) -> _Turn:
        """What is written after the first token: that one belongs to the reading."""
        tokens = self._count - 1
        passes = len(self._prompt) + tokens
        return Measured(name=name, words=words, tokens=tokens, token_passes=passes), run

    def read(self, count: int, behind: int = 0) -> float:
        """Read so many tokens, from nothing or behind others that have been read."""
        with closing(self._runtime.sequence()) as sequence:
            if behind:
                sequence.read(self._text(behind))
            began = time.perf_counter()
            sequence.read(self._text(count))
            return time.perf_counter() - began

    def _text(self, count: int) -> tuple[int, ...]:
        repeats = -(-count // len(self._ids))
        return tuple((self._ids * repeats)[:count])

    def _write(
        self, candidates: int, history: LogitHistory | None, *, trace: bool = False
    ) -> float | None:
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
        return None if end.reason is FinishReason.CANCELLED else end.seconds

    def _servers(self, source: ModelSource) -> list[_Turn]:
        """llama.cpp's server, where the package that has it is here."""
        threads = self._runtime.facts.threads
        try:
            ask = peers.llama_server(source.path, threads, self._prompt, self._count, _SAMPLING)
        except ImportError:
            return []
        without, with_top = "without probabilities", f"with the top {CANDIDATES}"
        return [
            self._writing("server", f"llama.cpp's server, {without}", partial(ask, 0)),
            self._writing(
                "server_top", f"llama.cpp's server, {with_top}", partial(ask, CANDIDATES)
            ),
        ]

    def _others(self) -> list[_Turn]:
        runtime: Any = self._runtime  # a TransformersRuntime
        ids, count = self._prompt, max(2, self._count // UNCACHED_SHARE)
        without = Measured(
            name="no_cache",
            words="without the KV cache",
            tokens=count,
            token_passes=count * len(ids) + count * (count - 1) // 2,
        )
        generate = partial(peers.generate, runtime, ids, self._count, _SAMPLING)
        return [
            self._writing("generate", "transformers' generate()", generate),
            (without, partial(peers.write_uncached, runtime, ids, count)),
        ]
