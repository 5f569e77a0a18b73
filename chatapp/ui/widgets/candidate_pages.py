"""More of the vocabulary in a list of candidates, page by page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from chatapp.chat.inspection import CandidatePage
from chatapp.chat.record import Candidate, TokenRecord


def without_gap(candidates: Sequence[Candidate]) -> int:
    """How many candidates at the start are the most probable ones; a token that was taken from
    further down stands after them."""
    last = candidates[-1].rank if candidates else 0
    return len(candidates) - int(last > len(candidates))


def with_page(record: TokenRecord, page: CandidatePage, places: int) -> TokenRecord:
    """The record with more of the vocabulary listed, and less of it among the others."""
    listed = record.candidates[:places]
    known = {candidate.id for candidate in page.candidates}
    extra = tuple(one for one in record.candidates[places:] if one.id not in known)
    candidates = (*listed, *page.candidates, *extra)
    rest = page.vocabulary - len(candidates)

    def others(probabilities: Iterable[float]) -> float:
        return max(0.0, 1.0 - math.fsum(probabilities)) if rest else 0.0

    return replace(
        record,
        candidates=candidates,
        other_count=rest,
        other_model_prob=others(one.model_prob for one in candidates),
        other_tempered_prob=others(one.tempered_prob for one in candidates),
        other_prob=others(one.prob for one in candidates),
    )
