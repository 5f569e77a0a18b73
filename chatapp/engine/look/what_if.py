"""What if: a finished reply under other settings, without running the model.

For each token of the reply the sampler's own chain looks again at the logits it was taken from, and
tells what it would have been worth. Nothing is drawn, so the reply stays as it is. Two settings are
special:

- XTC tosses a coin at every step. The probability told is the expectation over the coin, which is
  the chance that a draw gives the token; what else is told of a step (choices, the best token, what
  removed it) is told for the way the coin is likelier to fall.
- Mirostat's bound at a token follows from the tokens before it, as if the reply had been drawn so
  from its first token on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from chatapp.chat.errors import EngineError
from chatapp.chat.inspection import WhatIf, WhatIfToken
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.look.history import LogitRow
from chatapp.engine.sampler.alive import Alive
from chatapp.engine.sampler.chain import (
    ChainState,
    NothingLeft,
    Outcome,
    StepContext,
    run_chain,
)
from chatapp.engine.sampler.lookup import Lookup
from chatapp.engine.sampler.vocabulary import NO_VOCABULARY, Vocabulary


class ReplyUnderTest:
    """A finished reply whose settings are to be turned. Keep it while they are."""

    def __init__(
        self,
        rows: Sequence[LogitRow],
        prompt_ids: Sequence[int],
        reply_ids: Sequence[int],
        end_ids: Sequence[int],
        vocabulary: Vocabulary = NO_VOCABULARY,
    ) -> None:
        """`rows`: the logits that each token of the reply was taken from, one a token."""
        if len(rows) != len(reply_ids):
            raise ValueError(f"{len(rows)} rows of logits for {len(reply_ids)} tokens")
        self._rows = tuple(rows)
        self._ids = np.array([*prompt_ids, *reply_ids], dtype=np.int64)
        self._prompt_length = len(prompt_ids)
        self._end_ids = np.array(end_ids, dtype=np.int64)
        self._vocabulary = vocabulary
        self._taken = tuple(reply_ids)

    def under(self, params: SamplingParams) -> WhatIf:
        """The reply under these settings. Raises EngineError."""
        coin = _Coin.of(params)
        state = ChainState(0)  # carries mirostat's bound from token to token, and nothing else
        return WhatIf(tuple(self._step(row, coin, state) for row in range(len(self._rows))))

    @cached_property
    def _model(self) -> list[tuple[float, float]]:
        """At each token the model's own normaliser, and the logprob of the token taken."""
        totals = [row.alive().total for row in self._rows]
        rows = zip(self._rows, totals, self._taken, strict=True)
        return [(total, _logprob(row.alive(total), id_)) for row, total, id_ in rows]

    def _step(self, row: int, coin: _Coin, state: ChainState) -> WhatIfToken:
        """One token, for both ways that the coin can fall; the state goes on from it."""
        id_ = self._taken[row]
        total, known = self._model[row]
        model = self._rows[row].alive(total)
        context = StepContext(
            ids=self._ids[: self._prompt_length + row],
            prompt_length=self._prompt_length,
            end_ids=self._end_ids,
            vocabulary=self._vocabulary,
        )
        try:
            outcomes = [run_chain(model, params, context, state) for params in coin.sides]
        except NothingLeft as error:
            raise EngineError(f"at token {row + 1} {error}") from None
        state.observe(outcomes[-1 if coin.drops else 0], id_)
        return coin.mix([_token(outcome, id_, known) for outcome in outcomes])


@dataclass(frozen=True, slots=True)
class _Coin:
    """XTC's coin: both ways that it can fall, as settings under which it falls so for sure."""

    spared: SamplingParams
    dropped: SamplingParams
    chance: float
    """That it falls for dropping; 0 where XTC is off."""

    @classmethod
    def of(cls, params: SamplingParams) -> _Coin:
        return cls(
            spared=replace(params, xtc_probability=0.0),
            dropped=replace(params, xtc_probability=1.0),
            chance=params.xtc_probability if params.xtc_threshold <= 0.5 else 0.0,
        )

    @property
    def drops(self) -> bool:
        """Whether it is likelier to fall for dropping."""
        return self.chance > 0.5

    @property
    def sides(self) -> list[SamplingParams]:
        if self.chance in (0, 1):
            return [self.dropped if self.chance else self.spared]
        return [self.spared, self.dropped]

    def mix(self, sides: Sequence[WhatIfToken]) -> WhatIfToken:
        """The expectation over the coin, from the step as each of `sides` has it."""
        if len(sides) == 1:
            return sides[0]
        spared, dropped = sides
        likely = dropped if self.drops else spared
        no, yes = math.log(1 - self.chance), math.log(self.chance)
        final = np.logaddexp(spared.logprob + no, dropped.logprob + yes)
        tempered = np.logaddexp(spared.tempered_logprob + no, dropped.tempered_logprob + yes)
        return replace(
            likely,
            tempered_logprob=min(float(tempered), 0.0),
            logprob=min(float(final), 0.0),
            removed_by=(likely.removed_by or spared.removed_by) if final == -math.inf else None,
        )


def _token(outcome: Outcome, id_: int, model_logprob: float) -> WhatIfToken:
    return WhatIfToken(
        id=id_,
        model_logprob=model_logprob,
        tempered_logprob=_logprob(outcome.tempered, id_),
        logprob=_logprob(outcome.final, id_),
        removed_by=Lookup(outcome, [id_]).removed_by[0],
        choices=outcome.final.count,
        best_id=outcome.final.first(),
    )


def _logprob(alive: Alive, id_: int) -> float:
    return min(float(alive.logprobs(alive.at(np.array([id_])))[0]), 0.0)
