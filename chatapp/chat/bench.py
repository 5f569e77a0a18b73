"""Speed on this machine: what is measured, and what comes of it.

Machines differ and are busy with other things, so only what was measured in one run, in turn, is
compared: a ratio is made of the two times of one round, and the median of the rounds is reported.
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
    quality_text: str = ""
    """A text on which the model is compared with its float32 weights, instead of being timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One way of reading or writing, timed once a round."""

    name: str
    """What programs call it: decode, server, no_cache, …"""
    words: str
    """What people call it."""
    tokens: int
    """How many were timed in each round."""
    token_passes: int
    """How many times the model took a token through its layers for them, prompt included."""
    seconds: tuple[float, ...] = ()
    """For each round, in order."""
    base: str | None = "decode"
    """The name of what its speed is compared with; None where no comparison says anything."""

    @property
    def tokens_per_second(self) -> float:
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
    measured: tuple[Measured, ...]
    resident_bytes: int
    """Memory that the engine's process held once the model was loaded and had read a prompt."""
    cancelled: bool = False
    """Whether it was stopped before the first round was complete; then nothing is told."""

    def named(self, name: str) -> Measured:
        return next(one for one in self.measured if one.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How far a model as it runs is from the same weights in float32, on one text.

    All over the tokens of the text that have a context.
    """

    tokens: int
    kl_mean: float
    """KL(float32 ‖ as it runs), in nats."""
    kl_max: float
    agreement: float
    """The share of tokens at which both have the same most probable token."""
    perplexity: float
    perplexity_float32: float
    top_difference_mean: float
    """|Δ logprob| over the float32 model's 20 most probable tokens of each place, in nats."""
    top_difference_max: float


BenchEvent = Progress | BenchResult | Quality
