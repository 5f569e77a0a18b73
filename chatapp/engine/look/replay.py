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
from collections.abc import Callable, Container
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
    seed, draws = reply.seed % 2**64, reply.draws
    if not (_tosses(sampling := reply.sampling_at(index)) or sampling.mirostat_tau > 0):
        return Before(Snapshot(seed, 0, None))
    if len(draws) < index or len(reply.probs) < index:
        return Before(Snapshot(seed, 0, None), NO_RECORDS)
    generator = random.Random(seed)
    places = {generator.random(): place for place in range(2 * len(reply.ids) + 2)}
    begin = _begin(reply, places)
    # How many numbers were drawn is known behind each that drew a token; from there it is counted.
    start = max((at + 1 for at in range(begin, index) if draws[at] is not None), default=begin)
    last = draws[start - 1] if start > begin else None
    drawn = 0 if last is None else places[last] + 1
    mu: float | None = None  # in bits, as `ChainState.observe` moves it
    for place in range(0 if index < begin else begin, index):
        sampling = reply.sampling_at(place)
        if place >= start and _tosses(sampling):
            state = ChainState.restore(Snapshot(seed, drawn, mu))
            run(place, state)
            drawn = state.snapshot().draws
        if sampling.mirostat_tau == 0:
            mu = None
        elif (prob := reply.probs[place]) > 0:
            mu = moved_mu(2 * sampling.mirostat_tau if mu is None else mu, prob, sampling)
    return Before(Snapshot(seed, drawn, mu), TAKEN_OVER if index < begin else "")


def _tosses(sampling: SamplingParams) -> bool:
    return sampling.xtc_probability > 0 and sampling.xtc_threshold <= 0.5


def _begin(reply: WrittenReply, places: Container[float]) -> int:
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
