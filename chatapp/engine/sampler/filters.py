"""Filters and temperature: the stages whose order the user chooses.

Each function is pure: a set of living tokens and a setting in, a `Cut` out. Probabilities are those
among the living at that moment, so an order matters. Every function leaves at least one token.
`measure` says what a token had where it was cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chatapp.engine.sampler.alive import Alive, Array, Ids, crossing

_NONE: Ids = np.empty(0, dtype=np.int64)

MASS_SLACK = 1e-9
"""A mass this close below p has reached it: ten tokens of 10 % give 90 % with nine of them,
although nine times 0.1 falls short of 0.9 in binary."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What a stage left, and what it asked for."""

    alive: Alive
    threshold: float | None
    """What a token needed to stay, in the stage's own measure; None where nothing is cut."""
    temperature: float | None = None
    """What the logits were divided by; 0 where the arg-max was taken."""
    drawn: float | None = None
    """The uniform number that a random stage drew."""


def temperature(
    alive: Alive, value: float, dynamic_range: float = 0.0, exponent: float = 1.0
) -> Cut:
    """Divide the logits by a temperature; at 0 keep the first of the largest alone.

    With a dynamic range r the temperature moves between max(0, T − r) and T + r with the entropy H
    of the n living tokens: T_min + (T_max − T_min)·(H / ln n)^exponent. T = 0 is the arg-max with
    any range. Source: kalomaze's dynamic temperature as llama.cpp has it
    (`llama_sampler_temp_ext`); n counts what is alive, not what was banned.
    """
    if dynamic_range > 0 and value > 0 and alive.count > 1:
        low, high = max(0.0, value - dynamic_range), value + dynamic_range
        share = min(alive.entropy_bits / math.log2(alive.count), 1.0)
        value = low + (high - low) * share**exponent
    if value == 0:
        return Cut(alive.only(alive.first()), alive.best, temperature=0.0)
    return Cut(alive.scaled(value), None, temperature=value)


def top_k(alive: Alive, k: int) -> Cut:
    """Keep the k largest logits, and what ties with the last of them.

    Source: Fan et al. 2018 (arXiv 1805.04833); ties as in transformers' TopKLogitsWarper.
    """
    return Cut(alive.leaders(k, compact=False), float(k))


def top_p(alive: Alive, p: float) -> Cut:
    """Keep the smallest set, most probable first, whose mass reaches p (nucleus sampling).

    The token with which the mass reaches p stays. Among equals the higher ids come first, as in
    transformers' TopPLogitsWarper wherever its sort (upwards, not promised to be stable) keeps
    equals in place. Source: Holtzman et al. 2019 (arXiv 1904.09751).
    """
    found = alive.crossing(p - MASS_SLACK)
    equals = alive.equal_to(found.key)
    each = math.exp(found.key - alive.best) / alive.total
    needed = (p - MASS_SLACK - found.above) / each if each > 0 else math.inf
    kept = int(min(max(math.ceil(min(needed, equals.size)), 1), equals.size))
    return Cut(alive.at_least(found.key).without(equals[: equals.size - kept]), p)


def min_p(alive: Alive, share: float) -> Cut:
    """Keep what is at least `share` times as probable as the most probable token.

    Source: Nguyen et al. 2024 (arXiv 2407.01082); transformers' MinPLogitsWarper.
    """
    threshold = share / alive.total
    return Cut(alive.at_least(alive.best + math.log(share)), threshold)


def typical(alive: Alive, mass: float) -> Cut:
    """Keep the tokens whose surprisal is nearest to the entropy until they hold the mass.

    The token with which it is reached stays, and what ties with it. Source: Meister et al. 2022
    (arXiv 2202.00666); transformers' TypicalLogitsWarper.
    """
    keys = _typicality(alive)
    living = alive.logits > -math.inf
    weights = alive.weights[living]
    bound = crossing(keys[living], weights, (mass - MASS_SLACK) * alive.total).key
    return Cut(alive.keep(keys >= bound), mass)


def top_n_sigma(alive: Alive, n: float) -> Cut:
    """Keep logits within n standard deviations of the largest.

    Source: Tang et al. 2024 (arXiv 2411.07641); llama.cpp's top-n-sigma, which takes the deviation
    over what is alive.
    """
    if alive.count < 2:
        return Cut(alive, alive.best)
    living = alive.logits[alive.logits > -math.inf].astype(np.float64)
    threshold = alive.best - n * float(living.std())
    return Cut(alive.at_least(threshold), threshold)


def xtc(alive: Alive, probability: float, threshold: float, uniform: Callable[[], float]) -> Cut:
    """With a chance, drop all tokens of at least the threshold but the least probable of them.

    Off, without a draw, above a threshold of 0.5 and where one token is left. Among equals the one
    with the highest id is the least. Source: p-e-w's XTC (oobabooga/text-generation-webui #6335) as
    llama.cpp has it (`llama_sample_xtc_apply`).

    `probability`: the chance; the coin falls for it when it is not above. `uniform`: draws the
    coin, in [0, 1).
    """
    if probability <= 0 or threshold > 0.5 or alive.count < 2:
        return Cut(alive, threshold)
    coin = uniform()
    if coin > probability:
        return Cut(alive, threshold, drawn=coin)
    bound = alive.log_mass + math.log(threshold) if threshold > 0 else -math.inf
    choices = alive.at_least(bound, compact=True)
    dropped = choices.ids[:-1] if choices.ids is not None and choices.count > 1 else _NONE
    return Cut(alive.without(dropped), threshold, drawn=coin)


def mirostat(alive: Alive, mu: float) -> Cut:
    """Keep the tokens of at most μ bits of surprisal, or the most probable one.

    Source: Basu et al. 2021 (arXiv 2007.14966), version 2 as in llama.cpp; the chain's state moves
    μ after the draw.
    """
    kept = alive.at_least(alive.log_mass - mu * math.log(2))
    return Cut(kept if kept.count else alive.only(alive.first()), mu)


def measure(stage: str, before: Alive, ids: Ids) -> Array:
    """What each token had of what the stage asked for, among those that reached the stage.

    A probability for min_p and xtc, bits for mirostat, a rank for top_k, a logit for top_n_sigma
    and temperature; for top_p and typical the mass of the tokens that come before it in the stage's
    order (at least the stage's mass, or it had been kept). Returns (m,) float64.

    Args:
        stage: a name in `SamplingParams.order`.
        before: what was alive when the stage began.
        ids: (m,), all alive in `before`; m is at least 1.
    """
    logits = before.at(ids)
    match stage:
        case "top_k":
            return before.ranks(logits).astype(np.float64)
        case "top_p":
            return _mass_before(before, ids)
        case "typical":
            return _more_typical_mass(before, ids)
        case "min_p" | "xtc":
            probs: Array = np.exp(before.logprobs(logits))
            return probs
        case "mirostat":
            bits: Array = -before.logprobs(logits) / math.log(2)
            return bits
    return logits


def _typicality(alive: Alive) -> Array:
    """−|surprisal − entropy| in nats, as long as the set's logits; -inf where a token is out."""
    entropy = alive.entropy_bits * math.log(2)
    typicality: Array = -np.abs(alive.logprobs(alive.logits) + entropy)
    return typicality


def _mass_before(before: Alive, ids: Ids) -> Array:
    """The mass ahead of each id in top_p's order: by probability, higher ids first among equals."""
    ahead = before.at_least(float(before.at(ids).min()), compact=True)
    assert ahead.ids is not None
    # A set lists lower ids first among equals; turned round and sorted stably, it does not.
    logits = ahead.logits[::-1]
    order = np.argsort(-logits, kind="stable")
    probs = np.exp(before.logprobs(logits[order]))
    ranked = Alive(logits[order], ahead.ids[::-1][order], before.vocabulary)
    return ranked.look_up(probs.cumsum() - probs, ids, 0.0)


def _more_typical_mass(before: Alive, ids: Ids) -> Array:
    """The mass of what is strictly more typical than each id."""
    keys = _typicality(before)
    asked = before.look_up(keys, ids, -math.inf)
    ahead = keys >= asked.min()
    order = np.argsort(keys[ahead])
    weights = before.weights[ahead].astype(np.float64)[order]
    # The mass from the top down to each place; one place more for what has nothing above it.
    from_top = np.append(weights[::-1].cumsum()[::-1], 0.0)
    found: Array = from_top[np.searchsorted(keys[ahead][order], asked, side="right")]
    return found / before.total
