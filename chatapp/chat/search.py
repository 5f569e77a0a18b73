"""Decoders that look at more than one continuation: what is asked of them, and what they show.

Sampling takes one token and never looks back. Beam search keeps several continuations alive and
drops the worse ones at every step; contrastive search weighs a few candidates against all that was
written before; several replies to one prompt run side by side. Every step is told in full, with
what was dropped, so that a tree or a table can be drawn from the events alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from chatapp.chat.errors import ChatappError
from chatapp.chat.facts import Progress
from chatapp.chat.generation import GenerationEnd, PromptRead, TokenStep
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.record import FinishReason

MOST_BEAMS = 64
MOST_COLUMNS = 16
MOST_CANDIDATES = 256


class SearchError(ChatappError, ValueError):
    """A setting of a search that cannot be used; the message says what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamOptions:
    """How to search with beams. Raises SearchError: a value is outside its bounds."""

    num_beams: int = 4
    """How many continuations live at once."""
    length_penalty: float = 1.0
    """A score is the sum of logprobs / length ** this: above 0 favours long, below 0 short."""
    max_tokens: int = 64
    """0 is as many as the context has room for."""
    num_return: int = 1
    """How many of the finished hypotheses are given back, best first."""

    def __post_init__(self) -> None:
        _check_count("num_beams", self.num_beams, 1, MOST_BEAMS)
        _check_count("num_return", self.num_return, 1, self.num_beams)
        _check_count("max_tokens", self.max_tokens, 0)
        _check_number("length_penalty", self.length_penalty, -5, 5)


class ExtensionFate(StrEnum):
    """What became of one way to go on."""

    KEPT = "kept"
    """It is one of the living beams."""
    FINISHED = "finished"
    """It ended, and is among the best hypotheses so far."""
    DROPPED = "dropped"
    """Others scored better."""


@dataclass(frozen=True, slots=True)
class BeamExtension:
    """One beam with one more token: a branch of the tree."""

    parent: int
    """Which beam it extends: an index into the `beams` of the step before; 0 at the first step."""
    token: TokenPiece
    logprob: float
    """ln p of the token alone, given the beam."""
    total_logprob: float
    """Sum of the logprobs of the whole continuation."""
    score: float
    """total_logprob / length ** length_penalty, the length with this token."""
    ends: bool
    """Whether it goes no further: an end token, or no more tokens are allowed."""
    fate: ExtensionFate
    beam: int | None = None
    """Which living beam it became: an index into this step's `beams`."""


@dataclass(frozen=True, slots=True)
class Beam:
    """A living continuation."""

    ids: tuple[int, ...]
    parent: int
    """The beam it grew from: an index into the `beams` of the step before; 0 at the first step."""
    total_logprob: float
    score: float


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished continuation."""

    ids: tuple[int, ...]
    """With the end token, where that ended it."""
    text: str
    """Without the end token."""
    total_logprob: float
    score: float
    reason: FinishReason
    """stop, length or context; cancelled for a beam that was alive when the search was stopped."""


@dataclass(frozen=True, slots=True)
class BeamStep:
    """One level of the tree: every extension that was looked at, and what is left."""

    index: int
    """From 0."""
    extensions: tuple[BeamExtension, ...]
    """The best (end tokens + 1) · beams of all of them, best first."""
    beams: tuple[Beam, ...]
    """The living, best first; empty when no more tokens are allowed."""
    finished: tuple[Hypothesis, ...]
    """The best hypotheses so far, at most `num_beams`, best first."""


class BeamStop(StrEnum):
    """Why a beam search ended."""

    SETTLED = "settled"
    """No living beam was expected to beat the worst finished hypothesis."""
    LENGTH = "length"
    CONTEXT = "context"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class BeamEnd:
    """The search is over."""

    hypotheses: tuple[Hypothesis, ...]
    """The best, at most `num_return`; after an early end the living beams are among them."""
    reason: BeamStop
    seconds: float
    """From the first step to the last."""
    message: str = ""
    """For context and error: what happened and what to do."""


BeamEvent = Progress | PromptRead | BeamStep | BeamEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastiveOptions:
    """How to search contrastively (Su et al. 2022, "A Contrastive Framework for Neural Text
    Generation", arXiv 2202.06417).

    Raises SearchError: a value is outside its bounds.
    """

    top_k: int = 4
    """How many of the most probable tokens are weighed."""
    penalty_alpha: float = 0.6
    """α: 0 is greedy, 1 looks at the penalty alone."""
    max_tokens: int = 256
    """0 is as many as the context has room for."""

    def __post_init__(self) -> None:
        _check_count("top_k", self.top_k, 1, MOST_CANDIDATES)
        _check_count("max_tokens", self.max_tokens, 0)
        _check_number("penalty_alpha", self.penalty_alpha, 0, 1)


@dataclass(frozen=True, slots=True)
class ContrastiveCandidate:
    """One token that was weighed."""

    token: TokenPiece
    model_prob: float
    """p(v | x), of the model alone."""
    penalty: float
    """The degeneration penalty: the largest cosine similarity of its hidden state with that of any
    token before it, −1 to 1."""
    closest: int
    """Which token that was: its position in prompt and reply, from 0."""
    score: float
    """(1 − α) · model_prob − α · penalty."""


@dataclass(frozen=True, slots=True)
class ContrastiveStep:
    """One token was taken."""

    index: int
    """Position in the reply, from 0."""
    candidates: tuple[ContrastiveCandidate, ...]
    """Most probable first."""
    chosen: int
    """Which of them was taken: the one with the largest score."""
    text: str
    """What became printable with it."""


@dataclass(frozen=True, slots=True)
class ContrastiveEnd:
    """The search is over. The reply is the chosen tokens of the steps."""

    reason: FinishReason
    seconds: float
    """From the first step to the last."""
    message: str = ""
    """For context and error: what happened and what to do."""


ContrastiveEvent = Progress | PromptRead | ContrastiveStep | ContrastiveEnd


@dataclass(frozen=True, slots=True)
class ColumnEvent:
    """What one of several replies to the same prompt tells."""

    column: int
    """Which of them, from 0."""
    event: TokenStep | GenerationEnd


SeveralEvent = Progress | PromptRead | ColumnEvent


def _check_count(name: str, value: int, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SearchError(f"{name} must be a whole number, not {value!r}")
    if value < low or (high is not None and value > high):
        allowed = f"of at least {low}" if high is None else f"between {low} and {high}"
        raise SearchError(f"{name} must be a whole number {allowed}, not {value}")


def _check_number(name: str, value: float, low: float, high: float) -> None:
    usable = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
    if not usable or not low <= value <= high:
        raise SearchError(f"{name} must be a number between {low:g} and {high:g}, not {value!r}")
