"""Mirostat over a finished reply: the one stage whose setting follows from the tokens before.

Each token moves μ by its surprisal, and μ decides what is cut at the next one. The stages before
mirostat run for all steps at once; what is left to do one after another is to look up, in a sorted
row, where μ cuts it and how surprising the token taken is among the rest.

A cut that fell otherwise than the chain's would move every later μ, so the rows hold the chain's
own numbers, float32 where it has float32. Only sums are taken in another order, which leaves
differences of some 1e-13. A row where a token stands closer than `NEAR` to the edge is for the
chain to decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from chatapp.engine.look.whatif_living import Living, as_held, at, held_weights
from chatapp.engine.look.whatif_tables import running_sums
from chatapp.engine.sampler.alive import COMPACT
from chatapp.engine.sampler.chain import Outcome

NEAR = 1e-9
"""How near to the edge, in nats and as a share of them, a token is too near to be judged here."""


@dataclass(frozen=True, slots=True)
class MirostatCut:
    """What μ leaves of a row."""

    stop: int
    """The place in `Living` behind the last that is alive; where none is, its `start`."""
    prob: float
    """Of the token taken, among what is left; 0 where it is cut."""
    near: bool
    """Whether a token stands on the edge."""


class MirostatRows:
    """Neighbouring steps, ready to be cut."""

    def __init__(self, living: Living, taken_ids: torch.Tensor) -> None:
        """Take over what the other stages have left.

        Args:
            living: what is alive.
            taken_ids: (r,) int64, the tokens taken.
        """
        held, counts, whole = living.held(), living.living(), living.whole
        best = at(held, living.clip(living.places_to(living.best)) - 1)
        distance = as_held((held - best).clamp_(max=0.0), whole)
        weights = torch.exp(distance).mul_(counts)
        sums = whole_sums = running_sums(weights)
        if bool(whole.any()):
            whole_sums = running_sums(held_weights(distance, whole).mul_(counts))
        first_ids = living.first_ids()
        self._ascending = (-held).numpy()
        self._sums, self._whole_sums = sums.numpy(), whole_sums.numpy()
        self._numbers = running_sums(counts).numpy()
        self._best: list[float] = best[:, 0].tolist()
        self._log_mass: list[float] = (best + whole_sums[:, -1:].log())[:, 0].tolist()
        self._start: list[int] = living.start[:, 0].tolist()
        self._stop: list[int] = living.stop[:, 0].tolist()
        self._whole: list[bool] = whole[:, 0].tolist()
        self._unsure: list[bool] = living.unsure.tolist()
        self._alone: list[bool] = living.alone[:, 0].tolist()
        place = living.clip(living.places_over(living.taken)).clamp(max=held.shape[1] - 1)
        taken = at(held, place)[:, 0]
        alive = living.taken_alive(taken_ids)
        self._taken: list[float] = torch.where(alive, taken, -torch.inf).tolist()
        self._taken_first: list[bool] = (first_ids == taken_ids).tolist()

    def cut(self, row: int, mu: float) -> MirostatCut:
        """`filters.mirostat` of one row; one that is unsure already is left as it is."""
        start, stop = self._start[row], self._stop[row]
        if self._alone[row] or self._unsure[row]:
            return MirostatCut(stop, float(self._taken_first[row]), near=False)
        bound = self._log_mass[row] - mu * math.log(2)
        edges = -bound + reach(bound) * np.array([-1.0, 0.0, 1.0])
        ascending, numbers = self._ascending[row, start:stop], self._numbers[row]
        before, place, after = (np.searchsorted(ascending, edges, side="right") + start).tolist()
        near = bool(numbers[before] != numbers[after])
        if numbers[place] == 0:
            return MirostatCut(start, float(self._taken_first[row]), near)
        if self._taken[row] < bound:
            return MirostatCut(place, 0.0, near)
        sorted_now = not self._whole[row] or numbers[place] <= COMPACT
        mass = (self._sums if sorted_now else self._whole_sums)[row, place]
        logprob = self._taken[row] - self._best[row] - math.log(mass)
        return MirostatCut(place, math.exp(logprob), near)


def reach(bound: float) -> float:
    """How near to that edge is too near."""
    return NEAR * (1 + abs(bound))


def on_the_edge(outcome: Outcome) -> bool:
    """Whether a token stands so near to mirostat's edge that the last bits of μ decide."""
    for stage in outcome.stages:
        if stage.name == "mirostat" and stage.cut.threshold is not None:
            bound = stage.before.log_mass - stage.cut.threshold * math.log(2)
            return bool((stage.before.logits - bound).abs().amin() <= reach(bound))
    return False
