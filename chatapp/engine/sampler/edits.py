"""Logit edits: the stages that run before any temperature, over the whole vocabulary.

Each function is pure: from the logits as they are and a setting it makes an `Edit`, the ids it
touches with their logits before and after. The chain applies it. An id that the model does not have
(a bias from another model's template, an embedding row without an output) is passed over: there is
nothing of it to edit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from chatapp.engine.sampler.alive import Array, Ids

_FLOAT32_MAX_LOG = 88.7228391
"""ln of the largest float32: what llama.cpp clamps DRY's exponent by."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What one stage changed."""

    name: str
    """The stage's."""
    setting: float
    ids: Ids
    """(m,), each id once."""
    before: Array
    """(m,)."""
    after: Array
    """(m,); -inf bans."""

    @property
    def banned(self) -> Ids:
        """The ids that this stage alone took out of play, (b,)."""
        banned: Ids = self.ids[(self.after == -math.inf) & (self.before > -math.inf)]
        return banned

    def apply_to(self, logits: Array) -> None:
        """Write the change into (V,) logits."""
        logits[self.ids] = self.after


@dataclass(frozen=True, slots=True)
class Occurrences:
    """Which tokens stand in the penalty window, and how often."""

    ids: Ids
    """(m,), ascending."""
    counts: npt.NDArray[np.int64]
    """(m,)."""


def occurrences(history: Ids, vocabulary: int) -> Occurrences:
    """Count the ids of (n,) `history` that are below `vocabulary`."""
    ids, counts = np.unique(history, return_counts=True)
    known = ids < vocabulary
    return Occurrences(ids[known], counts[known])


def bias(logits: Array, biases: Iterable[tuple[int, float]], banned: Iterable[int]) -> Edit:
    """Add to chosen logits; a banned id gets -inf. Several biases of one id add up.

    Source: OpenAI's `logit_bias`; transformers' SequenceBias and NoBadWords processors for
    sequences of one token; llama.cpp's logit-bias sampler.
    """
    totals: dict[int, float] = {}
    for id_, value in (*biases, *((id_, -math.inf) for id_ in banned)):
        if 0 <= id_ < logits.size:
            totals[id_] = totals.get(id_, 0.0) + value
    ids = _ids(totals)
    added = np.array(list(totals.values()), dtype=np.float32)
    return Edit("bias", -math.inf, ids, logits[ids], logits[ids] + added)


def grammar(logits: Array, allowed: npt.NDArray[np.bool_]) -> Edit:
    """Ban what a grammar does not let come next: all ids but those where (m,) `allowed` is true."""
    able = np.zeros(logits.size, np.bool_)
    able[: min(allowed.size, logits.size)] = allowed[: logits.size]
    ids = np.flatnonzero(~able)
    return Edit("grammar", 0.0, ids, logits[ids], np.full(ids.size, -math.inf, np.float32))


def repetition(logits: Array, seen: Occurrences, penalty: float) -> Edit:
    """Divide positive logits of tokens already there by the penalty, multiply negative ones.

    Source: Keskar et al. 2019 (arXiv 1909.05858, section 4.1), with the multiplication for negative
    logits of transformers' RepetitionPenaltyLogitsProcessor and llama.cpp's penalties.
    """
    before = logits[seen.ids]
    after = np.where(before > 0, before / np.float32(penalty), before * np.float32(penalty))
    return Edit("repetition", penalty, seen.ids, before, after)


def presence(logits: Array, seen: Occurrences, penalty: float) -> Edit:
    """Subtract the penalty once from every token already there.

    Source: OpenAI's API reference; llama.cpp's penalties.
    """
    before = logits[seen.ids]
    return Edit("presence", penalty, seen.ids, before, before - np.float32(penalty))


def frequency(logits: Array, seen: Occurrences, penalty: float) -> Edit:
    """Subtract the penalty as many times as the token is there.

    Source: OpenAI's API reference; llama.cpp's penalties.
    """
    before = logits[seen.ids]
    after = before - (seen.counts * penalty).astype(np.float32)
    return Edit("frequency", penalty, seen.ids, before, after)


def dry(
    logits: Array,
    history: Ids,
    *,
    multiplier: float,
    base: float,
    allowed_length: int,
    breakers: frozenset[int],
) -> Edit:
    """Penalise tokens that would prolong a repeated sequence, the more the longer it is.

    A token that followed an earlier copy of the last n tokens loses
    multiplier · base^(n − allowed_length), for the longest n it can claim, when n is at least
    allowed_length. No copy reaches over a breaker, and breakers themselves are never penalised.

    Source: p-e-w's DRY (oobabooga/text-generation-webui #5677) as llama.cpp has it
    (`llama_sampler_dry_apply`), with breakers of one token.

    Args:
        logits: (V,).
        history: (n,), the penalty window.
        base: at least 1; what each further token multiplies it by.
        allowed_length: shorter repeats are free.
    """
    ids: list[int] = history.tolist()
    penalties: dict[int, float] = {}
    matches = suffix_matches(ids)
    # No further back than a repeat can reach does it matter where the last breaker stands.
    reach = max(allowed_length, max(matches.values(), default=0))
    latest = enumerate(islice(reversed(ids), reach))
    limit = next((i for i, id_ in latest if id_ in breakers), reach)
    if len(ids) > allowed_length and limit >= allowed_length:
        longest = dict.fromkeys(ids[1:], 0) if allowed_length == 0 else {}
        for place, length in matches.items():
            length = min(length, limit)
            if length >= max(allowed_length, 1) and length >= longest.get(ids[place], 0):
                longest[ids[place]] = length
        penalties = {
            id_: dry_penalty(length, multiplier, base, allowed_length)
            for id_, length in longest.items()
            if id_ not in breakers and id_ < logits.size
        }
    touched = _ids(penalties)
    penalty = np.array(list(penalties.values()), dtype=np.float32)
    return Edit("dry", multiplier, touched, logits[touched], logits[touched] - penalty)


def dry_penalty(length: int, multiplier: float, base: float, allowed_length: int) -> float:
    """What DRY subtracts for a repeat of that length, which is at least the allowed one."""
    beyond: float = length - allowed_length
    if base > 1.000001:
        beyond = min(beyond, int(_FLOAT32_MAX_LOG / math.log(base)))
    return float(multiplier * base**beyond)


def no_repeat_ngram(logits: Array, history: Ids, size: int) -> Edit:
    """Ban every token that would make the last `size` tokens a sequence already there.

    Source: Paulus et al. 2017 (arXiv 1705.04304, section 2.5); transformers'
    NoRepeatNGramLogitsProcessor. It looks at the whole history, as there.
    """
    ids: list[int] = history.tolist()
    if size == 1:
        return ban(logits, sorted(set(ids)), "no_repeat_ngram", 1.0)
    repeats = {ids[place] for place, length in suffix_matches(ids).items() if length >= size - 1}
    return ban(logits, sorted(repeats), "no_repeat_ngram", float(size))


def ban(logits: Array, ids: Iterable[int], stage: str, setting: float) -> Edit:
    """Take tokens out of play, in the name of a stage."""
    touched = _ids(id_ for id_ in ids if 0 <= id_ < logits.size)
    before = logits[touched]
    return Edit(stage, setting, touched, before, np.full_like(before, -math.inf))


def force_end(logits: Array, edited: Array, ends: Iterable[int]) -> Edit:
    """Leave only the tokens that end a reply, with the model's own logits.

    The user has asked for the end now, so no earlier edit (a ban, a repeated n-gram) can refuse
    it. Source: transformers' ForcedEOSTokenLogitsProcessor, for several end tokens.
    """
    after = np.full_like(edited, -math.inf)
    ids = _ids(id_ for id_ in ends if 0 <= id_ < logits.size)
    after[ids] = logits[ids]
    return Edit("end", 1.0, np.arange(logits.size), edited.copy(), after)


def _ids(ids: Iterable[int]) -> Ids:
    return np.fromiter(ids, dtype=np.int64)


Matches = dict[int, int]
"""For every earlier place whose token equals the last one: the place after it, where the token
that followed stands, and for how many tokens, going back, both agree (at least 1). The latest
place comes first."""


def suffix_matches(ids: Sequence[int]) -> Matches:
    """Where the end of a sequence stood before, and how much of it.

    Linear time: the Z algorithm over the reversed sequence, which looks only at positions with the
    last token, the others being 0.
    """
    backwards = ids[::-1]
    size = len(backwards)
    lengths: dict[int, int] = {}
    left = right = 0  # the stretch furthest back that is known to equal the start
    for start in range(1, size):
        if backwards[start] != backwards[0]:
            continue
        length = 1
        if start < right:
            length = min(lengths.get(start - left, 0), right - start)
        if start + length >= right:
            while start + length < size and backwards[start + length] == backwards[length]:
                length += 1
            left, right = start, start + length
        lengths[start] = length
    return {size - start: length for start, length in lengths.items()}
