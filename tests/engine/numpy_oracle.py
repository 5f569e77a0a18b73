"""The stages of the sampler once more, from their papers and llama.cpp, in plain NumPy.

Written to be read beside the sources and to share nothing with the program: full sorts, float64,
logits as long as the vocabulary with -inf where a token is out. Ties follow what the program
promises (the README's "What each number means").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from chatapp.chat.sampling import SamplingParams

Logits = npt.NDArray[np.float64]


def softmax(z: Logits) -> Logits:
    weights = np.exp(z - z.max())
    return weights / weights.sum()


def entropy(z: Logits) -> float:
    """In nats."""
    p = softmax(z)
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def only(z: Logits, kept: Sequence[int] | npt.NDArray[np.int64]) -> Logits:
    out = np.full_like(z, -np.inf)
    out[kept] = z[kept]
    return out


@dataclass
class Filters:
    """The filters, and how close any of their decisions came to going the other way.

    Two implementations that differ by rounding may disagree where `margin` is tiny; a test leaves
    such a case out.
    """

    margin: float = math.inf
    coins: Sequence[float] = ()
    """What XTC draws, in turn."""
    mu: float = 0.0
    used_coins: int = field(default=0, init=False)

    def near(self, *distances: float) -> None:
        self.margin = min([self.margin, *(abs(distance) for distance in distances)])

    def temperature(
        self, z: Logits, t: float, spread: float = 0.0, exponent: float = 1.0
    ) -> Logits:
        """llama_sampler_temp_ext_apply."""
        living = z[z > -np.inf]
        if spread > 0 and t > 0 and living.size > 1:
            low, high = max(0.0, t - spread), t + spread
            t = low + (high - low) * (entropy(living) / math.log(living.size)) ** exponent
        if t == 0:
            return only(z, [int(np.argmax(z))])
        return z / t

    def top_k(self, z: Logits, k: int) -> Logits:
        living = np.sort(z[z > -np.inf])[::-1]
        return np.where(z >= living[min(k, living.size) - 1], z, -np.inf)

    def top_p(self, z: Logits, p: float) -> Logits:
        """Holtzman et al. 2019, section 3.1; among equals the higher ids first."""
        order = sorted(np.flatnonzero(z > -np.inf), key=lambda i: (-z[i], -i))
        probs = softmax(z)[order]
        mass = np.cumsum(probs)
        for one in mass[:-1]:
            self.near(one - p)
        return only(z, order[: int(np.searchsorted(mass, p)) + 1])

    def min_p(self, z: Logits, share: float) -> Logits:
        """Nguyen et al. 2024, equations 1 and 2."""
        ratio = np.exp(z - z.max())
        for one in ratio[(z > -np.inf) & (z < z.max())]:
            self.near((one - share) / share)
        return np.where(ratio >= share, z, -np.inf)

    def typical(self, z: Logits, mass: float) -> Logits:
        """Meister et al. 2022, equation 6; what ties with the last one stays."""
        ids = np.flatnonzero(z > -np.inf)
        probs = softmax(z)
        keys = np.abs(-np.log(np.where(probs[ids] > 0, probs[ids], 5e-324)) - entropy(z[ids]))
        order = np.argsort(keys, kind="stable")
        cumulated = np.cumsum(probs[ids][order])
        for one in cumulated[:-1]:
            self.near(one - mass)
        last = min(int((cumulated < mass).sum()), ids.size - 1)
        bound = keys[order][last]
        if np.ptp(z[ids][np.abs(keys - bound) < 1e-4]) > 0:
            self.near(0.0)  # one above and one below the entropy, as good as equally far
        return only(z, ids[keys <= bound + 1e-9])

    def top_n_sigma(self, z: Logits, n: float) -> Logits:
        """Tang et al. 2024, algorithm 1; llama_sampler_top_n_sigma_apply."""
        living = z[z > -np.inf]
        if living.size <= 1:
            return z
        bound = z.max() - n * living.std()
        for one in living[living < z.max()]:
            self.near(one - bound)
        return np.where(z >= bound, z, -np.inf)

    def xtc(self, z: Logits, probability: float, threshold: float) -> Logits:
        """llama_sample_xtc_apply."""
        ids = np.flatnonzero(z > -np.inf)
        if probability <= 0 or threshold > 0.5 or ids.size < 2:
            return z
        coin = self.coins[self.used_coins]
        self.used_coins += 1
        if coin > probability:
            return z
        probs = softmax(z)
        self.near(*(probs[ids] - threshold))
        order = sorted(ids, key=lambda i: (-z[i], i))
        last = max([place for place, i in enumerate(order) if probs[i] >= threshold], default=0)
        return only(z, order[last:])

    def mirostat(self, z: Logits) -> Logits:
        """llama_sampler_mirostat_v2_apply, up to the draw."""
        with np.errstate(divide="ignore"):
            bits = -np.log2(softmax(z))
        self.near(*(bits[z > -np.inf] - self.mu))
        kept = np.flatnonzero((bits <= self.mu) & (z > -np.inf))
        return only(z, kept if kept.size else [int(np.argmax(z))])

    def chain(self, z: Logits, params: SamplingParams) -> list[tuple[str, Logits]]:
        """Every stage of the order that is on, with what it left."""
        p = params
        stages: dict[str, Callable[[Logits], Logits]] = {}
        if p.temperature != 1 or p.dynatemp_range:
            stages["temperature"] = lambda z: self.temperature(
                z, p.temperature, p.dynatemp_range, p.dynatemp_exponent
            )
        if p.top_k:
            stages["top_k"] = lambda z: self.top_k(z, p.top_k)
        if p.top_p < 1:
            stages["top_p"] = lambda z: self.top_p(z, p.top_p)
        if p.min_p > 0:
            stages["min_p"] = lambda z: self.min_p(z, p.min_p)
        if p.typical_p < 1:
            stages["typical"] = lambda z: self.typical(z, p.typical_p)
        if p.top_n_sigma > 0:
            stages["top_n_sigma"] = lambda z: self.top_n_sigma(z, p.top_n_sigma)
        if p.xtc_probability > 0:
            stages["xtc"] = lambda z: self.xtc(z, p.xtc_probability, p.xtc_threshold)
        if p.mirostat_tau > 0:
            stages["mirostat"] = self.mirostat
        left = []
        for name in p.order:
            if name in stages:
                z = stages[name](z)
                left.append((name, z))
        return left


def penalties(
    z: Logits, history: Sequence[int], repeat: float, presence: float, frequency: float
) -> Logits:
    """llama_sampler_penalties_apply."""
    z = z.copy()
    for i in set(history):
        z[i] = z[i] * repeat if z[i] <= 0 else z[i] / repeat
        z[i] -= presence + history.count(i) * frequency
    return z


def dry(
    history: Sequence[int],
    multiplier: float,
    base: float,
    allowed: int,
    breakers: frozenset[int] = frozenset(),
) -> dict[int, float]:
    """What llama_sampler_dry_apply subtracts, by looking at every pair of places."""
    n = len(history)
    if n <= allowed:
        return {}
    limit = n
    for back in range(n):
        if history[n - 1 - back] in breakers:
            limit = back
            break
    if limit < allowed:
        return {}
    longest: dict[int, int] = {}
    for end in range(n - 1):  # an earlier copy may end here
        length = 0
        while length <= end and history[end - length] == history[n - 1 - length]:
            length += 1
        length = min(length, limit)
        if length >= allowed:
            follower = history[end + 1]
            longest[follower] = max(longest.get(follower, 0), length)
    top = int(88.7228391 / math.log(base)) if base > 1.000001 else 10**9
    return {
        i: multiplier * base ** min(length - allowed, top)
        for i, length in longest.items()
        if i not in breakers
    }
