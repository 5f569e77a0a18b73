"""Where the sampler's chain stood before one token of a finished reply.

Two stages depend on what happened before: XTC tosses a coin, mirostat carries μ. Both follow from
what a reply keeps. The numbers that its seed gives are always the same, and each token's record
says which of them drew it, so the coins in between can be counted; μ follows from the probabilities
the tokens were drawn with. Settings that were changed in mid-reply are known by their spans.

A start that was taken over from another reply (continued, branched) was drawn with another seed.
Its numbers are told from this seed's by their values, and then it is said that they aren't known.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from chatapp.chat.inspection import WrittenReply
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.sampler.chain import ChainState, Outcome, Snapshot, moved_mu

TAKEN_OVER = (
    "this token was taken over from another reply, so the number that XTC drew for it and"
    " mirostat's bound are not known here"
)
NO_RECORDS = (
    "the reply has no record of its draws, so what XTC drew and mirostat's bound are guesses"
)


@dataclass(frozen=True, slots=True)
class Before:
    """The chain's state before a step."""

    snapshot: Snapshot
    note: str = ""
    """Why it may not be what it was; empty when it is exact, or when nothing depends on it."""


def state_before(
    reply: WrittenReply, index: int, run: Callable[[int, ChainState], Outcome]
) -> Before:
    """The state of the chain before a token of a reply.

    `run`: sends the step of an index through the chain; asked only for tokens that were taken
    without a draw while XTC was on.
    """
    seed = reply.seed % 2**64
    if not _depends(reply, index):
        return Before(Snapshot(seed, 0, None))
    if len(reply.draws) < index or len(reply.probs) < index:
        return Before(Snapshot(seed, 0, None), NO_RECORDS)
    places = _places(seed, 2 * len(reply.ids) + 2)
    begin = _begin(reply, places)
    if index < begin:
        return Before(Snapshot(seed, 0, _mu(reply, 0, index)), TAKEN_OVER)
    mu = _mu(reply, begin, index)
    return Before(Snapshot(seed, _count(reply, begin, index, places, run), mu))


def _depends(reply: WrittenReply, index: int) -> bool:
    sampling = reply.sampling_at(index)
    return _tosses(sampling) or sampling.mirostat_tau > 0


def _tosses(sampling: SamplingParams) -> bool:
    return sampling.xtc_probability > 0 and sampling.xtc_threshold <= 0.5


def _places(seed: int, count: int) -> dict[float, int]:
    """The first numbers of a seed, each with its place."""
    generator = random.Random(seed)
    return {generator.random(): place for place in range(count)}


def _begin(reply: WrittenReply, places: dict[float, int]) -> int:
    """The first token that this reply's own request took: a span of settings begins there."""
    foreign = [
        index
        for index, number in enumerate(reply.draws)
        if number is not None and number not in places
    ]
    if not foreign:
        return 0
    starts = [span.start for span in reply.spans if span.start > foreign[-1]]
    return min(starts, default=len(reply.ids))


def _mu(reply: WrittenReply, begin: int, index: int) -> float | None:
    """Mirostat's μ in bits, as `ChainState.observe` moves it."""
    mu: float | None = None
    for place in range(begin, index):
        sampling = reply.sampling_at(place)
        if sampling.mirostat_tau == 0:
            mu = None
        elif (prob := reply.probs[place]) > 0:
            mu = moved_mu(2 * sampling.mirostat_tau if mu is None else mu, prob, sampling)
    return mu


def _count(
    reply: WrittenReply,
    begin: int,
    index: int,
    places: dict[float, int],
    run: Callable[[int, ChainState], Outcome],
) -> int:
    """How many numbers were drawn before a token."""
    drawn, start = 0, begin
    for place in range(begin, index):
        number = reply.draws[place]
        if number is not None:
            drawn, start = places[number] + 1, place + 1
    for place in range(start, index):
        if _tosses(reply.sampling_at(place)):
            state = ChainState.restore(Snapshot(reply.seed, drawn, _mu(reply, begin, place)))
            run(place, state)
            drawn = state.snapshot().draws
    return drawn
