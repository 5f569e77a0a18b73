from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatapp.chat.record import Candidate, Removal, TokenRecord
from chatapp.store.packing import (
    PackingError,
    pack_ids,
    pack_records,
    unpack_ids,
    unpack_logprobs,
    unpack_prompt,
    unpack_records,
)
from tests.store.samples import make_reply

number = st.floats(width=32, allow_nan=False)
wide = st.floats(allow_nan=False)
count = st.integers(0, 2**32 - 1)
removal = st.builds(Removal, st.text(max_size=5), wide, number, number)
candidate = st.builds(
    Candidate,
    count,
    st.text(max_size=4),
    st.binary(max_size=4),
    number,
    number,
    number,
    count,
    st.none() | removal,
)
record = st.builds(
    TokenRecord,
    index=count,
    id=count,
    token=st.text(max_size=4),
    bytes=st.binary(max_size=4),
    text=st.text(max_size=4),
    logprob=number,
    tempered_prob=number,
    prob=number,
    rank=count,
    entropy_bits=number,
    final_entropy_bits=number,
    p_end=number,
    temperature=wide,
    candidates=st.lists(candidate, max_size=3).map(tuple),
    other_count=count,
    other_model_prob=number,
    other_tempered_prob=number,
    other_prob=number,
    draw=st.none() | wide,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(record, min_size=1, max_size=6).map(tuple))
def test_any_records_come_back_the_same(records: tuple[TokenRecord, ...]) -> None:
    data = pack_records(records)
    assert unpack_records(data) == records
    assert unpack_ids(data) == tuple(record.id for record in records)
    assert unpack_logprobs(data) == tuple(record.logprob for record in records)
    assert pack_records(unpack_records(data)) == data


def test_probabilities_keep_single_precision_and_settings_double() -> None:
    (original,) = make_reply(1, candidates=2).records
    precise = replace(original, prob=1 / 3, temperature=1 / 3, draw=1 / 3)
    (back,) = unpack_records(pack_records((precise,)))
    assert (back.temperature, back.draw) == (1 / 3, 1 / 3)
    assert math.isclose(back.prob, 1 / 3, rel_tol=2**-24)


def test_records_with_twenty_candidates_are_compact() -> None:
    records = make_reply(256).records
    # 20 candidates × 3 numbers of 4 bytes with random digits are 240 bytes already.
    assert len(pack_records(records)) / 256 < 360


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 400))
def test_damaged_bytes_are_refused_and_never_misread(noise: bytes, place: int) -> None:
    good = pack_records(make_reply(2, candidates=2).records)
    for bad in (noise, good[: place % len(good)], good[:5] + noise + good[5 + len(noise) :]):
        if bad != good:
            try:
                read = unpack_records(bad)
            except PackingError:
                continue
            assert all(isinstance(item, TokenRecord) for item in read)


def test_prompt_ids_come_back() -> None:
    ids = tuple(range(0, 49152, 7))
    assert unpack_prompt(pack_ids(ids)) == ids
    with pytest.raises(PackingError):
        unpack_prompt(b"nothing of ours")
