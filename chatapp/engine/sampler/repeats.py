"""Where the end of a text stood before: what DRY and no-repeat n-gram look for."""

from __future__ import annotations

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
