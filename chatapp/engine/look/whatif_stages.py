"""Temperature and the filters of the sampler, for many steps of one reply at once.

Each function is the one of the same name in `sampler.filters`, asked of `Living`, and changes that.
`whatif_living` says how a row is found for which rounding may decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from chatapp.chat.sampling import SamplingParams
from chatapp.engine.look.whatif_living import Living, as_held, at, held_weights
from chatapp.engine.sampler.filters import MASS_SLACK

_MASS_ROUNDING = 2e-8
"""How far a share of the mass may be off for each unit of the logits: the chain adds float32
exponentials, whose roundings mostly cancel."""

_BISECTIONS = 40
"""Halvings of a distance between logits: of a hundred nats they leave 1e-10."""


@dataclass(frozen=True, slots=True)
class Stage:
    """How a stage is run, and when it does anything."""

    is_on: Callable[[SamplingParams], bool]
    run: Callable[[Living, SamplingParams], None]
    sorts: bool = True
    """Whether the chain holds a small set sorted after it."""


def temperature(living: Living, params: SamplingParams) -> None:
    """`filters.temperature`."""
    value, reach = params.temperature, params.dynatemp_range
    divisor = torch.full_like(living.scale, value)
    if reach > 0 and value > 0:
        low, high = max(0.0, value - reach), value + reach
        number = living.number
        share = (entropy(living) / number.log()).clamp(max=1.0)
        moved = low + (high - low) * share.clamp(min=0.0) ** params.dynatemp_exponent
        divisor = torch.where(number > 1, moved, divisor)
    living.divide(divisor)


def top_k(living: Living, params: SamplingParams) -> None:
    """`filters.top_k`."""
    edge = living.nth(living.number.clamp(max=float(params.top_k)))
    living.doubt(edge, living.neighbours(edge))
    living.cut_below(edge)


def top_p(living: Living, params: SamplingParams) -> None:
    """`filters.top_p`."""
    mass = living.mass
    wanted = (params.top_p - MASS_SLACK) * mass
    edge = living.edge_of(wanted)
    equals = living.number_to(edge) - living.number_over(edge)
    each = living.weight(edge)
    above = living.mass_to(edge) - equals * each
    needed = torch.where(each > 0, (wanted - above) / each, equals)
    kept = torch.minimum(needed.ceil().clamp(min=1.0), equals)
    # A mass that reaches p by less than rounding may not reach it in another order of adding.
    size = living.best.abs() * living.scale
    off = (needed - needed.round()).abs() * each / mass
    near = (off < (size + 1) * _MASS_ROUNDING) & (params.top_p > MASS_SLACK)
    living.doubt(edge, near | living.neighbours(edge))
    living.cut_below(edge, equals - kept)


def min_p(living: Living, params: SamplingParams) -> None:
    """`filters.min_p`."""
    edge = living.best + math.log(params.min_p) / living.scale
    living.doubt(edge, living.neighbours(edge))
    living.cut_below(edge)


def top_n_sigma(living: Living, params: SamplingParams) -> None:
    """`filters.top_n_sigma`."""
    counts = living.living()
    number = living.number
    distance = (living.logits - living.best).masked_fill_(counts == 0, 0.0)
    mean = (counts * distance).sum(1, keepdim=True) / number
    variance = distance.sub_(mean).square_().mul_(counts).sum(1, keepdim=True) / number
    edge = living.best - params.top_n_sigma * variance.sqrt()
    living.doubt(edge, living.neighbours(edge))
    living.cut_below(torch.where(number > 1, edge, -torch.inf))


def typical(living: Living, params: SamplingParams) -> None:
    """`filters.typical`: a stretch around the logit whose surprisal is the entropy."""
    wanted = (params.typical_p - MASS_SLACK) * living.mass
    centre = living.logit_of(torch.exp(-entropy(living)))
    sums = living.sums()

    def mass_within(distance: torch.Tensor) -> torch.Tensor:
        low = living.clip(living.places_to(centre - distance))
        high = living.clip(living.places_over(centre + distance))
        return at(sums, low) - at(sums, high)

    # The smallest distance from the centre within which there is the mass.
    short = torch.full_like(centre, -1.0)
    enough = torch.maximum((living.best - centre).abs(), (centre - living.last).abs())
    enough = enough * (1 + 1e-12)
    for _ in range(_BISECTIONS):
        middle = (short + enough) / 2
        reached = mass_within(middle) >= wanted
        enough = torch.where(reached, middle, enough)
        short = torch.where(reached, short, middle)
    margin = (mass_within(enough) - wanted) / living.mass
    _doubt_typical(living, centre, enough, margin < _MASS_ROUNDING)
    start = torch.maximum(living.start, living.places_over(centre + enough))
    living.cut_below(centre - enough)
    living.cut_above(start)


def _doubt_typical(
    living: Living, centre: torch.Tensor, distance: torch.Tensor, near: torch.Tensor
) -> None:
    """Mark rows where a token stands on the edge of the typical stretch."""

    def number_within(distance: torch.Tensor) -> torch.Tensor:
        found = living.number_to(centre - distance) - living.number_over(centre + distance)
        return found.clamp(min=0.0)

    reach = living.rounding(centre) + 2e-6 / living.scale
    inner = number_within(distance - reach)
    number = number_within(distance)
    outer = number_within(distance + reach)
    low, high = centre - distance, centre + distance
    near = near | (outer > number)
    # Tokens on both sides, or of several logits, within rounding of the edge.
    at_low = living.number_to(low) - living.number_to(low + reach)
    at_high = living.number_to(high - reach) - living.number_over(high)
    near = near | ((number - inner > torch.maximum(at_low, at_high)) & (inner < number))
    near = near & (living.number > 1)
    living.doubt(low, near)
    living.doubt(high, near)


def xtc(living: Living, params: SamplingParams) -> None:
    """`filters.xtc` where its coin falls for it."""
    edge = torch.maximum(living.logit_of(params.xtc_threshold), living.last)
    number = living.number_to(edge)
    drops = (number > 1) & ~living.alone
    least = living.nth(number.clamp(min=1.0))
    if params.xtc_threshold > 0:
        living.doubt(edge, living.neighbours(edge))
    # Which of the equals is spared goes by id, which a table does not know.
    living.mark((living.number_to(least) - living.number_over(least) > 1) & drops)
    living.cut_above(torch.where(drops, living.places_over(least), living.start))


def entropy(living: Living) -> torch.Tensor:
    """−Σ p ln p of what is alive, (r, 1), by the arithmetic of `Alive.entropy_bits`."""
    counts, held = living.living(), living.held()
    best = held.masked_fill(counts == 0, -torch.inf).amax(1, keepdim=True)
    distance = as_held((held - best).clamp_(min=-1e4, max=0.0), living.whole)
    weights = held_weights(distance, living.whole)
    total = (counts * weights).sum(1, keepdim=True)
    moments = as_held(distance.mul_(weights), living.whole).mul_(counts).sum(1, keepdim=True)
    return (total.log() - moments / total).clamp(min=0.0)


STAGES: Mapping[str, Stage] = {
    "temperature": Stage(
        lambda params: params.temperature != 1 or params.dynatemp_range != 0,
        temperature,
        sorts=False,
    ),
    "top_k": Stage(lambda params: params.top_k != 0, top_k),
    "top_p": Stage(lambda params: params.top_p != 1, top_p),
    "min_p": Stage(lambda params: params.min_p != 0, min_p),
    "typical": Stage(lambda params: params.typical_p != 1, typical),
    "top_n_sigma": Stage(lambda params: params.top_n_sigma != 0, top_n_sigma),
    "xtc": Stage(
        lambda params: params.xtc_probability != 0 and params.xtc_threshold <= 0.5,
        xtc,
        sorts=False,
    ),
}
"""Every stage but mirostat, whose μ goes from token to token (`whatif_mirostat`)."""
