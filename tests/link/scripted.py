"""An engine process without a model: real link, real threads, scripted work.

Run as a module it is an engine process; put its command into `chatapp.link.connection.SERVER`.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Progress
from chatapp.chat.generation import (
    GenerateOptions,
    GenerationEnd,
    GenerationEvent,
    PromptRead,
    TokenStep,
)
from chatapp.chat.prompt import Prompt, RenderedPrompt, TokenPiece
from chatapp.chat.record import Candidate, FinishReason, TokenRecord
from chatapp.engine.decoding.controls import Controls
from chatapp.link.server import main
from tests.ui.scripted import FACTS, make_record

COMMAND = (sys.executable, "-m", "tests.link.scripted")
WORDS = [f" w{number:03d}" for number in range(1000)]
CANDIDATES = 50


class PanicException(BaseException):
    """As a panic in a Rust library arrives: no `Exception`."""


def panic() -> NoReturn:
    raise PanicException("index out of bounds: the len is 0 but the index is 0")


def leave() -> NoReturn:
    sys.exit("a model's own code wants to leave")


def no_memory() -> NoReturn:
    raise MemoryError


def badly_sent() -> NoReturn:
    """Write what is no event where the events go: the pipe that the first dup(1) gave."""
    os.write(_EVENTS, b"\x03\x00\x00\x00abc")
    time.sleep(60)
    raise AssertionError("still alive")


def too_long() -> NoReturn:
    os.write(_EVENTS, b"\xff\xff\xff\xff")
    time.sleep(60)
    raise AssertionError("still alive")


FAULTS: dict[str, Callable[[], NoReturn]] = {
    fault.__name__: fault for fault in (panic, leave, no_memory, badly_sent, too_long)
}
_EVENTS = 1


def fast_record(index: int, candidates: int = CANDIDATES) -> TokenRecord:
    """A token of the endless text, with that many candidates."""
    word = WORDS[index % len(WORDS)] + ("\n\n" if index % 60 == 59 else "")
    record = make_record(index, word.encode(), word, GenerateOptions().sampling)
    more = (
        Candidate(100 + place, f" c{place}", f" c{place}".encode(), -9.0 - place, 0.0, 0.0, place)
        for place in range(5, candidates + 1)
    )
    return replace(record, candidates=(*record.candidates, *more))


class ScriptedLocal:
    """Stands in for LocalEngine: does what the name of a text says."""

    rate = float(os.environ.get("SCRIPTED_RATE", "0"))
    """Tokens a second; 0 is as fast as they can be made."""

    def load(
        self, source: ModelSource, _options: LoadOptions, on_progress: Callable[[Progress], None]
    ) -> ModelFacts:
        on_progress(Progress("weights", 1, 2, "tensors"))
        while source.path == "/endless":
            time.sleep(1)
        return FACTS

    def tokenize(self, text: str, *, inside: bool = False) -> tuple[TokenPiece, ...]:
        if text in FAULTS:
            FAULTS[text]()
        data = [piece.encode() for piece in text.split()]
        return tuple(TokenPiece(7 + inside, piece.decode(), piece) for piece in data)

    def render(self, prompt: Prompt) -> RenderedPrompt:
        text = "\n".join(turn.text for turn in prompt.turns)
        return RenderedPrompt("scripted", text, self.tokenize(text))

    def pieces(self, ids: Sequence[int]) -> tuple[TokenPiece, ...]:
        return tuple(TokenPiece(one, f"{one}", b"x") for one in ids)

    def generate(
        self, prompt: Prompt, options: GenerateOptions, controls: Controls
    ) -> Iterator[GenerationEvent]:
        """Words for ever, or `max_tokens` of them, or a fault that the prompt names."""
        yield PromptRead(tuple(range(5)), 0, 0.01)
        began, reason = time.monotonic(), FinishReason.LENGTH
        for index in itertools.count() if not options.max_tokens else range(options.max_tokens):
            if controls.cancelled:
                reason = FinishReason.CANCELLED
                break
            if index == 3 and prompt.turns[-1].text in FAULTS:
                FAULTS[prompt.turns[-1].text]()
            yield TokenStep(fast_record(index), controls.sampling if index == 0 else None)
            if self.rate:
                time.sleep(max(0.0, began + (index + 1) / self.rate - time.monotonic()))
        yield GenerationEnd(reason, time.monotonic() - began, 0.01)

    def score_prompt(
        self,
        prompt: Prompt,
        top_logprobs: int,
        on_progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
        *,
        places: Sequence[int] | None = None,
        background: bool = False,
    ) -> Iterator[Any]:
        """Scores until it has to stop."""
        index = 0
        while not cancelled():
            yield fast_record(index, top_logprobs)
            index += 1


if __name__ == "__main__":
    _EVENTS = os.dup(1)  # before the server points 1 to the log
    main(ScriptedLocal())  # type: ignore[arg-type]
