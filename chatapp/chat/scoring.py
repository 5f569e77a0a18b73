"""Scoring a text that is given: what comes of it, in order.

Any number of `Progress`, one `ScoreStart`, a `TokenRecord` for every token that has a context, and
one `ScoreEnd`.
"""

from __future__ import annotations

from dataclasses import dataclass

from chatapp.chat.facts import Progress
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.record import TokenRecord
from chatapp.chat.sampling import SamplingParams

PLAIN = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
"""Every stage off: tempered and final probabilities are the model's. What scoring goes by."""


@dataclass(frozen=True, slots=True)
class ScoreStart:
    """The text in tokens."""

    tokens: tuple[TokenPiece, ...]
    """A record's `index` is a place among these."""
    context_tokens: int
    """How many tokens the model reads before the first of them: its BOS token, or a prompt."""
    first: int
    """The index of the first record: 1 where nothing stands before the text, else 0."""


@dataclass(frozen=True, slots=True)
class ScoreEnd:
    """The text is scored, or scoring was stopped."""

    scored: int
    """How many records came."""
    total_logprob: float
    """Sum of their ln p."""
    perplexity: float
    """exp(−total_logprob / scored); NaN when nothing was scored."""
    seconds: float
    cancelled: bool = False


ScoreEvent = Progress | ScoreStart | TokenRecord | ScoreEnd
