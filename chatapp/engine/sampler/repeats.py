"""Where the end of a text stood before: what DRY and no-repeat n-gram look for.

The sampler asks once a step, about a text that it is given whole; what-if asks about every step of
a reply, each text one token longer than the last. Both get the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

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


@dataclass(frozen=True, slots=True, eq=False)
class TextMatches:
    """`suffix_matches` of texts that each are one token longer than the last, as (m,) int64."""

    texts: torch.Tensor
    """Which text, ascending from 0."""
    places: torch.Tensor
    """The place after an earlier token that equals the text's last one."""
    lengths: torch.Tensor
    """For how many tokens, going back, both agree: at least 1."""

    def where(self, kept: torch.Tensor) -> TextMatches:
        """Those marked in (m,) bool."""
        return TextMatches(self.texts[kept], self.places[kept], self.lengths[kept])


def growing_matches(ids: Sequence[int], first: int) -> TextMatches:
    """The matches of ids[:first], of ids[:first + 1], and so on to all but the last id.

    A match that goes on is one longer, or it ends; so a text costs one look at each of its tokens.
    """
    whole = np.asarray(ids, dtype=np.int64)
    lengths = np.zeros(whole.size + 1, dtype=np.int64)  # by the place after the match
    for place, length in suffix_matches(ids[:first]).items():
        lengths[place] = length
    places, found = [], []
    for size in range(first, whole.size):
        if size > first:
            same = whole[: size - 1] == whole[size - 1]
            lengths[1:size] = np.where(same, lengths[: size - 1] + 1, 0)
        here = np.flatnonzero(lengths[:size])
        places.append(here)
        found.append(lengths[here])
    texts = np.repeat(np.arange(len(places)), [here.size for here in places])
    none = np.empty(0, dtype=np.int64)
    return TextMatches(
        torch.from_numpy(texts.astype(np.int64)),
        torch.from_numpy(np.concatenate([none, *places])),
        torch.from_numpy(np.concatenate([none, *found])),
    )
