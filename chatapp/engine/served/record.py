"""From what a server tells of a token to a record: no number in it is made up."""

from __future__ import annotations

import math
from dataclasses import replace

from chatapp.chat.record import Candidate, TokenRecord
from chatapp.chat.served import Told, untold_id
from chatapp.chat.text import escape_bytes
from chatapp.engine.served.kinds import Weighed

_NAN = math.nan


def make_record(
    token: Weighed, text: str, index: int, temperature: float, told: Told, top: int, vocabulary: int
) -> TokenRecord:
    """One token.

    Args:
        told: which of a token's numbers the server gives.
        top: how many candidates were asked for; what is told beyond them is the token itself.
        vocabulary: how many tokens there are; 0 where that is not told.
    """
    listed = sorted(token.top, key=lambda one: -one.logprob)
    # The chosen token is not always the first of them: found by id, or else by its text.
    place = next((at for at, one in enumerate(listed) if _is(one, token)), None)
    if place is not None:
        listed[place] = replace(listed[place], id=listed[place].id or token.id)
    elif not math.isnan(token.logprob):
        place = len(listed)
        listed.append(token)
    candidates = tuple(
        _candidate(one, at + 1 if at < min(top, len(token.top)) else 0, told)
        for at, one in enumerate(listed)
    )
    chosen = _candidate(token, 0, told) if place is None else candidates[place]
    rest = 1 - math.fsum(math.exp(one.logprob) for one in listed) if listed else _NAN
    rest = max(rest, 0.0) if told.known else _NAN
    return TokenRecord(
        index=index,
        id=chosen.id,
        token=escape_bytes(token.bytes),
        bytes=token.bytes,
        text=text,
        logprob=chosen.logprob,
        tempered_prob=chosen.tempered_prob,
        prob=_NAN,
        rank=chosen.rank,
        entropy_bits=_NAN,
        final_entropy_bits=_NAN,
        p_end=_NAN,
        temperature=temperature,
        candidates=candidates,
        other_count=max(vocabulary - len(candidates), 0) if candidates else 0,
        other_model_prob=rest if told.column == "logprob" else _NAN,
        other_tempered_prob=rest if told.column == "tempered_prob" else _NAN,
        other_prob=_NAN,
    )


def taken_instead(token: Weighed, wanted: Weighed) -> Weighed:
    """What was weighed at a step, with another token taken; its number is known where it is listed
    among the candidates."""
    others = (*token.top, replace(token, top=()))
    found = next((one for one in others if _is(one, wanted)), replace(wanted, logprob=_NAN))
    return replace(found, bytes=wanted.bytes or found.bytes, top=token.top)


def _is(one: Weighed, other: Weighed) -> bool:
    if one.id is not None and other.id is not None:
        return one.id == other.id
    return one.bytes == other.bytes


def _candidate(one: Weighed, rank: int, told: Told) -> Candidate:
    raw = told.column == "logprob"
    return Candidate(
        id=untold_id(one.bytes) if one.id is None else one.id,
        token=escape_bytes(one.bytes),
        bytes=one.bytes,
        logprob=one.logprob if raw else _NAN,
        tempered_prob=_NAN if raw else math.exp(one.logprob),
        prob=_NAN,
        rank=rank,
    )
