"""What the sampler's tests share: made-up logits, and a way to try both forms of a set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import hypothesis.strategies as st
import numpy as np

from chatapp.chat.sampling import SamplingParams
from chatapp.engine.sampler import alive
from chatapp.engine.sampler.alive import Alive, Array
from chatapp.engine.sampler.chain import ChainState, StepContext
from chatapp.engine.sampler.vocabulary import Vocabulary

OFF = SamplingParams(temperature=1, top_k=0, top_p=1, min_p=0)
"""Every stage off."""


def off(values: Mapping[str, Any]) -> SamplingParams:
    """Every stage off but these."""
    return replace(OFF, **values)


FORMS = ("sorted", "whole")
"""Small sets are held sorted, large ones as long as the vocabulary; both must give the same."""


@contextmanager
def held(form: str) -> Iterator[None]:
    """Let even a handful of tokens be held, and searched, the way a whole vocabulary is."""
    if form == "sorted":
        yield
        return
    with patch.multiple(alive, COMPACT=2, _DIRECT=2, _BUCKETS=4, _BLOCK=3, _LEADERS=1):
        yield


def logits(*, least: int = 1, most: int = 40) -> st.SearchStrategy[list[float]]:
    """Logits with ties and -inf, at least one finite.

    They lie on a grid of 1/64: what is unequal stays so in float32 after any division here.
    """
    finite = st.one_of(
        st.integers(-6, 6).map(float), st.integers(-1500, 1500).map(lambda n: n / 64)
    )
    some = st.one_of(finite, finite, finite, st.just(-math.inf))
    rows = st.lists(some, min_size=least, max_size=most)
    return rows.filter(lambda row: max(row) > -math.inf)


def big_logits(seed: int, size: int = 6000, grid: int = 64) -> Array:
    """A vocabulary too large to be held sorted, with ties, -inf and a few likely tokens."""
    generator = np.random.default_rng(seed)
    row = generator.standard_normal(size, dtype=np.float32) * 2
    row[generator.permutation(size)[:12]] += 7
    row = (row * grid).round() / np.float32(grid)
    row[generator.permutation(size)[:50]] = -math.inf
    return row


def survivors(living: Alive) -> set[int]:
    """The ids of a set, in either form."""
    ids = living.ranked().ids
    assert ids is not None
    return set(ids.tolist())


def array(row: Sequence[float]) -> Array:
    return np.array(row, dtype=np.float32)


def context(
    ids: Sequence[int] = (),
    *,
    prompt_length: int = 0,
    end_ids: Sequence[int] = (),
    breakers: frozenset[int] = frozenset(),
    vocabulary: Vocabulary | None = None,
) -> StepContext:
    return StepContext(
        ids=np.array(ids, dtype=np.int64),
        prompt_length=prompt_length,
        end_ids=np.array(end_ids, dtype=np.int64),
        vocabulary=vocabulary
        or Vocabulary(lambda id_: b"\n" if id_ in breakers else b"x", 1 + max(breakers, default=0)),
    )


def state(seed: int = 1) -> ChainState:
    return ChainState(seed)
