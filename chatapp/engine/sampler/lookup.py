"""Some tokens of one step, looked up in the sets that the chain left: what records and traces tell.

Each set is looked at once, however many ask. So a record costs little beside the step it tells of,
and a trace little beside the record.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from chatapp.chat.record import Removal
from chatapp.engine.sampler.alive import Alive, Array
from chatapp.engine.sampler.chain import Outcome, Stage
from chatapp.engine.sampler.edits import Edit
from chatapp.engine.sampler.filters import measure


@dataclass(frozen=True, eq=False)
class Column:
    """The tokens in one set of the chain, and the rest as one number: it all sums to 1."""

    alive: Alive
    array: Array
    """(m,) float64, their logits; -inf for those that are out."""

    @cached_property
    def logits(self) -> list[float]:
        logits: list[float] = self.array.tolist()
        return logits

    @cached_property
    def logprobs(self) -> list[float]:
        """Natural; -inf for those that are out."""
        if self.alive.count == 0:
            return [-math.inf] * len(self.logits)
        logprobs: list[float] = self.alive.logprobs(self.array).tolist()
        return logprobs

    @cached_property
    def probs(self) -> list[float]:
        """Among what is alive; 0 for those that are out."""
        return [math.exp(logprob) for logprob in self.logprobs]

    @cached_property
    def other_prob(self) -> float:
        """Of all other tokens; exactly 0 where none of them is alive."""
        if sum(logit > -math.inf for logit in self.logits) >= self.alive.count:
            return 0.0
        # Sums that differ from 1 by rounding alone would make a rest of less than nothing.
        return max(0.0, 1.0 - math.fsum(self.probs))


class Lookup:
    """Some tokens of a step."""

    def __init__(
        self, outcome: Outcome, ids: Sequence[int], ranks: Sequence[int] | None = None
    ) -> None:
        """Look up tokens.

        `ids`: the tokens, each once. `ranks`: the model's ranks of them, where they are known.
        """
        self.outcome = outcome
        self.ids = list(ids)
        self._array = np.array(self.ids, dtype=np.int64)
        self._ranks = None if ranks is None else list(ranks)
        self._columns: dict[int, Column] = {}

    def column(self, alive: Alive) -> Column:
        """The tokens in one of the step's sets."""
        # By identity: a set is kept alive by its column, so its id is never another's.
        if (column := self._columns.get(id(alive))) is None:
            column = self._columns[id(alive)] = Column(alive, alive.at(self._array))
        return column

    @cached_property
    def ranks(self) -> list[int]:
        """For each 1 + the number of tokens with a larger model logit."""
        if self._ranks is not None:
            return self._ranks
        model = self.outcome.model
        ranks: list[int] = model.ranks(model.at(self._array)).tolist()
        return ranks

    @cached_property
    def removals(self) -> list[Removal | None]:
        """For each the first stage that took it out; None where it is alive, or never was."""
        found: list[Removal | None] = [None] * len(self.ids)
        for places, cause in self._removed():
            if isinstance(cause, Edit):
                values, threshold = [-math.inf] * len(places), -math.inf
            else:
                values = measure(cause.name, cause.before, self._array[places]).tolist()
                threshold = -math.inf if cause.cut.threshold is None else cause.cut.threshold
            for place, value in zip(places, values, strict=True):
                found[place] = Removal(cause.name, cause.setting, threshold, value)
        return found

    @cached_property
    def removed_by(self) -> list[str | None]:
        """The names of those stages alone."""
        found: list[str | None] = [None] * len(self.ids)
        for places, cause in self._removed():
            for place in places:
                found[place] = cause.name
        return found

    def _removed(self) -> Iterator[tuple[list[int], Edit | Stage]]:
        """The places of the tokens that are out of play, with what took them out first."""
        outcome = self.outcome
        model, final = self.column(outcome.model).logits, self.column(outcome.final).logits
        pending = [
            place
            for place, (first, last) in enumerate(zip(model, final, strict=True))
            if last == -math.inf and first > -math.inf
        ]
        for edit in outcome.edits:
            if not pending:
                return
            hits = np.isin(self._array[pending], edit.banned).tolist()
            yield [place for place, hit in zip(pending, hits, strict=True) if hit], edit
            pending = [place for place, hit in zip(pending, hits, strict=True) if not hit]
        for stage in outcome.stages:
            if not pending:
                return
            if stage.cut.threshold is None or stage.after is stage.before:
                continue
            after = self.column(stage.after).logits
            if places := [place for place in pending if after[place] == -math.inf]:
                yield places, stage
            pending = [place for place in pending if after[place] > -math.inf]
