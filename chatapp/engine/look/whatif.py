"""What if: a finished reply under other settings, without running the model.

For each token of the reply the sampler's stages look again at the logits it was taken from, and say
what it would have been worth. Nothing is drawn, so the reply stays as it is.

The stages run for many tokens at once (`whatif_tables`, `whatif_edits`, `whatif_part`,
`whatif_stages`); where an exact answer needs it, the chain itself is asked for a row. Two settings
are special:

- XTC tosses a coin at every step. The probability told is the expectation over the coin, which is
  the chance that a draw gives the token; what else is told of a step (choices, the best token, what
  removed it) is told for the way the coin is likelier to fall.
- Mirostat's bound at a token follows from the tokens before it, as if the reply had been drawn so
  from its first token on (`whatif_mirostat`). In an order of the person's own that has other stages
  behind it, it goes through the chain token by token, about a second for 500 tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from chatapp.chat.errors import EngineError
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.whatif import WhatIf, WhatIfToken
from chatapp.engine.look.history import LogitRow
from chatapp.engine.look.whatif_edits import ReplyIds
from chatapp.engine.look.whatif_mirostat import MirostatRows, on_the_edge
from chatapp.engine.look.whatif_part import Branch, NothingAlive, PartUnderTest, Step
from chatapp.engine.look.whatif_stages import STAGES
from chatapp.engine.look.whatif_tables import ReplyPart
from chatapp.engine.sampler.chain import (
    ChainState,
    Outcome,
    Snapshot,
    StepContext,
    moved_mu,
    run_chain,
)
from chatapp.engine.sampler.lookup import Lookup

PART_ROWS = 128
"""Rows worked on at once: their tables take some ten megabytes."""


def what_if(
    rows: Sequence[LogitRow],
    prompt_ids: Sequence[int],
    reply_ids: Sequence[int],
    params: SamplingParams,
    end_ids: Sequence[int],
    dry_breakers: Callable[[], frozenset[int]] = frozenset,
) -> WhatIf:
    """A reply under other settings; see `ReplyUnderTest`, which is quicker the second time."""
    return ReplyUnderTest(rows, prompt_ids, reply_ids, end_ids, dry_breakers).under(params)


class ReplyUnderTest:
    """A finished reply whose settings are to be turned. Keep it while they are."""

    def __init__(
        self,
        rows: Sequence[LogitRow],
        prompt_ids: Sequence[int],
        reply_ids: Sequence[int],
        end_ids: Sequence[int],
        dry_breakers: Callable[[], frozenset[int]] = frozenset,
    ) -> None:
        """Work out all that does not depend on the settings.

        Args:
            rows: the logits that each token of the reply was taken from, one a token.
            prompt_ids: what the model read before the reply.
            reply_ids: the reply.
            end_ids: the tokens that end a reply.
            dry_breakers: the tokens over which DRY follows no repeat; asked for while DRY is on.
        """
        if len(rows) != len(reply_ids):
            raise ValueError(f"{len(rows)} rows of logits for {len(reply_ids)} tokens")
        self._rows = tuple(rows)
        self._reply = ReplyIds(
            ids=torch.tensor([*prompt_ids, *reply_ids], dtype=torch.int64),
            prompt_length=len(prompt_ids),
            end_ids=torch.tensor(list(end_ids), dtype=torch.int64),
            dry_breakers=dry_breakers,
        )
        self._taken = tuple(reply_ids)
        self._parts = [
            ReplyPart(rows[start : start + PART_ROWS], reply_ids[start : start + PART_ROWS])
            for start in range(0, len(rows), PART_ROWS)
        ]

    def under(self, params: SamplingParams) -> WhatIf:
        """The reply under these settings.

        Raises:
            EngineError: at some token the settings leave nothing to take, or a bias or penalty
                makes a logit infinite.
        """
        coin = _Coin.of(params)
        if not params.mirostat_tau:
            steps = self._all(coin)
        elif _mirostat_is_last(params):
            steps = self._all_with_mirostat(coin)
        else:
            steps = self._one_by_one(coin, _Mu(0, None), len(self._rows)).steps
        model_logprobs = [
            logprob for part in self._parts for logprob in part.taken_logprobs.tolist()
        ]
        return WhatIf(
            tuple(
                WhatIfToken(
                    id=id_,
                    model_logprob=min(model_logprob, 0.0),
                    tempered_logprob=min(step.tempered, 0.0),
                    logprob=min(step.final, 0.0),
                    removed_by=step.removed_by,
                    choices=step.choices,
                    best_id=step.best_id,
                )
                for id_, model_logprob, step in zip(self._taken, model_logprobs, steps, strict=True)
            )
        )

    def _all(self, coin: _Coin) -> list[Step]:
        """Every step at once."""
        steps: list[Step] = []
        for part in self._parts:
            first = len(steps)
            tested = self._edit(part, first, coin)
            branches = tested.run(coin.chance)
            told = coin.mix([tested.steps(branch) for branch in branches])
            for row in _unsure(branches):
                told[row] = self._ask(first + row, coin, ChainState(0)).step
            steps += told
        return steps

    def _all_with_mirostat(self, coin: _Coin) -> list[Step]:
        """Every step at once but for the cuts of mirostat, which is the last stage that is on."""
        steps: list[Step] = []
        exact = _Mu(0, None)  # the last μ that is the chain's own
        mu: float | None = None
        for part in self._parts:
            first = len(steps)
            tested = self._edit(part, first, coin)
            branches = tested.run(coin.chance)
            rows = [MirostatRows(branch.living, part.taken) for branch in branches]
            unsure = set(_unsure(branches))
            asked: dict[int, Step] = {}
            stops: list[list[int]] = []
            mus = []
            for row in range(len(part.rows)):
                mus.append(mu)
                now = 2 * coin.spared.mirostat_tau if mu is None else mu
                cuts = [one.cut(row, now) for one in rows]
                stops.append([cut.stop for cut in cuts])
                likely = cuts[-1 if coin.drops else 0]
                near = any(cut.near for cut in cuts)
                if row in unsure and not near:
                    answer = self._ask(first + row, coin, _state(mu))
                    asked[row], mu, near = answer.step, answer.mu, answer.near
                elif likely.prob > 0 and not near:
                    mu = moved_mu(now, likely.prob, coin.spared)
                if near:
                    answers = self._one_by_one(coin, exact, first + row + 1)
                    asked[row], exact = answers.steps[-1], answers.mu
                    mu = exact.value
            for branch, column in zip(branches, zip(*stops, strict=True), strict=True):
                branch.run_mirostat(list(column))
            told = coin.mix([tested.steps(branch) for branch in branches])
            for row in set(_unsure(branches)) - set(asked):
                asked[row] = self._ask(first + row, coin, _state(mus[row])).step
            for row, step in asked.items():
                told[row] = step
            steps += told
        return steps

    def _edit(self, part: ReplyPart, first: int, coin: _Coin) -> PartUnderTest:
        """Run the edits of a part."""
        try:
            return PartUnderTest(part, first, coin.dropped, self._reply)
        except NothingAlive as none:
            row = first + none.row
            self._run(row, coin.spared, ChainState(0))  # has the words for it
            raise EngineError(f"the settings leave no token to take at token {row}") from none

    def _one_by_one(self, coin: _Coin, mu: _Mu, stop: int) -> _Answers:
        """The steps from where μ is known to before `stop`, each through the chain."""
        steps, state = [], _state(mu.value)
        for row in range(mu.row, stop):
            steps.append(self._ask(row, coin, state).step)
        return _Answers(steps, _Mu(stop, state.snapshot().mu))

    def _ask(self, row: int, coin: _Coin, state: ChainState) -> _Answer:
        """One step through the chain, which goes on from that state."""
        id_ = self._taken[row]
        outcomes = [self._run(row, params, state) for params in coin.sides]
        state.observe(outcomes[-1 if coin.drops else 0], id_)
        return _Answer(
            step=coin.mix([[_step_of(outcome, id_)] for outcome in outcomes])[0],
            mu=state.snapshot().mu,
            near=any(map(on_the_edge, outcomes)),
        )

    def _run(self, row: int, params: SamplingParams, state: ChainState) -> Outcome:
        """One step through the chain itself."""
        context = StepContext(
            ids=self._reply.before(row),
            prompt_length=self._reply.prompt_length,
            end_ids=self._reply.end_ids,
            dry_breakers=self._reply.dry_breakers() if params.dry_multiplier else frozenset(),
        )
        return run_chain(self._rows[row].logits(), params, context, state)


@dataclass(frozen=True, slots=True)
class _Coin:
    """XTC's coin: both ways that it can fall, as settings under which it is not tossed."""

    spared: SamplingParams
    dropped: SamplingParams
    chance: float
    """That it falls for dropping; 0 where XTC is off."""

    @classmethod
    def of(cls, params: SamplingParams) -> _Coin:
        """The coin that these settings toss."""
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
        """The ways that it can fall."""
        if self.chance in (0, 1):
            return [self.dropped if self.chance else self.spared]
        return [self.spared, self.dropped]

    def mix(self, sides: Sequence[list[Step]]) -> list[Step]:
        """The expectation over the coin, from the steps of each of `sides`."""
        if len(sides) == 1:
            return sides[0]
        return [_mix(one, other, self.chance) for one, other in zip(*sides, strict=True)]


@dataclass(frozen=True, slots=True)
class _Mu:
    """Mirostat's μ before a row; None until it has seen a token."""

    row: int
    value: float | None


@dataclass(frozen=True, slots=True)
class _Answer:
    """A step as the chain has it."""

    step: Step
    mu: float | None
    """After it."""
    near: bool
    """Whether mirostat's edge is so near to a token that the last bits of μ decide."""


@dataclass(frozen=True, slots=True)
class _Answers:
    """Some steps in a row, and the μ after them."""

    steps: list[Step]
    mu: _Mu


def _mirostat_is_last(params: SamplingParams) -> bool:
    """Whether no stage that is on comes after it."""
    later = params.order[params.order.index("mirostat") + 1 :]
    return not any(STAGES[name].is_on(params) for name in later)


def _state(mu: float | None) -> ChainState:
    return ChainState.restore(Snapshot(seed=0, draws=0, mu=mu))


def _unsure(branches: Sequence[Branch]) -> list[int]:
    """The rows that the chain has to be asked about."""
    unsure = torch.stack([branch.living.unsure for branch in branches]).any(0)
    return unsure.nonzero().squeeze(1).tolist()


def _step_of(outcome: Outcome, id_: int) -> Step:
    """A step as the chain has it."""
    ids = torch.tensor([id_])
    removal = Lookup(outcome, [id_]).removals[0]
    return Step(
        tempered=float(outcome.tempered.at(ids)) - outcome.tempered.log_mass,
        final=float(outcome.final.at(ids)) - outcome.final.log_mass,
        removed_by=removal.stage if removal else None,
        choices=outcome.final.count,
        best_id=outcome.final.first(),
    )


def _mix(spared: Step, dropped: Step, chance: float) -> Step:
    """A step whose XTC coin falls for dropping with that chance."""
    likely = dropped if chance > 0.5 else spared
    final = _log_add(spared.final + math.log(1 - chance), dropped.final + math.log(chance))
    tempered = _log_add(spared.tempered + math.log(1 - chance), dropped.tempered + math.log(chance))
    impossible = final == -math.inf
    return replace(
        likely,
        tempered=tempered,
        final=final,
        removed_by=(likely.removed_by or spared.removed_by) if impossible else None,
    )


def _log_add(a: float, b: float) -> float:
    """ln(e^a + e^b)."""
    top = max(a, b)
    return top if top == -math.inf else top + math.log(math.exp(a - top) + math.exp(b - top))
