"""Where the end of a text stood before: what DRY and no-repeat n-gram look for.

The sampler asks once a step, about a text that it is given whole; what-if asks about every step of
a reply, each text one token longer than the last. Both get the same answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

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


class GrowingMatches:
    """`suffix_matches` of a text that grows: a match that goes on is one longer, or it ends."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)
        """The text so far."""
        self.matches = suffix_matches(self.ids)
        self._places: defaultdict[int, list[int]] = defaultdict(list)
        for place, id_ in enumerate(self.ids):
            self._places[id_].append(place)

    def append(self, id_: int) -> None:
        """Let the text grow by a token."""
        before, places = self.matches, self._places[id_]
        self.matches = {place + 1: before.get(place, 0) + 1 for place in reversed(places)}
        places.append(len(self.ids))
        self.ids.append(id_)
