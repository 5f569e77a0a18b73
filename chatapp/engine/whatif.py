"""What if: a finished reply under other settings, without running the model.

For each token of the reply the sampler's stages look again at the logits it was taken from, and say
what it would have been worth. Nothing is drawn, so the reply stays as it is.

Most stages run for all tokens at once (`whatif_tables`, `whatif_edits`, `whatif_stages`); where an
exact answer needs it, the chain itself is asked for a row. Two settings are special:

- XTC tosses a coin at every step. The probability told is the expectation over the coin, which is
  the chance that a draw gives the token; what else is told of a step (choices, the best token, what
  removed it) is told for the way the coin is likelier to fall.
- Mirostat's bound at a token follows from the tokens before it, as if the reply had been drawn so
  from its first token on. It goes through the chain token by token, which takes about a second for
  500 tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from chatapp.chat.errors import EngineError
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.whatif import WhatIf, WhatIfToken
from chatapp.engine.history import LogitRow
from chatapp.engine.sampler.chain import ChainState, Outcome, StepContext, run_chain
from chatapp.engine.sampler.record import removals
from chatapp.engine.whatif_edits import EditedPart, ReplyIds, edit_part
from chatapp.engine.whatif_stages import Living
from chatapp.engine.whatif_tables import ReplyPart

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
        chance = params.xtc_probability if params.xtc_threshold <= 0.5 else 0.0
        spared = replace(params, xtc_probability=0.0)
        dropped = replace(params, xtc_probability=1.0)
        if params.mirostat_tau:
            steps = self._one_by_one(spared, dropped, chance)
        elif chance == 0:
            steps = self._all(spared)
        elif chance == 1:
            steps = self._all(dropped)
        else:
            both = zip(self._all(spared), self._all(dropped), strict=True)
            steps = [_mix(one, other, chance) for one, other in both]
        model_logprobs = [
            logprob
            for part in self._parts
            for logprob in (part.taken_logits.double() - part.log_mass).tolist()
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

    def _all(self, params: SamplingParams) -> list[_Step]:
        """Every step at once; XTC's chance is 0 or 1."""
        steps: list[_Step] = []
        for part in self._parts:
            first = len(steps)
            tested = _test_part(part, first, params, self._reply)
            if isinstance(tested, int):
                self._run(first + tested, params, ChainState(0))
                raise EngineError(f"the settings leave no token to take at token {first + tested}")
            for row in tested.unsure:
                outcome = self._run(first + row, params, ChainState(0))
                tested.steps[row] = _step_of(outcome, self._taken[first + row])
            steps += tested.steps
        return steps

    def _one_by_one(
        self, spared: SamplingParams, dropped: SamplingParams, chance: float
    ) -> list[_Step]:
        """Every step through the chain, with mirostat's μ going from token to token."""
        steps = []
        state = ChainState(0)
        for row, id_ in enumerate(self._taken):
            likely = outcome = self._run(row, dropped if chance == 1 else spared, state)
            step = _step_of(outcome, id_)
            if 0 < chance < 1:
                other = self._run(row, dropped, state)
                step = _mix(step, _step_of(other, id_), chance)
                likely = other if chance > 0.5 else outcome
            state.observe(likely, id_)
            steps.append(step)
        return steps

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
class _Step:
    """What the settings make of one token: natural logprobs, and the rest of `WhatIfToken`."""

    tempered: float
    final: float
    removed_by: str | None
    choices: int
    best_id: int


@dataclass(frozen=True, slots=True)
class _TestedPart:
    """Some neighbouring steps, and which of them the chain has to be asked about."""

    steps: list[_Step]
    unsure: list[int]


def _step_of(outcome: Outcome, id_: int) -> _Step:
    """A step as the chain has it."""
    ids = torch.tensor([id_])
    removal = removals(outcome, ids)[0]
    return _Step(
        tempered=float(outcome.tempered.at(ids)) - outcome.tempered.log_mass,
        final=float(outcome.final.at(ids)) - outcome.final.log_mass,
        removed_by=removal.stage if removal else None,
        choices=outcome.final.count,
        best_id=outcome.final.first(),
    )


def _mix(spared: _Step, dropped: _Step, chance: float) -> _Step:
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


def _test_part(
    part: ReplyPart, first: int, params: SamplingParams, reply: ReplyIds
) -> _TestedPart | int:
    """Edits, temperature and filters for some steps at once.

    Returns:
        A row instead, when there is one that nothing can be taken from: the chain has the words.
    """
    edited = edit_part(part, first, params, reply)
    table = part.table if edited is None else edited.table
    taken = _taken_logits(part, edited)
    finder = _FirstIds(part, edited)
    living = Living(table, taken, finder.find)
    if living.without_any.numel():
        return int(living.without_any[0])
    removed_by: list[str | None] = [None] * len(part.rows)
    alive = living.taken_alive(part.taken)
    tempered: torch.Tensor | None = None
    cut = False
    for name in params.order:
        if name == "mirostat" or not living.run(name, params):
            continue
        if name == "temperature" and not cut:
            tempered = _logprobs(living, taken, part.taken)
        cut = cut or name != "temperature"
        still = alive & living.taken_alive(part.taken)
        for row in (alive & ~still).nonzero().squeeze(1).tolist():
            removed_by[row] = name
        alive = still
    if tempered is None:
        uncut = Living(table, taken, finder.find)
        uncut.follow(living)
        tempered = _logprobs(uncut, taken, part.taken)
    final = torch.where(alive, _logprobs(living, taken, part.taken), -torch.inf)
    if edited is not None:  # what has been banned was cut by the ban, though a forced end freed it
        for row in (~alive).nonzero().squeeze(1).tolist():
            removed_by[row] = edited.banned_by[row] or removed_by[row]
    columns = (tempered, final, living.number.long(), living.first_ids())
    return _TestedPart(
        steps=[
            _Step(tempered, final, removal, choices, best_id)
            for tempered, final, choices, best_id, removal in zip(
                *(column.tolist() for column in columns), removed_by, strict=True
            )
        ],
        unsure=living.unsure.nonzero().squeeze(1).tolist(),
    )


def _taken_logits(part: ReplyPart, edited: EditedPart | None) -> torch.Tensor:
    """The edited logits of the tokens taken, (r,) float64."""
    if edited is None:
        return part.taken_logits.double()
    column = torch.searchsorted(edited.ids, part.taken).clamp_(max=edited.ids.numel() - 1)
    touched = edited.ids[column] == part.taken
    logits = edited.logits.gather(1, column.unsqueeze(1))[:, 0]
    others = torch.full_like(logits, -torch.inf) if edited.forced else part.taken_logits
    return torch.where(touched, logits, others).double()


def _logprobs(living: Living, taken: torch.Tensor, taken_ids: torch.Tensor) -> torch.Tensor:
    """ln p of the tokens taken, as if they were alive, (r,) float64."""
    logprobs = taken * living.scale - living.log_mass()
    alone = torch.where(living.only == taken_ids, 0.0, -torch.inf)
    return torch.where(living.only >= 0, alone, logprobs)


class _FirstIds:
    """Finds the lowest id among the tokens with some logit."""

    def __init__(self, part: ReplyPart, edited: EditedPart | None) -> None:
        self._part = part
        none = torch.empty(0, dtype=torch.int64)
        self._edited_ids = none if edited is None else edited.ids
        self._logits = part.head_logits
        self._ids = part.head_ids
        if edited is not None:
            # One more than the vocabulary, for the -1 that pads heads.
            touched = torch.zeros(part.vocabulary + 1, dtype=torch.bool)
            touched[edited.ids] = True
            dead = touched[part.head_ids] | edited.forced
            self._logits = torch.cat(
                (part.head_logits.masked_fill(dead, -torch.inf), edited.logits.double()), 1
            )
            columns = edited.ids.expand(len(part.rows), -1)
            self._ids = torch.cat((part.head_ids, columns), 1)

    def find(self, logits: torch.Tensor, equals: torch.Tensor) -> torch.Tensor:
        """The lowest id with a logit in each row, (r,) int64.

        Args:
            logits: (r, 1) float64.
            equals: (r, 1), how many tokens have it.
        """
        same = (self._logits == logits) & (self._ids >= 0)
        found = self._ids.masked_fill(~same, self._part.vocabulary).amin(1)
        for row in (same.sum(1) < equals[:, 0]).nonzero().squeeze(1).tolist():
            other = self._part.tail_id(row, float(logits[row]), self._edited_ids)
            if other is not None:
                found[row] = min(int(found[row]), other)
        return found
