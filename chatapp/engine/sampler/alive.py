"""The tokens still in play at one stage of the chain, and the exact questions stages ask of them.

A vocabulary has tens of thousands of tokens and most stages leave a few dozen. Sorting all of them
at every step costs more than the rest of the chain together, so a set is held in one of two forms:
the whole vocabulary, unsorted, with -inf where a token is out, or only the living, most probable
first. Questions that seem to need a sort ("where does the mass reach p?") are answered by buckets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

COMPACT = 4096
"""Sets up to this size are held sorted; larger ones stay as long as the vocabulary."""

_DIRECT = 1024
"""Up to this many keys a sort is cheaper than buckets."""

_BUCKETS = 2048

_PAIRS = 1 << 16
"""Up to so many pairs of ids are compared one by one; more are laid out along the vocabulary."""

_BLOCK = 64
"""A row of logits is looked over in blocks of this many before single tokens are compared."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """Where a running sum, largest key first, reaches a mass."""

    key: float
    """The key of the element whose weight reaches it."""
    above: float
    """The weight of everything with a larger key."""


def crossing(keys: torch.Tensor, weights: torch.Tensor, mass: float) -> Crossing:
    """Find the element at which the sum of weights, largest key first, reaches a mass.

    The result is what a full sort and a cumulative sum in float64 would give. Elements are thrown
    into buckets by key; only the bucket in which the mass is reached is looked at again.

    Args:
        keys: (n,) finite, any floating type; n is at least 1.
        weights: (n,) not negative.
        mass: what the sum must reach; where it never does, the smallest key is returned.
    """
    keys, weights = keys.double(), weights.double()
    above = 0.0
    while keys.numel() > _DIRECT:
        low, high = torch.stack(torch.aminmax(keys)).tolist()
        if low == high:
            return Crossing(low, above)
        bucket = ((high - keys) * ((_BUCKETS - 1) / (high - low))).long()
        sums = torch.bincount(bucket, weights, _BUCKETS).cumsum(0)
        reached = int((sums + above < mass).sum())
        if reached == _BUCKETS:
            return Crossing(low, above + float(sums[-1]) - float(weights[keys == low].sum()))
        if reached > 0:
            above += float(sums[reached - 1])
        inside = bucket == reached
        keys, weights = keys[inside], weights[inside]
    ordered, order = keys.sort(descending=True)
    sums = weights[order].cumsum(0) + above
    index = min(int((sums < mass).sum()), keys.numel() - 1)
    first = int((ordered > ordered[index]).sum())
    return Crossing(float(ordered[index]), float(sums[first - 1]) if first else above)


class Alive:
    """A set of tokens with their logits. Immutable; what is computed once is kept.

    One of two forms: `ids` is None and `logits` is (V,) float32 with -inf where a token is out; or
    `ids` is (n,) int64 and `logits` (n,) float64, finite, largest first and lower ids first among
    equals. Everything is on the CPU: a row of logits is quickly fetched from another device, while
    the many small questions asked of it would each wait for that device.
    """

    __slots__ = (
        "_best",
        "_count",
        "_entropy_bits",
        "_total",
        "_weights",
        "ids",
        "logits",
        "vocabulary",
    )

    def __init__(
        self, logits: torch.Tensor, ids: torch.Tensor | None = None, vocabulary: int = 0
    ) -> None:
        self.logits = logits
        self.ids = ids
        self.vocabulary = vocabulary or logits.numel()
        self._best: float | None = None
        self._count: int | None = None
        self._weights: torch.Tensor | None = None
        self._total: float | None = None
        self._entropy_bits: float | None = None

    @property
    def best(self) -> float:
        """The largest logit; -inf when nothing is alive, NaN where a logit is NaN."""
        if self._best is None:
            self._best = float(self.logits.amax() if self.ids is None else self.logits[0])
        return self._best

    @property
    def count(self) -> int:
        """How many tokens are alive."""
        if self._count is None:
            living = self.logits.numel()
            if self.ids is None and float(self.logits.amin()) == -math.inf:
                living = int((self.logits > -math.inf).count_nonzero())
            self._count = living
        return self._count

    @property
    def weights(self) -> torch.Tensor:
        """exp(logit − best), as long as `logits`: the probabilities up to one factor."""
        if self._weights is None:
            self._weights = torch.exp(self.logits - self.best)
        return self._weights

    @property
    def total(self) -> float:
        """Σ weights, in float64: 1 / total is the probability of the most probable."""
        if self._total is None:
            self._total = float(self.weights.sum(dtype=torch.float64))
        return self._total

    @property
    def log_mass(self) -> float:
        """ln Σ exp(logit)."""
        return self.best + math.log(self.total)

    @property
    def entropy_bits(self) -> float:
        """−Σ p log2 p."""
        if self._entropy_bits is None:
            # 0 · −inf is no number, and exp is 0 long before this floor.
            moments = (self.logits - self.best).clamp_(min=-1e4).mul_(self.weights)
            nats = math.log(self.total) - float(moments.sum(dtype=torch.float64)) / self.total
            self._entropy_bits = max(nats, 0.0) / math.log(2)
        return self._entropy_bits

    def logprobs(self, logits: torch.Tensor) -> torch.Tensor:
        """ln p among the living of logits that are in this set, of any shape."""
        # The largest first: logits divided by a tiny temperature leave log_mass no digits.
        return (logits - self.best) - math.log(self.total)

    def at(self, ids: torch.Tensor) -> torch.Tensor:
        """The logits of those ids, (m,) float64; -inf for those that are out."""
        return self.look_up(self.logits, ids, -math.inf).double()

    def look_up(self, values: torch.Tensor, ids: torch.Tensor, missing: float) -> torch.Tensor:
        """What some ids have of values that go with `logits`.

        Args:
            values: as long as `logits`.
            ids: (m,) int64.
            missing: what an id has that is not in the sorted form; at most the least of the values.

        Returns:
            (m,), of the values' type.
        """
        if self.ids is None:
            return values[ids]
        if 0 < self.ids.numel() * ids.numel() <= _PAIRS:
            return torch.where(self.ids == ids.unsqueeze(1), values, missing).amax(1)
        row = values.new_full((self.vocabulary,), missing)
        row[self.ids] = values
        return row[ids]

    def probs(self, ids: torch.Tensor) -> torch.Tensor:
        """The probabilities of those ids among the living, (m,) float64."""
        return torch.exp(self.logprobs(self.at(ids)))

    def nth_largest(self, n: int) -> float:
        """The n-th largest logit (n from 1; the smallest one alive where there are fewer)."""
        n = min(n, self.logits.numel())
        if self.ids is not None:
            return float(self.logits[n - 1])
        value = float(self.logits.topk(n).values[-1])
        return value if value > -math.inf else float(torch.finfo(self.logits.dtype).min)

    def at_least(self, bound: float, *, compact: bool = False) -> Alive:
        """Those with logits of at least `bound`, compared exactly.

        Args:
            bound: in float64; a float32 logit is compared with it as the number it is.
            compact: return the sorted form however many they are.
        """
        if self.ids is not None:
            kept = int((self.logits >= bound).sum())
            if kept == self.logits.numel():
                return self
            return Alive(self.logits[:kept], self.ids[:kept], self.vocabulary)
        return self.keep(self.logits >= _round_up(bound, self.logits.dtype), compact=compact)

    def keep(self, mask: torch.Tensor, *, compact: bool = False) -> Alive:
        """Those marked in `mask`, which is as long as `logits` and true for none that is out."""
        if self.ids is not None:
            return Alive(self.logits[mask], self.ids[mask], self.vocabulary)
        ids = marked(mask)
        if ids.numel() > COMPACT and not compact:
            return Alive(self.logits.masked_fill(~mask, -math.inf))
        logits, order = self.logits[ids].double().sort(descending=True, stable=True)
        return Alive(logits, ids[order], self.vocabulary)

    def leaders(self, n: int, *, compact: bool = True) -> Alive:
        """The n largest, and what ties with the last of them; all there are where there are fewer.

        Args:
            n: at least 1.
            compact: return the sorted form however many they are.
        """
        pool = self if self.ids is not None else self.at_least(self._floor(n), compact=compact)
        return pool.at_least(pool.nth_largest(n), compact=compact)

    def _floor(self, n: int) -> float:
        """A logit that at least n reach, and hardly more: the n-th largest of blocks' maxima."""
        blocks = self.logits.numel() // _BLOCK
        if n > blocks:
            return self.nth_largest(n)
        maxima = self.logits[: blocks * _BLOCK].view(blocks, _BLOCK).amax(1)
        bound = float(maxima.topk(n).values[-1])
        return bound if bound > -math.inf else self.nth_largest(n)

    def ranked(self) -> Alive:
        """All of the living, sorted."""
        return self.at_least(-math.inf, compact=True)

    def equal_to(self, logit: float) -> torch.Tensor:
        """The ids with exactly that logit, ascending, (m,) int64."""
        found = marked(self.logits == logit)
        return found if self.ids is None else self.ids[found]

    def without(self, ids: torch.Tensor) -> Alive:
        """The same set less those ids."""
        if ids.numel() == 0:
            return self
        if self.ids is None:
            return Alive(self.logits.index_fill(0, ids, -math.inf))
        return self.keep(~torch.isin(self.ids, ids))

    def only(self, id_: int) -> Alive:
        """That one token of the set alone."""
        ids = torch.tensor([id_])
        return Alive(self.at(ids), ids, self.vocabulary)

    def first(self) -> int:
        """The id of the largest logit, the lowest one among equals."""
        return int(self.logits.argmax()) if self.ids is None else int(self.ids[0])

    def scaled(self, temperature: float) -> Alive:
        """Every logit divided by a temperature above 0."""
        limits = torch.finfo(torch.float32)
        if temperature > limits.tiny and abs(self.best) < temperature * limits.max:
            scaled = Alive(self.logits / temperature, self.ids, self.vocabulary)
            scaled._count = self._count
            return scaled
        # Where the quotient overflows, the largest logit is put at 0 first: the same distribution.
        quotient = ((self.logits.double() - self.best) / temperature).clamp(min=limits.min)
        quotient = torch.where(self.logits > -math.inf, quotient, -math.inf)
        return Alive(quotient.to(self.logits.dtype), self.ids, self.vocabulary)

    def crossing(self, mass: float) -> Crossing:
        """Where the probability, most probable first, reaches a mass; `above` is a probability."""
        logits, weights = self.logits, self.weights
        living = weights > 0  # leaves out what is dead, and what could not be drawn anyway
        if not bool(living.all()):
            logits, weights = logits[living], weights[living]
        found = crossing(logits, weights, mass * self.total)
        return Crossing(found.key, found.above / self.total)

    def pick(self, uniform: float) -> int:
        """The id at a point of the cumulative distribution: the inverse-CDF draw.

        The order is fixed: most probable first, lower ids first among equals. So a draw can be
        followed by eye along the candidates as they are shown.

        Args:
            uniform: in [0, 1).
        """
        found = self.crossing(uniform)
        equals = self.equal_to(found.key)
        each = math.exp(found.key - self.best) / self.total
        index = math.ceil((uniform - found.above) / each) - 1
        return int(equals[min(max(index, 0), equals.numel() - 1)])


def marked(mask: torch.Tensor) -> torch.Tensor:
    """Where a (n,) bool mask on the CPU is true, (m,) int64, ascending.

    Over a vocabulary NumPy finds it four to seven times as fast as torch.
    """
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _round_up(value: float, dtype: torch.dtype) -> float:
    """The smallest number of that type which is not below `value`, and is finite.

    A comparison of a float32 tensor with a float rounds the float to float32 first, which could
    move the bound below a logit it lies above.
    """
    rounded = torch.tensor(value, dtype=dtype)
    if float(rounded) < value or value == -math.inf:
        rounded = torch.nextafter(rounded, torch.tensor(math.inf, dtype=dtype))
    return float(rounded)
