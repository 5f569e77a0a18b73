"""Where the end of a text stood before, against looking at every pair of places."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from chatapp.engine.sampler.edits import suffix_matches


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 2), max_size=30))
def test_suffix_matches_are_those_of_every_pair_of_places(ids: list[int]) -> None:
    expected: dict[int, int] = {}
    for end in range(len(ids) - 2, -1, -1):
        length = 0
        while length <= end and ids[end - length] == ids[-1 - length]:
            length += 1
        if length:
            expected[end + 1] = length
    assert list(suffix_matches(ids).items()) == list(expected.items())


@pytest.mark.parametrize("ids", [[1] * 8192, [1, 2] * 4096, [*range(64)] * 128])
def test_the_worst_repeats_are_found(ids: list[int]) -> None:
    found = suffix_matches(ids)  # the naive way takes minutes
    assert max(found.values()) == len(ids) - len(set(ids))
