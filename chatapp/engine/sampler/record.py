"""An outcome of the chain → the record of one step: the token taken and what there was to take.

Vectors as long as the vocabulary end here. What is asked of them is gathered for the candidates in
one go (`lookup`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from chatapp.chat.record import Candidate, TokenRecord
from chatapp.chat.text import escape_bytes
from chatapp.engine.sampler.alive import Alive, Ids
from chatapp.engine.sampler.chain import Outcome
from chatapp.engine.sampler.lookup import Lookup


def look_up_leaders(outcome: Outcome, count: int, chosen_id: int) -> Lookup:
    """The candidates of a record: the most probable, and the token taken if it is not there.

    `count`: how many to list, by model logit, lower ids first among equals; as many as the
    vocabulary has lists all that the model gives any chance. `chosen_id`: the token taken, drawn or
    forced.
    """
    model = outcome.model
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
        ranks.append(1 + int(np.count_nonzero(model.logits > model.logits[chosen_id])))
    return Lookup(outcome, ids, ranks)


def make_record(
    lookup: Lookup,
    chosen_id: int,
    *,
    index: int,
    end_ids: Ids,
    token_bytes: Callable[[int], bytes],
    text: str,
    draw: float | None,
) -> TokenRecord:
    """Describe one step.

    Args:
        end_ids: (e,), the tokens that end a reply.
        token_bytes: a token's exact bytes; asked for the candidates only.
        draw: the uniform number that chose, None where nothing was drawn.
    """
    outcome = lookup.outcome
    candidates = make_candidates(lookup, token_bytes)
    chosen = candidates[lookup.ids.index(chosen_id)]
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
        candidates=candidates,
        other_count=outcome.model.vocabulary - len(candidates),
        other_model_prob=lookup.column(outcome.model).other_prob,
        other_tempered_prob=lookup.column(outcome.tempered).other_prob,
        other_prob=lookup.column(outcome.final).other_prob,
        draw=draw,
    )


def make_candidates(lookup: Lookup, token_bytes: Callable[[int], bytes]) -> tuple[Candidate, ...]:
    outcome = lookup.outcome
    return tuple(
        Candidate(id_, escape_bytes(raw), raw, logprob, warm, prob, rank, removal)
        for id_, raw, logprob, warm, prob, rank, removal in zip(
            lookup.ids,
            map(token_bytes, lookup.ids),
            lookup.column(outcome.model).logprobs,
            lookup.column(outcome.tempered).probs,
            lookup.column(outcome.final).probs,
            lookup.ranks,
            lookup.removals,
            strict=True,
        )
    )


def _mass_of(model: Alive, ids: Ids) -> float:
    """The total probability of some ids, each counted once."""
    known = np.array(sorted({id_ for id_ in ids.tolist() if id_ < model.vocabulary}), np.int64)
    return min(float(model.probs(known).sum()), 1.0)
