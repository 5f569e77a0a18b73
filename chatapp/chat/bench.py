"""Speed on this machine: what is measured, and what comes of it.

Machines differ and are busy with other things, so only what was measured in one run, in turn, is
compared: a ratio is made of the two times of one round, and the median of the rounds is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from chatapp.chat.facts import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """How much is read and written in each round."""

    prompt_tokens: int = 128
    new_tokens: int = 64
    rounds: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One way of reading or writing, timed once a round."""

    name: str
    """What programs call it: decode, generate, no_cache, …"""
    words: str
    """What people call it."""
    tokens: int
    """How many were timed in each round."""
    token_passes: int
    """How many times the model took a token through its layers for them, prompt included."""
    seconds: tuple[float, ...]
    """For each round, in order."""

    @property
    def tokens_per_second(self) -> float:
        """The median of the rounds."""
        return median(self.tokens / seconds for seconds in self.seconds)

    def ratio_to(self, other: Measured) -> float:
        """Its speed divided by another's: the median of what the rounds say, each by itself."""
        return median(
            (self.tokens / mine) / (other.tokens / theirs)
            for mine, theirs in zip(self.seconds, other.seconds, strict=True)
        )


@dataclass(frozen=True, slots=True)
class BenchResult:
    """All that was measured."""

    options: BenchOptions
    threads: int
    """CPU threads that torch computed with."""
    measured: tuple[Measured, ...]
    """Writing with nothing but the draw, named `decode`, is what the others are compared with."""
    cancelled: bool = False
    """Whether it was stopped before the first round was complete; then nothing is told."""


BenchEvent = Progress | BenchResult
