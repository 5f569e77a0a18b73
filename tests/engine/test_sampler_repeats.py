"""Where the end of a text stood before, against looking at every pair of places."""

from __future__ import annotations

import time

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from chatapp.engine.sampler.repeats import growing_matches, suffix_matches


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
def test_the_worst_repeats_are_found_in_linear_time(ids: list[int]) -> None:
    started = time.perf_counter()
    found = suffix_matches(ids)
    assert time.perf_counter() - started < 0.5  # the naive way takes minutes
    assert max(found.values()) == len(ids) - len(set(ids))


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, 2), max_size=30), known=st.integers(0, 30))
def test_growing_texts_have_the_matches_of_each_whole_text(ids: list[int], known: int) -> None:
    known = min(known, len(ids))
    growing = growing_matches(ids, known)
    for text in range(len(ids) - known):
        one = growing.where(growing.texts == text)
        found = dict(zip(one.places.tolist(), one.lengths.tolist(), strict=True))
        assert found == suffix_matches(ids[: known + text])
    assert growing.texts.tolist() == sorted(growing.texts.tolist())
    assert all(0 <= text < len(ids) - known for text in growing.texts.tolist())
