"""Temperature and the filters of the sampler, for many steps of one reply at once.

Every filter keeps a stretch of the tokens ordered by logit: all from some logit down to another, of
the last one perhaps only some of those that share it. So what is alive in a row is two places of a
sorted table, and each question of a filter (the k-th largest, where the mass reaches p) is a binary
search in its running sums.

The sums are taken in another order than `run_chain` takes them, so a token that stands exactly on
the edge could fall to the other side. Such rows are found, not guessed: a filter that sees a token
closer to its edge than rounding reaches, and probable enough to matter, marks the row as `unsure`,
and the caller asks the chain itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from chatapp.chat.sampling import SamplingParams
from chatapp.engine.sampler.filters import MASS_SLACK
from chatapp.engine.whatif_tables import LogitTable

_SLACK = 1e-5
"""A token less probable than that is let fall to either side of an edge."""

_MASS_ROUNDING = 2e-8
"""How far a share of the mass may be off for each unit of the logits: the chain adds float32
exponentials, whose roundings mostly cancel."""

_BISECTIONS = 50
"""Halvings of a distance between logits: of a hundred nats they leave 1e-13."""


class Living:
    """What is alive in each of r rows while the stages run."""

    def __init__(
        self,
        table: LogitTable,
        taken: torch.Tensor,
        first_ids: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> None:
        """Begin with all that the edits have left.

        Args:
            table: the edited logits.
            taken: (r,) float64, the edited logits of the tokens taken; -inf for banned ones.
            first_ids: finds the lowest ids, (r,) int64, of the tokens with some logits, from the
                logits, (r, 1) float64, and how many tokens have them, (r, 1) float64.
        """
        self.logits, self.counts = table.logits, table.counts
        rows, places = self.logits.shape
        self._ascending = -self.logits
        self._numbers = _sums(self.counts)
        self._places = torch.arange(places)
        self._taken = taken
        self._taken_start = self._after(taken, ties=False)[:, 0]
        self._first_ids = first_ids
        self.scale = torch.ones(rows, dtype=torch.float64)
        """What logits are multiplied by: 1/T once temperature has run."""
        self.start = torch.zeros(rows, 1, dtype=torch.int64)
        self.stop = torch.full((rows, 1), places)
        """The places that are alive: from `start` to before `stop`."""
        self.missing = torch.zeros(rows, 1, dtype=torch.float64)
        """How many tokens of the last logit alive are not: the lowest ids of them."""
        self.unsure = torch.zeros(rows, dtype=torch.bool)
        self.only = torch.full((rows,), -1)
        """The id that an arg-max has left alone; -1 where none was taken."""
        self._rank()

    # What is alive

    @property
    def without_any(self) -> torch.Tensor:
        """The rows of which no distribution can be made, (n,) int64."""
        return (~self.best[:, 0].isfinite()).nonzero().squeeze(1)

    @property
    def number(self) -> torch.Tensor:
        """How many tokens are alive, (r,) float64."""
        return torch.where(self.only >= 0, 1.0, self._number()[:, 0])

    def first_ids(self) -> torch.Tensor:
        """The most probable token alive, (r,) int64; the lowest id among equals."""
        equals = self._number_to(self.best) - self._number_over(self.best)
        self.unsure |= ((self.missing > 0) & (self.best == self._last()))[:, 0]
        return torch.where(self.only >= 0, self.only, self._first_ids(self.best, equals))

    def taken_alive(self, taken_ids: torch.Tensor) -> torch.Tensor:
        """Whether the tokens taken, (r,) int64, are alive, (r,) bool."""
        inside = (self._taken_start >= self.start[:, 0]) & (self._taken_start < self.stop[:, 0])
        chosen = (self.only < 0) | (self.only == taken_ids)
        return (self._taken > -torch.inf) & inside & chosen

    def log_mass(self) -> torch.Tensor:
        """ln Σ exp(logit · scale) of what is alive, (r,) float64."""
        return (self.best * self.scale.unsqueeze(1) + self._mass().log())[:, 0]

    def _number(self) -> torch.Tensor:
        return _at(self._numbers, self.stop) - _at(self._numbers, self.start) - self.missing

    def _mass(self) -> torch.Tensor:
        """The mass alive, (r, 1), in units of the best token's."""
        sums = self._weigh()
        return _at(sums, self.stop) - self.missing * self._weight(self._last())

    def _last(self) -> torch.Tensor:
        """The smallest logit alive, (r, 1)."""
        return self._logit(_place_of(self._numbers, _at(self._numbers, self.stop)))

    def _rank(self) -> None:
        """Find the best one alive; the masses have to be taken anew."""
        self.best = self._nth(torch.ones_like(self.missing))
        """The largest logit alive, (r, 1)."""
        self._masses: torch.Tensor | None = None

    def _weigh(self) -> torch.Tensor:
        """Running sums of exp((logit − best) · scale) from `start` on, (r, m + 1)."""
        if self._masses is None:
            exponents = (self.logits - self.best) * self.scale.unsqueeze(1)
            weights = self.counts * torch.exp(exponents.clamp_(max=0.0))
            dropped = self._places < self.start
            self._masses = _sums(weights.masked_fill_(dropped, 0.0))
        return self._masses

    def _weight(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.exp((logits - self.best) * self.scale.unsqueeze(1))

    # Questions, each for one number a row: (r, 1) in, (r, 1) out

    def _after(self, logit: torch.Tensor, *, ties: bool = True) -> torch.Tensor:
        """How many places have at least that logit (a larger one, without ties)."""
        query = -logit.reshape(-1, 1).contiguous()
        return torch.searchsorted(self._ascending, query, right=ties)

    def _number_to(self, logit: torch.Tensor) -> torch.Tensor:
        """How many tokens alive have at least that logit."""
        place = torch.maximum(torch.minimum(self._after(logit), self.stop), self.start)
        found = _at(self._numbers, place) - _at(self._numbers, self.start)
        return torch.where(place == self.stop, found - self.missing, found)

    def _mass_to(self, logit: torch.Tensor) -> torch.Tensor:
        """The mass alive with at least that logit."""
        place = torch.minimum(self._after(logit), self.stop)
        return torch.where(place == self.stop, self._mass(), _at(self._weigh(), place))

    def _nth(self, n: torch.Tensor) -> torch.Tensor:
        """The n-th largest logit alive."""
        return self._logit(_place_of(self._numbers, _at(self._numbers, self.start) + n))

    def _logit(self, place: torch.Tensor) -> torch.Tensor:
        return _at(self.logits, place.clamp(max=self.logits.shape[1] - 1))

    def _rounding(self, logit: torch.Tensor) -> torch.Tensor:
        """How far rounding may move a comparison with that logit: the chain's are float32."""
        size = logit.abs().clamp(max=1e30) + self.best.abs()
        return size * 2.0**-22 + 2e-7 / self.scale.unsqueeze(1)

    def _doubt(self, edge: torch.Tensor, near: torch.Tensor) -> None:
        """Mark the rows where a token that matters stands on the edge.

        Args:
            edge: (r, 1), the logit at which something is cut.
            near: (r, 1) bool, whether rounding may decide.
        """
        share = self._weight(torch.minimum(edge, self.best)) / self._mass()
        taken = (self._taken.unsqueeze(1) - edge).abs() <= self._rounding(edge)
        self.unsure |= (near & ((share > _SLACK) | taken))[:, 0] & (self.only < 0)

    def _neighbours(self, edge: torch.Tensor) -> torch.Tensor:
        """Whether tokens stand within rounding of an edge, besides those exactly on it."""
        reach = self._rounding(edge)
        around = self._number_to(edge - reach) - self._number_to(edge + reach)
        exactly = self._number_to(edge) - self._number_over(edge)
        return around > exactly

    def _number_over(self, logit: torch.Tensor) -> torch.Tensor:
        """How many tokens alive have a larger logit."""
        place = torch.minimum(self._after(logit, ties=False), self.stop)
        place = torch.maximum(place, self.start)
        found = _at(self._numbers, place) - _at(self._numbers, self.start)
        return torch.where(place == self.stop, found - self.missing, found)

    # Stages

    def follow(self, other: Living) -> None:
        """Take over another's temperature, with nothing cut."""
        self.scale = other.scale
        self._masses = None
        self.only = torch.where(other.only >= 0, self.first_ids(), -1)

    def run(self, name: str, params: SamplingParams) -> bool:
        """Run a stage if it is on; whether it was."""
        return _RUN[name](self, params)

    def temperature(self, params: SamplingParams) -> bool:
        """`filters.temperature`."""
        value, reach = params.temperature, params.dynatemp_range
        if value == 1 and reach == 0:
            return False
        temperature = torch.full_like(self.scale, value)
        if reach > 0 and value > 0:
            low, high = max(0.0, value - reach), value + reach
            number = self._number()[:, 0]
            share = (self._entropy()[:, 0] / number.log()).clamp(max=1.0)
            moved = low + (high - low) * share.clamp(min=0.0) ** params.dynatemp_exponent
            temperature = torch.where(number > 1, moved, temperature)
        arg_max = temperature == 0
        if bool(arg_max.any()):
            self.only = torch.where(arg_max, self.first_ids(), self.only)
        scale = 1.0 / temperature.where(~arg_max, 1.0)
        self.scale = scale.clamp(max=1e300)
        self._masses = None
        return True

    def top_k(self, params: SamplingParams) -> bool:
        """`filters.top_k`."""
        if params.top_k == 0:
            return False
        k = self._number().clamp(max=float(params.top_k))
        edge = self._nth(k)
        self._doubt(edge, self._neighbours(edge))
        self._cut_below(edge)
        return True

    def top_p(self, params: SamplingParams) -> bool:
        """`filters.top_p`."""
        if params.top_p == 1:
            return False
        sums, mass = self._weigh(), self._mass()
        wanted = (params.top_p - MASS_SLACK) * mass
        edge = torch.minimum(self._logit(_place_of(sums, wanted)), self.best)
        edge = torch.maximum(edge, self._last())
        over = self._number_over(edge)
        equals = self._number_to(edge) - over
        above = _at(sums, torch.maximum(self._after(edge, ties=False), self.start))
        each = self._weight(edge)
        needed = torch.where(each > 0, (wanted - above) / each, equals)
        kept = torch.minimum(needed.ceil().clamp(min=1.0), equals)
        # A mass that reaches p by less than rounding may not reach it in another order of adding.
        size = self.best.abs() * self.scale.unsqueeze(1)
        off = (needed - needed.round()).abs() * each / mass
        near = (off < (size + 1) * _MASS_ROUNDING) & (params.top_p > MASS_SLACK)
        self._doubt(edge, near | self._neighbours(edge))
        self._cut_below(edge, equals - kept)
        return True

    def min_p(self, params: SamplingParams) -> bool:
        """`filters.min_p`."""
        if params.min_p == 0:
            return False
        edge = self.best + math.log(params.min_p) / self.scale.unsqueeze(1)
        self._doubt(edge, self._neighbours(edge))
        self._cut_below(edge)
        return True

    def top_n_sigma(self, params: SamplingParams) -> bool:
        """`filters.top_n_sigma`."""
        if params.top_n_sigma == 0:
            return False
        living = self._living()
        distance = (self.logits - self.best).masked_fill(living == 0, 0.0)
        number = living.sum(1, keepdim=True)
        mean = (living * distance).sum(1, keepdim=True) / number
        variance = (living * (distance - mean) ** 2).sum(1, keepdim=True) / number
        edge = self.best - params.top_n_sigma * variance.sqrt()
        self._doubt(edge, self._neighbours(edge))
        self._cut_below(torch.where(number > 1, edge, -torch.inf))
        return True

    def typical(self, params: SamplingParams) -> bool:
        """`filters.typical`: a stretch around the logit whose surprisal is the entropy."""
        if params.typical_p == 1:
            return False
        scale = self.scale.unsqueeze(1)
        mass = self._mass()
        wanted = (params.typical_p - MASS_SLACK) * mass
        centre = self.best + (mass.log() - self._entropy()) / scale
        last = self._last()
        # The smallest distance from the centre within which there is the mass.
        short = torch.full_like(centre, -1.0)
        enough = torch.maximum((self.best - centre).abs(), (centre - last).abs())
        enough = enough * (1 + 1e-12)
        for _ in range(_BISECTIONS):
            middle = (short + enough) / 2
            reached = self._mass_within(centre, middle) >= wanted
            enough = torch.where(reached, middle, enough)
            short = torch.where(reached, short, middle)
        self._doubt_typical(centre, enough, wanted)
        highest = centre + enough
        start = torch.maximum(self.start, self._after(highest, ties=False))
        self._cut_below(centre - enough)
        self._cut_above(start)
        return True

    def xtc(self, params: SamplingParams) -> bool:
        """`filters.xtc` when its coin falls for it (a chance of 1), or not at all (0)."""
        if params.xtc_probability == 0 or params.xtc_threshold > 0.5:
            return False
        scale = self.scale.unsqueeze(1)
        threshold = params.xtc_threshold
        edge = self.best + (self._mass().log() + _log(threshold)) / scale
        edge = torch.maximum(edge, self._last())
        number = self._number_to(edge)
        drops = (number > 1) & (self.only < 0).unsqueeze(1)
        least = self._nth(number.clamp(min=1.0))
        if threshold > 0:
            self._doubt(edge, self._neighbours(edge))
        ties = self._number_to(least) - self._number_over(least) > 1
        self.unsure |= (ties & drops)[:, 0]
        self._cut_above(torch.where(drops, self._after(least, ties=False), self.start))
        return True

    # Cuts

    def _cut_below(self, edge: torch.Tensor, missing: torch.Tensor | None = None) -> None:
        """Drop what is smaller than a logit, and so many of those that equal it."""
        alone = (self.only >= 0).unsqueeze(1)
        stop = torch.minimum(self.stop, self._after(edge))
        stop = torch.maximum(stop, self.start + 1).where(~alone, self.stop)
        kept = self.missing.where(stop == self.stop, 0.0)
        self.missing = kept if missing is None else kept + missing
        self.stop = stop
        # Which of the equals are alive goes by id, which a table does not know.
        cut = (self.missing > 0) & (self._taken.unsqueeze(1) == edge)
        self.unsure |= cut[:, 0] & (self.only < 0)

    def _cut_above(self, start: torch.Tensor) -> None:
        """Drop the places before one."""
        start = start.where((self.only < 0).unsqueeze(1), self.start)
        if bool((start != self.start).any()):
            self.start = start
            self._rank()

    # Sums over what is alive

    def _living(self) -> torch.Tensor:
        """How many tokens are alive at each place, (r, m) float64."""
        alive = (self._places >= self.start) & (self._places < self.stop)
        living = self.counts * alive
        if bool((self.missing > 0).any()):
            edge = self.logits == self._last()
            share = self.missing / (living * edge).sum(1, keepdim=True)
            living = torch.where(edge, living * (1 - share), living)
        return living

    def _entropy(self) -> torch.Tensor:
        """−Σ p ln p of what is alive, (r, 1)."""
        living = self._living()
        exponents = (self.logits - self.best) * self.scale.unsqueeze(1)
        exponents = exponents.masked_fill_(living == 0, -1e4).clamp_(max=0.0, min=-1e4)
        moment = (living * torch.exp(exponents) * exponents).sum(1, keepdim=True)
        mass = self._mass()
        return mass.log() - moment / mass

    def _mass_within(self, centre: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """The mass alive no further than that from a logit."""
        above = torch.minimum(self._after(centre + distance, ties=False), self.stop)
        return self._mass_to(centre - distance) - _at(self._weigh(), above)

    def _doubt_typical(
        self, centre: torch.Tensor, distance: torch.Tensor, wanted: torch.Tensor
    ) -> None:
        """Mark rows where a token stands on the edge of the typical stretch."""
        reach = self._rounding(centre) + 2e-6 / self.scale.unsqueeze(1)
        inner = self._number_within(centre, distance - reach)
        number = self._number_within(centre, distance)
        outer = self._number_within(centre, distance + reach)
        low, high = centre - distance, centre + distance
        margin = (self._mass_within(centre, distance) - wanted) / self._mass()
        near = (outer > number) | (margin < _MASS_ROUNDING)
        # Tokens on both sides, or of several logits, within rounding of the edge.
        at_low = self._number_to(low) - self._number_to(low + reach)
        at_high = self._number_to(high - reach) - self._number_over(high)
        near |= (number - inner > torch.maximum(at_low, at_high)) & (inner < number)
        self._doubt(low, near)
        self._doubt(high, near)

    def _number_within(self, centre: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        return self._number_to(centre - distance) - self._number_over(centre + distance)


_RUN: Mapping[str, Callable[[Living, SamplingParams], bool]] = {
    "temperature": Living.temperature,
    "top_k": Living.top_k,
    "top_p": Living.top_p,
    "min_p": Living.min_p,
    "typical": Living.typical,
    "top_n_sigma": Living.top_n_sigma,
    "xtc": Living.xtc,
}
"""Every stage but mirostat, whose μ goes from token to token."""


def _sums(numbers: torch.Tensor) -> torch.Tensor:
    """Running sums along the rows of (r, m), beginning with 0: (r, m + 1)."""
    sums = torch.zeros(numbers.shape[0], numbers.shape[1] + 1, dtype=numbers.dtype)
    torch.cumsum(numbers, 1, out=sums[:, 1:])
    return sums


def _place_of(sums: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The first place with which running sums reach what is wanted, (r, 1) both."""
    return (torch.searchsorted(sums, wanted) - 1).clamp_(min=0)


def _at(numbers: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """One number a row, (r, 1)."""
    return numbers.gather(1, place)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf
