"""Which tokens are alive while the stages run, for many steps of one reply at once.

Every filter keeps a stretch of the tokens ordered by logit: all from some logit down to another, of
the last one perhaps only some of those that share it. So what is alive in a row is two places of a
sorted table, and each question of a filter (the k-th largest, where the mass reaches p) is a binary
search in its running sums. What lies behind the last stretch of all rows is dropped from the table,
so that the stages after the first filter cost next to nothing.

The sums are taken in another order than `run_chain` takes them, so a token that stands exactly on
the edge could fall to the other side. Such rows are found, not guessed: a filter that sees a token
closer to its edge than rounding reaches, and probable enough to matter, marks the row as `unsure`,
and the caller asks the chain itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from chatapp.engine.look.whatif_tables import LogitTable, running_sums
from chatapp.engine.sampler.alive import COMPACT

_SLACK = 1e-5
"""A token less probable than that is let fall to either side of an edge."""

_DIGITS = 1e-6
"""What is left of a running sum must be this share of it, or the sum has lost its digits."""


class Living:
    """What is alive in each of r rows. Numbers of one a row are (r, 1), unless said otherwise."""

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
        self._ascending, self._numbers = table.ascending, table.numbers
        rows, places = self.logits.shape
        self.taken = taken
        self._first_ids = first_ids
        self.temperature = torch.ones(rows, 1, dtype=torch.float64)
        """What the logits were divided by; 0 where the arg-max was taken instead."""
        self.scale = torch.ones(rows, 1, dtype=torch.float64)
        """What logits are multiplied by: 1/T once temperature has run; 1 for an arg-max."""
        self.start = torch.zeros(rows, 1, dtype=torch.int64)
        self.stop = torch.full((rows, 1), places)
        """The places that are alive: from `start` to before `stop`."""
        self.missing = torch.zeros(rows, 1, dtype=torch.float64)
        """How many tokens of the last logit alive are not: the lowest ids of them."""
        self.unsure = torch.zeros(rows, dtype=torch.bool)
        self.only = torch.full((rows,), -1)
        """The id that an arg-max has left alone; -1 where none was taken."""
        self.whole = torch.ones(rows, 1, dtype=torch.bool)
        """Where the chain holds the set as long as the vocabulary, in float32."""
        self.divided_whole = self.whole
        """Where it did so when it divided by the temperature."""
        self.best = self.nth(torch.ones_like(self.missing))
        """The largest logit alive."""
        self._masses: torch.Tensor | None = None
        self._unit = self.best
        """The logit whose mass is 1 in `_masses`."""
        self._taken_start = self.places_over(taken)

    def fork(self) -> Living:
        """The same state once more, to go on another way."""
        return copy.copy(self)  # stages replace tensors, and write into none

    # What is alive

    @property
    def without_any(self) -> torch.Tensor:
        """The rows of which no distribution can be made, (n,) int64."""
        return (~self.best[:, 0].isfinite()).nonzero().squeeze(1)

    @property
    def alone(self) -> torch.Tensor:
        """Where an arg-max has left one token, bool."""
        return (self.only >= 0).unsqueeze(1)

    @property
    def number(self) -> torch.Tensor:
        """How many tokens are alive, float64, an arg-max aside."""
        return at(self._numbers, self.stop) - at(self._numbers, self.start) - self.missing

    @property
    def choices(self) -> torch.Tensor:
        """How many tokens are alive, (r,) int64."""
        return torch.where(self.only >= 0, 1, self.number[:, 0].long())

    @property
    def last(self) -> torch.Tensor:
        """The smallest logit alive."""
        return self._logit(_place_of(self._numbers, at(self._numbers, self.stop)))

    def first_ids(self) -> torch.Tensor:
        """The most probable token alive, (r,) int64; the lowest id among equals."""
        equals = self.number_to(self.best) - self.number_over(self.best)
        self.mark((self.missing > 0) & (self.best == self.last))
        return torch.where(self.only >= 0, self.only, self._first_ids(self.best, equals))

    def taken_alive(self, taken_ids: torch.Tensor) -> torch.Tensor:
        """Whether the tokens taken, (r,) int64, are alive, (r,) bool."""
        inside = (self._taken_start >= self.start) & (self._taken_start < self.stop)
        chosen = (self.only < 0) | (self.only == taken_ids)
        return (self.taken > -torch.inf) & inside[:, 0] & chosen

    def taken_logprobs(self, taken_ids: torch.Tensor) -> torch.Tensor:
        """ln p of the tokens taken, (r,) int64, as if they were alive: (r,) float64."""
        # The largest first: logits divided by a tiny temperature leave no digits to a sum.
        above = (self.taken.unsqueeze(1) - self._unit_logit()) * self.scale
        alone = torch.where(self.only == taken_ids, 0.0, -torch.inf)
        return torch.where(self.only >= 0, alone, (above - self.mass.log())[:, 0])

    # Masses

    @property
    def mass(self) -> torch.Tensor:
        """The mass alive, as `mass_to` counts it."""
        return self._mass_before(self.stop) - self.missing * self.weight(self.last)

    def mass_to(self, logit: torch.Tensor) -> torch.Tensor:
        """The mass alive with at least that logit, in units of the token's that was the best."""
        place = self.clip(self.places_to(logit))
        return torch.where(place == self.stop, self.mass, self._mass_before(place))

    def weight(self, logits: torch.Tensor) -> torch.Tensor:
        """The mass of one token."""
        return torch.exp((logits - self._unit_logit()) * self.scale)

    def edge_of(self, mass: torch.Tensor) -> torch.Tensor:
        """The logit with which the mass alive, largest logit first, reaches a mass."""
        sums = self._weigh()
        edge = self._logit(_place_of(sums, at(sums, self.start) + mass))
        return torch.maximum(torch.minimum(edge, self.best), self.last)

    def logit_of(self, share: torch.Tensor | float) -> torch.Tensor:
        """The logit that a token of some share of the mass has."""
        return self._unit_logit() + (self.mass * share).log() / self.scale

    def sums(self) -> torch.Tensor:
        """The mass before each place, (r, m + 1): right up to `stop`, from `start` on."""
        sums = self._weigh()
        return sums.scatter(1, self.stop, at(sums, self.start) + self.mass)

    def _mass_before(self, place: torch.Tensor) -> torch.Tensor:
        sums = self._weigh()
        return at(sums, place) - at(sums, self.start)

    def _unit_logit(self) -> torch.Tensor:
        self._weigh()
        return self._unit

    def _weigh(self) -> torch.Tensor:
        """Running sums of exp((logit − unit) · scale), (r, m + 1); the unit is the best one."""
        if self._masses is None:
            self._unit = self.best
            weights = (self.logits - self.best).mul_(self.scale).clamp_(max=0.0).exp_()
            weights.mul_(self.counts)
            if bool(self.start.any()):
                weights.masked_fill_(torch.arange(weights.shape[1]) < self.start, 0.0)
            self._masses = running_sums(weights)
        return self._masses

    # Numbers and places

    def places_to(self, logit: torch.Tensor) -> torch.Tensor:
        """How many places have at least that logit, int64."""
        return torch.searchsorted(self._ascending, _query(logit), right=True)

    def places_over(self, logit: torch.Tensor) -> torch.Tensor:
        """How many places have a larger logit, int64."""
        return torch.searchsorted(self._ascending, _query(logit))

    def clip(self, place: torch.Tensor) -> torch.Tensor:
        """The nearest place that is alive, or the one behind the last."""
        return torch.maximum(torch.minimum(place, self.stop), self.start)

    def number_to(self, logit: torch.Tensor) -> torch.Tensor:
        """How many tokens alive have at least that logit."""
        return self._number_before(self.clip(self.places_to(logit)))

    def number_over(self, logit: torch.Tensor) -> torch.Tensor:
        """How many tokens alive have a larger logit."""
        return self._number_before(self.clip(self.places_over(logit)))

    def nth(self, n: torch.Tensor) -> torch.Tensor:
        """The n-th largest logit alive."""
        return self._logit(_place_of(self._numbers, at(self._numbers, self.start) + n))

    def living(self) -> torch.Tensor:
        """How many tokens are alive at each place, (r, m) float64."""
        places = torch.arange(self.logits.shape[1])
        living = self.counts * ((places >= self.start) & (places < self.stop))
        if bool((self.missing > 0).any()):
            edge = self.logits == self.last
            share = self.missing / (living * edge).sum(1, keepdim=True)
            living = torch.where(edge, living * (1 - share), living)
        return living

    def held(self) -> torch.Tensor:
        """The logits after temperature to the last bit of the chain's own, (r, m) float64."""
        if bool((self.temperature == 1).all()):
            return self.logits
        divisor = torch.where(self.temperature > 0, self.temperature, 1.0)
        temperature = as_held(divisor, self.divided_whole)
        return as_held(self.logits / temperature, self.divided_whole)

    def _number_before(self, place: torch.Tensor) -> torch.Tensor:
        found = at(self._numbers, place) - at(self._numbers, self.start)
        return torch.where(place == self.stop, found - self.missing, found)

    def _logit(self, place: torch.Tensor) -> torch.Tensor:
        return at(self.logits, place.clamp(max=self.logits.shape[1] - 1))

    # Doubts

    def rounding(self, logit: torch.Tensor) -> torch.Tensor:
        """How far rounding may move a comparison with that logit: the chain's are float32."""
        size = logit.abs().clamp(max=1e30) + self.best.abs()
        return size * 2.0**-22 + 2e-7 / self.scale

    def neighbours(self, edge: torch.Tensor) -> torch.Tensor:
        """Whether tokens stand within rounding of an edge, besides those exactly on it."""
        reach = self.rounding(edge)
        around = self.number_to(edge - reach) - self.number_to(edge + reach)
        exactly = self.number_to(edge) - self.number_over(edge)
        return around > exactly

    def doubt(self, edge: torch.Tensor, near: torch.Tensor) -> None:
        """Mark the rows where a token that matters stands on the edge.

        Args:
            edge: the logit at which something is cut.
            near: bool, whether rounding may decide.
        """
        if not bool(near.any()):
            return  # spares the masses, where no stage has needed them yet
        share = self.weight(torch.minimum(edge, self.best)) / self.mass
        taken = (self.taken.unsqueeze(1) - edge).abs() <= self.rounding(edge)
        self.mark(near & ((share > _SLACK) | taken))

    def mark(self, rows: torch.Tensor) -> None:
        """The chain has to be asked about those rows, (r, 1) bool, but where one token is left."""
        self.unsure = self.unsure | (rows & ~self.alone)[:, 0]

    # Changes

    def divide(self, temperature: torch.Tensor) -> None:
        """Divide the logits by a temperature; where it is 0, leave the arg-max alone."""
        arg_max = temperature == 0
        if bool(arg_max.any()):
            self.only = torch.where(arg_max[:, 0], self.first_ids(), self.only)
        self.temperature = temperature
        self.scale = (1.0 / temperature.where(~arg_max, 1.0)).clamp(max=1e300)
        self.divided_whole = self.whole
        self.whole = self.whole & ~arg_max
        self._masses = None

    def cut_below(self, edge: torch.Tensor, missing: torch.Tensor | None = None) -> None:
        """Drop what is smaller than a logit, and so many of those that equal it."""
        stop = torch.minimum(self.stop, self.places_to(edge))
        stop = torch.maximum(stop, self.start + 1).where(~self.alone, self.stop)
        kept = self.missing.where(stop == self.stop, 0.0)
        self.missing = kept if missing is None else kept + missing
        self.stop = stop
        # Which of the equals are alive goes by id, which a table does not know.
        self.mark((self.missing > 0) & (self.taken.unsqueeze(1) == edge))
        self._narrow()

    def cut_above(self, start: torch.Tensor) -> None:
        """Drop the places before one, but not the last that is alive."""
        start = torch.minimum(start, self.stop - 1).where(~self.alone, self.start)
        if not bool((start != self.start).any()):
            return
        self.start = start
        self.best = self.nth(torch.ones_like(self.missing))
        if self._masses is not None:
            left = self._mass_before(self.stop) / at(self._masses, self.stop)
            if bool((left < _DIGITS).any()):
                self._masses = None

    def cut_at(self, stop: torch.Tensor) -> None:
        """Drop the places from one on; where that is all of them, leave the first token alone."""
        none = (stop <= self.start) & ~self.alone
        if bool(none.any()):
            self.only = torch.where(none[:, 0], self.first_ids(), self.only)
        stop = torch.where(self.alone, self.stop, stop)
        self.missing = self.missing.where(stop == self.stop, 0.0)
        self.stop = stop
        self._narrow()

    def settle(self) -> None:
        """After a filter: the chain holds what has become small sorted, in float64."""
        self.whole = self.whole & (self.number + self.missing > COMPACT)

    def _narrow(self) -> None:
        """Let go of the places that are dead in every row."""
        width = int(self.stop.max())
        if 2 * width > self.logits.shape[1]:
            return
        self.logits = self.logits[:, :width].contiguous()
        self.counts = self.counts[:, :width].contiguous()
        self._ascending = self._ascending[:, :width].contiguous()
        self._numbers = self._numbers[:, : width + 1].contiguous()
        if self._masses is not None:
            self._masses = self._masses[:, : width + 1].contiguous()


def at(numbers: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """One number a row, (r, 1), of (r, m)."""
    return numbers.gather(1, place)


def as_held(numbers: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """float64 numbers as the chain holds them: rounded to float32 in the rows held `whole`."""
    if not bool(whole.any()):
        return numbers
    return torch.where(whole, numbers.float().double(), numbers)


def held_weights(distance: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """exp of (r, m) float64 numbers as the chain takes it, in float32 in the rows held `whole`."""
    if not bool(whole.any()):
        return torch.exp(distance)
    weights = torch.exp(distance.float()).double()
    return weights if bool(whole.all()) else torch.where(whole, weights, torch.exp(distance))


def _query(logit: torch.Tensor) -> torch.Tensor:
    return -logit.reshape(-1, 1).contiguous()


def _place_of(sums: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The first place with which running sums reach what is wanted."""
    return (torch.searchsorted(sums, wanted) - 1).clamp_(min=0)
