"""The tokens still in play at one stage of the chain, and the exact questions stages ask of them.

A vocabulary has tens of thousands of tokens and most stages leave a few dozen. Sorting all of them
at every step costs more than the rest of the chain together, so a set is held in one of two forms:
the whole vocabulary, unsorted, with -inf where a token is out, or only the living, most probable
first. Of a whole vocabulary the few hundred most probable are sorted once; they answer nearly every
question, and only the others look at all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
"""Logits or what goes with them, float32 or float64."""
Ids = npt.NDArray[np.int64]
"""Token ids."""
Mask = npt.NDArray[np.bool_]

COMPACT = 4096
"""Sets up to this size are held sorted; larger ones stay as long as the vocabulary."""

_DIRECT = 1024
"""Up to this many keys a sort is cheaper than buckets."""

_BUCKETS = 2048

_LEADERS = 256
"""So many of the most probable are sorted at once: what stages keep in most rows of any model."""

_PAIRS = 1 << 16
"""Up to so many pairs of ids are compared one by one; more are laid out along the vocabulary."""

_BLOCK = 64
"""A row of logits is looked over in blocks of this many before single tokens are compared."""

_FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where a running sum, largest key first, reaches a mass."""

    key: float
    """The key of the element whose weight reaches it."""
    above: float
    """The weight of everything with a larger key."""


def crossing(keys: Array, weights: Array, mass: float) -> Crossing:
    """Find the element at which the sum of weights, largest key first, reaches a mass.

    The result is what a full sort and a cumulative sum in float64 would give. Elements are thrown
    into buckets by key; only the bucket in which the mass is reached is looked at again.

    Args:
        keys: (n,) finite; n is at least 1.
        weights: (n,) not negative.
        mass: what the sum must reach; where it never does, the smallest key is returned.
    """
    keys, weights = keys.astype(np.float64), weights.astype(np.float64)
    above = 0.0
    while keys.size > _DIRECT:
        low, high = float(keys.min()), float(keys.max())
        if low == high:
            return Crossing(low, above)
        bucket = ((high - keys) * ((_BUCKETS - 1) / (high - low))).astype(np.int64)
        sums = np.bincount(bucket, weights, _BUCKETS).cumsum()
        reached = int(np.count_nonzero(sums + above < mass))
        if reached == _BUCKETS:
            return Crossing(low, above + float(sums[-1]) - float(weights[keys == low].sum()))
        if reached > 0:
            above += float(sums[reached - 1])
        inside = bucket == reached
        keys, weights = keys[inside], weights[inside]
    order = np.argsort(-keys, kind="stable")
    ordered = keys[order]
    sums = weights[order].cumsum() + above
    index = min(int(np.count_nonzero(sums < mass)), keys.size - 1)
    first = int(np.count_nonzero(ordered > ordered[index]))
    return Crossing(float(ordered[index]), float(sums[first - 1]) if first else above)


class Alive:
    """A set of tokens with their logits. Immutable; what is computed once is kept.

    One of two forms: `ids` is None and `logits` is (V,) float32 with -inf where a token is out; or
    `ids` is (n,) and `logits` (n,) float64, finite, largest first and lower ids first among equals.
    """

    __slots__ = (
        "_best",
        "_count",
        "_entropy_bits",
        "_head",
        "_logits",
        "_total",
        "_weights",
        "ids",
        "vocabulary",
    )

    def __init__(
        self,
        logits: Array | Callable[[], Array],
        ids: Ids | None = None,
        vocabulary: int = 0,
        *,
        head: Alive | None = None,
        count: int | None = None,
        total: float | None = None,
    ) -> None:
        """Make a set.

        Args:
            logits: as above; or what gives them, called when all of them are needed.
            vocabulary: V, where it can't be seen from the logits.
            head: the largest of a whole vocabulary in the sorted form, where they are known.
        """
        self._logits = logits
        self.ids = ids
        self.vocabulary = vocabulary or self.logits.size
        self._head = head
        self._best: float | None = None
        self._count = count
        self._weights: Array | None = None
        self._total = total
        self._entropy_bits: float | None = None

    @property
    def logits(self) -> Array:
        if callable(self._logits):
            self._logits = self._logits()
        return self._logits

    @property
    def best(self) -> float:
        """The largest logit; -inf when nothing is alive, NaN where a logit is NaN."""
        if self._best is None:
            if self._head is not None:
                self._best = self._head.best
            else:
                self._best = float(self.logits.max() if self.ids is None else self.logits[0])
        return self._best

    @property
    def count(self) -> int:
        if self._count is None:
            living = self.logits.size
            if self.ids is None and self.logits.min() == -math.inf:
                living = int(np.count_nonzero(self.logits > -math.inf))
            self._count = living
        return self._count

    @property
    def weights(self) -> Array:
        """exp(logit − best), as long as `logits`: the probabilities up to one factor."""
        if self._weights is None:
            weights = self.logits - self.logits.dtype.type(self.best)
            self._weights = np.exp(weights, out=weights)
        return self._weights

    @property
    def total(self) -> float:
        """Σ weights, in float64: 1 / total is the probability of the most probable."""
        if self._total is None:
            self._total = float(self.weights.sum(dtype=np.float64))
        return self._total

    @property
    def log_mass(self) -> float:
        return self.best + math.log(self.total)

    @property
    def entropy_bits(self) -> float:
        """−Σ p log2 p."""
        if self._entropy_bits is None:
            distances = self.logits - self.logits.dtype.type(self.best)
            if self.count < distances.size:
                # 0 · −inf is no number, and exp is 0 long before this floor.
                np.maximum(distances, -1e4, out=distances)
            distances *= self.weights
            nats = math.log(self.total) - float(distances.sum(dtype=np.float64)) / self.total
            self._entropy_bits = max(nats, 0.0) / math.log(2)
        return self._entropy_bits

    def logprobs(self, logits: Array) -> Array:
        """ln p among the living of logits that are in this set, of any shape, float64."""
        # The largest first: logits divided by a tiny temperature leave log_mass no digits.
        return (logits.astype(np.float64) - self.best) - math.log(self.total)

    def at(self, ids: Ids) -> Array:
        """The logits of those ids, (m,) float64; -inf for those that are out."""
        if self._head is not None and callable(self._logits):
            found = self._head.at(ids)
            if found.min(initial=math.inf) > -math.inf:
                return found
        return self.look_up(self.logits, ids, -math.inf).astype(np.float64)

    def look_up(self, values: Array, ids: Ids, missing: float) -> Array:
        """What some ids have of values that go with `logits`.

        Returns (m,), of the values' type.

        Args:
            values: as long as `logits`.
            ids: (m,).
            missing: what an id has that is not in the sorted form; at most the least of the values.
        """
        if self.ids is None:
            return values[ids]
        if 0 < self.ids.size * ids.size <= _PAIRS:
            found: Array = np.where(self.ids == ids[:, None], values, missing).max(axis=1)
            return found
        row = np.full(self.vocabulary, missing, dtype=values.dtype)
        row[self.ids] = values
        return row[ids]

    def probs(self, ids: Ids) -> Array:
        """The probabilities of those ids among the living, (m,) float64."""
        return np.exp(self.logprobs(self.at(ids)))

    def ranks(self, logits: Array) -> npt.NDArray[np.int64]:
        """1 + how many are larger than each of some logits, (m,)."""
        larger = [np.count_nonzero(self.logits > logit) for logit in logits]
        return np.array(larger, dtype=np.int64) + 1

    def nth_largest(self, n: int) -> float:
        """The n-th largest logit (n from 1; the smallest one alive where there are fewer)."""
        n = min(n, self.vocabulary)
        if self.ids is not None:
            return float(self.logits[min(n, self.logits.size) - 1])
        if (head := self._leading(n)) is not None:
            return float(head.logits[n - 1])
        value = _nth_largest(self.logits, n)
        return value if value > -math.inf else float(_FLOAT32.min)

    def at_least(self, bound: float, *, compact: bool = False) -> Alive:
        """Those with logits of at least `bound`, compared exactly.

        `bound`: in float64; a float32 logit is compared with it as the number it is. `compact`:
        return the sorted form however many they are.
        """
        if self.ids is not None:
            kept = int(np.count_nonzero(self.logits >= bound))
            if kept == self.logits.size:
                return self
            return Alive(self.logits[:kept], self.ids[:kept], self.vocabulary)
        if self._head is not None and bound > self._head.logits[-1]:
            return self._head.at_least(bound)
        return self.keep(self.logits >= _round_up(bound), compact=compact)

    def keep(self, mask: Mask, *, compact: bool = False) -> Alive:
        """Those marked in `mask`, which is as long as `logits` and true for none that is out."""
        if self.ids is not None:
            return Alive(self.logits[mask], self.ids[mask], self.vocabulary)
        ids = np.flatnonzero(mask)
        if ids.size > COMPACT and not compact:
            return Alive(np.where(mask, self.logits, np.float32(-math.inf)))
        logits = self.logits[ids].astype(np.float64)
        order = np.argsort(-logits, kind="stable")
        return Alive(logits[order], ids[order], self.vocabulary)

    def leaders(self, n: int, *, compact: bool = True) -> Alive:
        """The n largest, and what ties with the last of them; all there are where there are fewer.

        `compact`: return the sorted form however many they are.
        """
        return self.at_least(self.nth_largest(n), compact=compact)

    def _leading(self, n: int) -> Alive | None:
        """At least the n largest of a whole vocabulary, sorted; None where n is too large for it.

        Everything larger than the last of them is among them.
        """
        if self._head is None or self._head.logits.size < n:
            blocks = self.vocabulary // _BLOCK
            wanted = max(n, _LEADERS)
            if wanted > blocks:
                return None
            # The n-th largest of blocks' maxima is reached by at least n, and by hardly more.
            maxima = self.logits[: blocks * _BLOCK].reshape(_BLOCK, blocks).max(axis=0)
            bound = _nth_largest(maxima, wanted)
            if bound == -math.inf:
                return None
            self._head = self.keep(self.logits >= _round_up(bound), compact=True)
        return self._head

    def ranked(self) -> Alive:
        return self.at_least(-math.inf, compact=True)

    def equal_to(self, logit: float) -> Ids:
        """The ids with exactly that logit, ascending, (m,)."""
        if self._head is not None and logit > self._head.logits[-1]:
            return self._head.equal_to(logit)
        found = np.flatnonzero(self.logits == logit)
        return found if self.ids is None else self.ids[found]

    def without(self, ids: Ids) -> Alive:
        if ids.size == 0:
            return self
        if self.ids is None:
            logits = self.logits.copy()
            logits[ids] = -math.inf
            return Alive(logits)
        return self.keep(~np.isin(self.ids, ids))

    def only(self, id_: int) -> Alive:
        ids = np.array([id_])
        return Alive(self.at(ids), ids, self.vocabulary)

    def first(self) -> int:
        """The id of the largest logit, the lowest one among equals."""
        if self._head is not None:
            return self._head.first()
        return int(self.logits.argmax()) if self.ids is None else int(self.ids[0])

    def scaled(self, temperature: float) -> Alive:
        if temperature > _FLOAT32.tiny and abs(self.best) < temperature * float(_FLOAT32.max):
            if self.ids is not None:
                return Alive(self.logits / temperature, self.ids, self.vocabulary)
            divisor = np.float32(temperature)
            # Found before it is divided, so that both sets have it.
            found = self._head or self._leading(_LEADERS)
            head = None if found is None else _scaled_head(found, divisor)
            return Alive(
                lambda: self.logits / divisor, None, self.vocabulary, head=head, count=self._count
            )
        # Where the quotient overflows, the largest logit is put at 0 first: the same distribution.
        with np.errstate(over="ignore"):
            quotient = (self.logits.astype(np.float64) - self.best) / temperature
        quotient = np.maximum(quotient, float(_FLOAT32.min))
        quotient = np.where(self.logits > -math.inf, quotient, -math.inf)
        return Alive(quotient.astype(self.logits.dtype), self.ids, self.vocabulary)

    def crossing(self, mass: float) -> Crossing:
        """Where the probability, most probable first, reaches a mass; `above` is a probability."""
        wanted = mass * self.total
        if self.ids is None and (head := self._leading(_LEADERS)) is not None:
            weights = np.exp((head.logits - self.best).astype(np.float32))
            if weights.sum(dtype=np.float64) >= wanted:
                found = crossing(head.logits, weights, wanted)
                return Crossing(found.key, found.above / self.total)
        logits, weights = self.logits, self.weights
        living = weights > 0  # leaves out what is dead, and what could not be drawn anyway
        if not living.all():
            logits, weights = logits[living], weights[living]
        found = crossing(logits, weights, wanted)
        return Crossing(found.key, found.above / self.total)

    def pick(self, uniform: float) -> int:
        """The id at a point of the cumulative distribution: the inverse-CDF draw.

        The order is fixed: most probable first, lower ids first among equals. So a draw can be
        followed by eye along the candidates as they are shown.

        `uniform`: in [0, 1).
        """
        found = self.crossing(uniform)
        equals = self.equal_to(found.key)
        each = math.exp(found.key - self.best) / self.total
        index = math.ceil((uniform - found.above) / each) - 1
        return int(equals[min(max(index, 0), equals.size - 1)])


def _scaled_head(head: Alive, divisor: np.float32) -> Alive:
    """The head of a whole vocabulary whose logits are divided, rounded as there."""
    assert head.ids is not None
    logits, ids = (head.logits.astype(np.float32) / divisor).astype(np.float64), head.ids
    if (logits[1:] == logits[:-1]).any():  # what was unequal may be equal now
        order = np.lexsort((ids, -logits))
        logits, ids = logits[order], ids[order]
    return Alive(logits, ids, head.vocabulary)


def _nth_largest(values: Array, n: int) -> float:
    """The n-th largest of (m,) values; n is from 1 to m."""
    return float(np.partition(values, values.size - n)[values.size - n])


def _round_up(value: float) -> np.float32:
    """The smallest finite float32 which is not below `value`; the largest one where none is.

    A comparison of a float32 array with a float rounds the float to float32 first, which could move
    the bound below a logit it lies above.
    """
    rounded = np.float32(max(min(value, float(_FLOAT32.max)), float(_FLOAT32.min)))
    short = float(rounded) < value and rounded < _FLOAT32.max
    return np.nextafter(rounded, np.float32(math.inf)) if short else rounded
