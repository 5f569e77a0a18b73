"""How fast a model reads and writes here, and what each of our additions costs.

Every way of writing gets the same prompt and settings and writes the same number of tokens, in
turn: one round of all of them, then the next. So what slows the machine for a while slows all of
them, and the ratios within a round hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from chatapp.chat.bench import BenchEvent, BenchOptions, BenchResult, Measured
from chatapp.chat.errors import EngineError
from chatapp.chat.facts import Progress
from chatapp.chat.generation import GenerateOptions, GenerationEnd, TokenStep
from chatapp.chat.record import FinishReason
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.cache import PrefixCache
from chatapp.engine.controls import Controls
from chatapp.engine.decode import generate
from chatapp.engine.history import LogitHistory
from chatapp.engine.loader import LoadedModel
from chatapp.engine.reply import Task

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
    run: Callable[[], _Timed]


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
    bencher = _Bencher(loaded, history, options)
    cases = bencher.cases()
    rounds: list[list[_Timed]] = []
    total = (options.rounds + 1) * len(cases)
    with torch.inference_mode():
        # The first round warms caches and allocators up, and is not told.
        for number in range(options.rounds + 1):
            timed: list[_Timed] = []
            for case in cases:
                yield Progress(f"measuring: {case.words}", number * len(cases) + len(timed), total)
                if cancelled():
                    break
                timed.append(case.run())
            if len(timed) < len(cases):
                break
            if number:
                rounds.append(timed)
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

    def __init__(self, loaded: LoadedModel, history: LogitHistory, options: BenchOptions) -> None:
        self._loaded = loaded
        self._history = history
        self._count = options.new_tokens
        ids = loaded.tokenizer.encode_text(_TEXT)
        repeats = -(-options.prompt_tokens // len(ids))
        self._prompt = tuple((list(ids) * repeats)[: options.prompt_tokens])

    def cases(self) -> list[_Case]:
        """All of them; `decode` is what the others are compared with."""
        return [
            _Case("prefill", "reading the prompt", self._read),
            _Case("decode", "writing: model and draw alone", lambda: self._write(0)),
            _Case(
                "records",
                f"with {CANDIDATES} candidates a token, logits kept",
                lambda: self._write(CANDIDATES, self._history),
            ),
            _Case(
                "trace",
                "with candidates and every stage's trace",
                lambda: self._write(CANDIDATES, self._history, trace=True),
            ),
            _Case("generate", "transformers' generate()", self._generate),
            _Case("no_cache", "without the KV cache", self._write_uncached),
        ]

    def _read(self) -> _Timed:
        cache = PrefixCache(self._loaded)
        began = time.perf_counter()
        cache.read(self._prompt)
        self._wait()
        count = len(self._prompt)
        return _Timed(count, count, time.perf_counter() - began)

    def _write(
        self, candidates: int, history: LogitHistory | None = None, *, trace: bool = False
    ) -> _Timed:
        """Our own loop. The time counts from its first token, as the end of a reply tells it."""
        options = GenerateOptions(
            sampling=_SAMPLING,
            seed=0,
            max_tokens=self._count,
            top_logprobs=candidates,
            trace=trace,
        )
        task = Task(prompt_ids=self._prompt, options=options, end_ids=())
        count = 0
        controls = Controls(_SAMPLING)
        for event in generate(self._loaded, PrefixCache(self._loaded), task, controls, history):
            if isinstance(event, TokenStep):
                count += 1
            elif isinstance(event, GenerationEnd):
                if event.reason is FinishReason.ERROR:
                    raise EngineError(event.message)
                return self._timed(count, event.seconds)
        raise EngineError("the reply did not end")

    def _generate(self) -> _Timed:
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
        return self._timed(len(times) - 1, times[-1] - times[1])

    def _write_uncached(self) -> _Timed:
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
        return _Timed(count, passes, time.perf_counter() - began)

    def _timed(self, tokens: int, seconds: float) -> _Timed:
        """What was written after the first token: that one belongs to the reading."""
        return _Timed(tokens - 1, len(self._prompt) + tokens - 1, seconds)

    def _wait(self) -> None:
        """Until the device has done what it was told."""
        if self._loaded.input_device.type == "cuda":
            torch.cuda.synchronize(self._loaded.input_device)
        elif self._loaded.input_device.type == "mps":
            torch.mps.synchronize()
