"""How fast a model reads and writes here, and what each of our additions costs.

Every way of writing gets the same prompt and settings and writes the same number of tokens, in
turn: one round of all of them, then the next. So what slows the machine for a while slows all of
them, and the ratios within a round hold. What the numbers beside a token cost is a few parts in a
hundred, less than a machine's own swings from one second to the next; so writing with and without
them goes on side by side, and takes turns at every token. (transformers' generate() cannot be held
between two tokens, so it runs by itself, behind them.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from chatapp.chat.bench import BenchEvent, BenchOptions, BenchResult, Measured
from chatapp.chat.errors import EngineError
from chatapp.chat.facts import Progress
from chatapp.chat.generation import GenerateOptions, GenerationEnd, TokenStep
from chatapp.chat.record import FinishReason
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.decoding.decode import generate
from chatapp.engine.decoding.reply import Task
from chatapp.engine.look.history import LogitHistory
from chatapp.engine.runtimes.cache import PrefixCache
from chatapp.engine.runtimes.loader import LoadedModel

CANDIDATES = 50
"""How many candidates a token has where records are measured."""

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
class _Case:
    """One way of reading or writing, by its names."""

    name: str
    words: str


@dataclass(frozen=True, slots=True)
class _Turn:
    """What is timed in one go."""

    words: str
    """What people call it."""
    cases: tuple[_Case, ...]
    run: Callable[[], Sequence[_Timed] | None]
    """Returns one for each case; None when it was cancelled."""


def bench(
    loaded: LoadedModel,
    history: LogitHistory,
    options: BenchOptions,
    cancelled: Callable[[], bool],
) -> Iterator[BenchEvent]:
    """Yield how far it is, and at last what was measured, in whole rounds.

    Args:
        loaded: the model.
        history: keeps the logits where they are kept; what it holds may be forgotten.
        options: how much to read and write.
        cancelled: asked between two measurements.

    Raises:
        EngineError: prompt and new tokens do not fit into the model's context, or it failed.
    """
    room = loaded.facts.context_length
    if options.prompt_tokens + options.new_tokens > room:
        raise EngineError(
            f"{options.prompt_tokens} tokens of a prompt and {options.new_tokens} new ones are more"
            f" than the model's context of {room}; take fewer"
        )
    turns = _Bencher(loaded, history, options, cancelled).turns()
    rounds: list[list[_Timed]] = []
    total = (options.rounds + 1) * len(turns)
    with torch.inference_mode():
        # The first round warms caches and allocators up, and is not told.
        for number in range(options.rounds + 1):
            timed: list[Sequence[_Timed]] = []
            for turn in turns:
                yield Progress(f"measuring: {turn.words}", number * len(turns) + len(timed), total)
                if cancelled() or (result := turn.run()) is None:
                    break
                timed.append(result)
            if len(timed) < len(turns):
                break
            if number:
                rounds.append(list(chain.from_iterable(timed)))
    cases = [case for turn in turns for case in turn.cases]
    yield BenchResult(
        options, torch.get_num_threads(), _measured(cases, rounds), cancelled=not rounds
    )


def _measured(cases: Sequence[_Case], rounds: Sequence[Sequence[_Timed]]) -> tuple[Measured, ...]:
    """What the rounds say of each case; nothing where none is complete."""
    if not rounds:
        return ()
    return tuple(
        Measured(
            name=case.name,
            words=case.words,
            tokens=column[0].tokens,
            token_passes=column[0].passes,
            seconds=tuple(one.seconds for one in column),
        )
        for case, column in zip(cases, zip(*rounds, strict=True), strict=True)
    )


class _Bencher:
    """The ways of writing, all for one prompt."""

    def __init__(
        self,
        loaded: LoadedModel,
        history: LogitHistory,
        options: BenchOptions,
        cancelled: Callable[[], bool],
    ) -> None:
        self._loaded = loaded
        self._cancelled = cancelled
        self._history = history
        self._count = options.new_tokens
        ids = loaded.tokenizer.encode_text(_TEXT)
        repeats = -(-options.prompt_tokens // len(ids))
        self._prompt = tuple((list(ids) * repeats)[: options.prompt_tokens])

    def turns(self) -> list[_Turn]:
        """All of them; `decode` is what the others are compared with."""
        read = _Case("prefill", "reading the prompt")
        decode = _Case("decode", "writing: model and draw alone")
        records = _Case("records", f"with {CANDIDATES} candidates a token, logits kept")
        trace = _Case("trace", "with candidates and every stage's trace")
        generated = _Case("generate", "transformers' generate()")
        uncached = _Case("no_cache", "without the KV cache")
        return [
            _Turn(read.words, (read,), self._read),
            _Turn("writing, with and without the numbers", (decode, records, trace), self._write),
            _Turn(generated.words, (generated,), self._generate),
            _Turn(uncached.words, (uncached,), self._write_uncached),
        ]

    def _read(self) -> Sequence[_Timed]:
        cache = PrefixCache(self._loaded)
        began = time.perf_counter()
        cache.read(self._prompt)
        self._wait()
        count = len(self._prompt)
        return [_Timed(count, count, time.perf_counter() - began)]

    def _write(self) -> Sequence[_Timed] | None:
        """Our own loop: bare, with records, and with traces, a token of each in turn."""
        loops = [
            self._loop(0, None),
            self._loop(CANDIDATES, self._history),
            self._loop(CANDIDATES, self._history, trace=True),
        ]
        for loop in loops:
            next(loop)  # it belongs to the reading
        seconds = [0.0] * len(loops)
        for number in range(1, self._count):
            if self._cancelled():
                return None
            for place in range(len(loops)):
                index = (number + place) % len(loops)
                began = time.perf_counter()
                next(loops[index])
                seconds[index] += time.perf_counter() - began
        return [self._timed(self._count, one) for one in seconds]

    def _loop(
        self, candidates: int, history: LogitHistory | None, *, trace: bool = False
    ) -> Iterator[TokenStep]:
        """The steps of one reply."""
        options = GenerateOptions(
            sampling=_SAMPLING,
            seed=0,
            max_tokens=self._count,
            top_logprobs=candidates,
            trace=trace,
        )
        task = Task(prompt_ids=self._prompt, options=options, end_ids=())
        controls = Controls(_SAMPLING)
        for event in generate(self._loaded, PrefixCache(self._loaded), task, controls, history):
            if isinstance(event, TokenStep):
                yield event
            elif isinstance(event, GenerationEnd) and event.reason is FinishReason.ERROR:
                raise EngineError(event.message)
        raise EngineError("the reply ended before all of its tokens were written")

    def _generate(self) -> Sequence[_Timed]:
        """transformers' own loop with the same settings, timed by when its tokens come out."""
        times: list[float] = []

        class Clock:
            """What generate() takes for a streamer."""

            def put(self, _: object) -> None:
                times.append(time.perf_counter())

            def end(self) -> None:
                pass

        tokens = torch.tensor([list(self._prompt)], device=self._loaded.input_device)
        model: Any = self._loaded.model
        model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=True,
            temperature=_SAMPLING.temperature,
            top_k=_SAMPLING.top_k,
            top_p=_SAMPLING.top_p,
            min_p=_SAMPLING.min_p,
            min_new_tokens=self._count,
            max_new_tokens=self._count,
            pad_token_id=0,
            streamer=Clock(),
        )
        # The prompt is put out first, then every token.
        return [self._timed(len(times) - 1, times[-1] - times[1])]

    def _write_uncached(self) -> Sequence[_Timed]:
        """Every token by reading all of the text again."""
        count = max(2, self._count // UNCACHED_SHARE)
        ids = list(self._prompt)
        passes = 0
        began = time.perf_counter()
        for _ in range(count):
            tokens = torch.tensor([ids], device=self._loaded.input_device)
            output = self._loaded.model(tokens, use_cache=False, logits_to_keep=1)
            passes += len(ids)
            ids.append(int(output.logits[0, -1].argmax()))
        return [_Timed(count, passes, time.perf_counter() - began)]

    def _timed(self, tokens: int, seconds: float) -> _Timed:
        """What was written after the first token: that one belongs to the reading."""
        return _Timed(tokens - 1, len(self._prompt) + tokens - 1, seconds)

    def _wait(self) -> None:
        """Until the device has done what it was told."""
        if self._loaded.input_device.type == "cuda":
            torch.cuda.synchronize(self._loaded.input_device)
        elif self._loaded.input_device.type == "mps":
            torch.mps.synchronize()
