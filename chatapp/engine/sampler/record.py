"""An outcome of the chain → the record of one step: the token taken and what there was to take.

Vectors as long as the vocabulary end here. What is asked of them is gathered for the candidates in
one go, so that a record costs little beside the step it tells of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from chatapp.chat.record import Candidate, Removal, TokenRecord
from chatapp.engine.sampler.alive import Alive
from chatapp.engine.sampler.chain import Outcome
from chatapp.engine.sampler.filters import measure


def make_record(
    outcome: Outcome,
    chosen_id: int,
    *,
    index: int,
    top_logprobs: int,
    end_ids: torch.Tensor,
    token_bytes: Callable[[int], bytes],
    text: str,
    draw: float | None,
) -> TokenRecord:
    """Describe one step.

    Args:
        outcome: what `run_chain` returned.
        chosen_id: the token taken, drawn or forced.
        index: its position in the reply, from 0.
        top_logprobs: how many candidates to list, by model logit, lower ids first among equals; as
            many as the vocabulary has lists all that the model gives any chance.
        end_ids: (e,) int64, the tokens that end a reply.
        token_bytes: a token's exact bytes; asked for the candidates only.
        text: what became printable with the token.
        draw: the uniform number that chose, None where nothing was drawn.
    """
    listed = _list_candidates(outcome.model, top_logprobs, chosen_id)
    ids = torch.tensor(listed.ids)
    model = column(outcome.model, ids)
    tempered = column(outcome.tempered, ids)
    final = column(outcome.final, ids)
    logprobs: list[float] = outcome.model.logprobs(outcome.model.at(ids)).tolist()
    candidates = [
        Candidate(id_, spell(raw), raw, logprob, warm, prob, rank, removal)
        for id_, raw, logprob, warm, prob, rank, removal in zip(
            listed.ids,
            map(token_bytes, listed.ids),
            logprobs,
            tempered.probs,
            final.probs,
            listed.ranks,
            removals(outcome, ids),
            strict=True,
        )
    ]
    chosen = candidates[listed.ids.index(chosen_id)]
    return TokenRecord(
        index=index,
        id=chosen_id,
        token=chosen.token,
        bytes=chosen.bytes,
        text=text,
        logprob=chosen.logprob,
        tempered_prob=chosen.tempered_prob,
        prob=chosen.prob,
        rank=chosen.rank,
        entropy_bits=outcome.model.entropy_bits,
        final_entropy_bits=outcome.final.entropy_bits,
        p_end=_mass_of(outcome.model, end_ids),
        temperature=outcome.temperature,
        candidates=tuple(candidates),
        other_count=outcome.model.vocabulary - len(candidates),
        other_model_prob=model.other_prob,
        other_tempered_prob=tempered.other_prob,
        other_prob=final.other_prob,
        draw=draw,
    )


def spell(raw: bytes) -> str:
    """A token's bytes as text, with what is not valid UTF-8 written as \\xNN."""
    return raw.decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Column:
    """Some tokens in one set of the chain, and the rest as one number: it all sums to 1."""

    logits: list[float]
    """-inf for those that are out."""
    probs: list[float]
    other_prob: float
    """Exactly 0 where none of the others is alive."""


def column(alive: Alive, ids: torch.Tensor) -> Column:
    """Look up (m,) int64 ids in a set."""
    logits = alive.at(ids)
    listed = int((logits > -math.inf).sum())
    if alive.count == 0:
        return Column(logits.tolist(), [0.0] * ids.numel(), 0.0)
    probs: list[float] = torch.exp(alive.logprobs(logits)).tolist()
    # Sums that differ from 1 by rounding alone would make a rest of less than nothing.
    other = max(0.0, 1.0 - math.fsum(probs)) if listed < alive.count else 0.0
    return Column(logits.tolist(), probs, other)


def ranks(model: Alive, ids: torch.Tensor) -> list[int]:
    """For each id 1 + the number of tokens with a larger model logit, without sorting them all.

    Args:
        model: the model's own logits.
        ids: (m,) int64, in any order.
    """
    own = model.at(ids).float()
    bounds, place = torch.unique(own, return_inverse=True)
    below = torch.bucketize(model.logits, bounds)  # for each token, how many bounds it exceeds
    exceeding = torch.bincount(below, minlength=bounds.numel() + 1)
    larger = exceeding.flip(0).cumsum(0).flip(0)[1:]
    ranked: list[int] = (1 + larger[place]).tolist()
    return ranked


def removals(outcome: Outcome, ids: torch.Tensor) -> list[Removal | None]:
    """For each id the first stage that took it out; None where it is alive, or never was.

    Args:
        outcome: what `run_chain` returned.
        ids: (m,) int64.
    """
    found: list[Removal | None] = [None] * ids.numel()
    gone = (outcome.final.at(ids) == -math.inf) & (outcome.model.at(ids) > -math.inf)
    pending = gone.nonzero().squeeze(1)
    for edit in outcome.edits:
        if pending.numel() == 0:
            return found
        hit = torch.isin(ids[pending], edit.banned)
        for place in pending[hit].tolist():
            found[place] = Removal(edit.stage, edit.setting, -math.inf, -math.inf)
        pending = pending[~hit]
    for stage in outcome.stages:
        if pending.numel() == 0:
            return found
        threshold = stage.cut.threshold
        if threshold is None or stage.after is stage.before:
            continue
        hit = stage.after.at(ids[pending]) == -math.inf
        places = pending[hit]
        pending = pending[~hit]
        if places.numel():
            values: list[float] = measure(stage.name, stage.before, ids[places]).tolist()
            for place, value in zip(places.tolist(), values, strict=True):
                found[place] = Removal(stage.name, stage.setting, threshold, value)
    return found


@dataclass(frozen=True, slots=True)
class _Listed:
    """The candidates, best first."""

    ids: list[int]
    ranks: list[int]


def _list_candidates(model: Alive, count: int, chosen_id: int) -> _Listed:
    """The `count` most probable, and the chosen one behind them if it is not there."""
    ids: list[int] = []
    logits: list[float] = []
    if count > 0:
        leaders = model.leaders(count)
        assert leaders.ids is not None
        ids, logits = leaders.ids[:count].tolist(), leaders.logits[:count].tolist()
    ranks: list[int] = []
    for place, logit in enumerate(logits):
        equal = place > 0 and logit == logits[place - 1]
        ranks.append(ranks[-1] if equal else place + 1)
    if chosen_id not in ids:
        ids.append(chosen_id)
        ranks.append(1 + int((model.logits > model.logits[chosen_id]).sum()))
    return _Listed(ids, ranks)


def _mass_of(model: Alive, ids: torch.Tensor) -> float:
    """The total probability of some ids, each counted once."""
    known = torch.unique(ids[ids < model.vocabulary])
    return min(float(model.probs(known).sum()), 1.0)
