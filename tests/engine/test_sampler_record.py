"""The record and the trace: what they say must be what happened."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from chatapp.chat.record import Removal, TokenRecord
from chatapp.chat.sampling import EDITS, ORDERS, SamplingParams
from chatapp.engine.sampler.alive import Array
from chatapp.engine.sampler.chain import ChainState, NothingLeft, Outcome, draw, run_chain
from chatapp.engine.sampler.lookup import Lookup
from chatapp.engine.sampler.record import look_up_leaders, make_record
from chatapp.engine.sampler.trace import trace_tokens
from tests.engine.numpy_oracle import softmax
from tests.engine.sampler_cases import (
    FORMS,
    OFF,
    array,
    big_logits,
    context,
    held,
    logits,
    off,
    state,
)

form = pytest.mark.parametrize("form", FORMS)


def spelt(id_: int) -> bytes:
    return b"\xe2\x82" if id_ == 0 else b"t%d" % id_


def record_of(
    outcome: Outcome, chosen: int, top: int, end_ids: tuple[int, ...] = ()
) -> TokenRecord:
    return make_record(
        look_up_leaders(outcome, top, chosen),
        chosen,
        index=3,
        end_ids=np.array(end_ids, dtype=np.int64),
        token_bytes=spelt,
        text="t",
        draw=0.5,
    )


def run(row: Array, params: SamplingParams, **given_context: Any) -> Outcome:
    return run_chain(row, params, context(**given_context), state())


def test_a_record_of_four_tokens() -> None:
    row = np.log(array([0.1, 0.2, 0.3, 0.4]))
    outcome = run(row, off({"top_k": 3, "min_p": 0.6}))
    record = record_of(outcome, 3, 4, end_ids=(0, 1, 1, 9))
    assert [one.id for one in record.candidates] == [3, 2, 1, 0]
    assert [one.rank for one in record.candidates] == [1, 2, 3, 4]
    assert [one.model_prob for one in record.candidates] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert [one.prob for one in record.candidates] == pytest.approx([4 / 7, 3 / 7, 0, 0])
    assert record.candidates[0].removed_by is None
    cut = record.candidates[2].removed_by
    assert cut is not None
    assert (cut.stage, cut.setting) == ("min_p", 0.6)
    assert (cut.threshold, cut.value) == pytest.approx((0.6 * 4 / 9, 2 / 9))
    assert record.candidates[3].removed_by == Removal("top_k", 3, 3, 4)
    assert record.p_end == pytest.approx(0.3)
    assert record.entropy_bits == pytest.approx(1.846439, abs=1e-6)
    assert record.final_entropy_bits == pytest.approx(0.985228, abs=1e-6)
    assert record.candidates[3].token == "\\xe2\\x82"
    assert (record.bytes, record.text, record.draw, record.index) == (b"t3", "t", 0.5, 3)
    assert (record.other_count, record.other_prob) == (0, 0)


def test_the_chosen_token_is_listed_behind_the_best_with_its_rank() -> None:
    row = array([5, 4, 3, 3, 1])
    record = record_of(run(row, OFF), 4, 2)
    assert [(one.id, one.rank) for one in record.candidates] == [(0, 1), (1, 2), (4, 5)]
    assert record.rank == 5
    assert record.other_count == 2
    record = record_of(run(row, OFF), 3, 3)
    assert [(one.id, one.rank) for one in record.candidates] == [(0, 1), (1, 2), (2, 3), (3, 3)]
    assert [one.rank for one in record_of(run(row, OFF), 0, 5).candidates] == [1, 2, 3, 3, 5]
    assert [one.id for one in record_of(run(row, OFF), 1, 0).candidates] == [1]


def test_bans_and_penalties_name_their_stage() -> None:
    cases: list[tuple[dict[str, Any], dict[str, Any], str, float]] = [
        ({"banned": (1,)}, {}, "bias", -math.inf),
        ({"logit_bias": ((1, -math.inf),)}, {}, "bias", -math.inf),
        ({"no_repeat_ngram": 2}, {"ids": [0, 1, 0]}, "no_repeat_ngram", 2),
        ({"min_tokens": 4}, {"end_ids": [1]}, "min_tokens", 4),
        ({"end": "forbid"}, {"end_ids": [1]}, "end", 0),
        ({"end": "force"}, {"end_ids": [0]}, "end", 1),
    ]
    for values, given_context, stage, setting in cases:
        record = record_of(run(array([1, 2]), off(values), **given_context), 0, 2)
        assert record.candidates[0].id == 1
        assert record.candidates[0].removed_by == Removal(stage, setting, -math.inf, -math.inf)
        assert record.candidates[0].prob == 0
        assert record.candidates[0].tempered_prob == 0
        assert record.prob == 1


def test_temperature_0_names_itself() -> None:
    outcome = run(array([2, 3, 3, 1]), SamplingParams(temperature=0))
    record = record_of(outcome, 1, 4)
    assert (record.temperature, record.tempered_prob, record.prob) == (0, 1, 1)
    assert [one.removed_by for one in record.candidates] == [
        None,
        Removal("temperature", 0, 3, 3),
        Removal("temperature", 0, 3, 2),
        Removal("temperature", 0, 3, 1),
    ]


def test_what_the_model_itself_rules_out_was_removed_by_nothing() -> None:
    outcome = run(array([0, -math.inf, 1]), SamplingParams())
    assert [one.id for one in record_of(outcome, 2, 99).candidates] == [2, 0]
    forced = record_of(outcome, 1, 99)
    assert (forced.prob, forced.rank, forced.logprob) == (0, 3, -math.inf)
    assert forced.candidates[-1].removed_by is None


def test_a_dynamic_temperature_is_told_as_it_was() -> None:
    outcome = run(array([0, 0, 0]), SamplingParams(temperature=1, dynatemp_range=0.5))
    assert record_of(outcome, 0, 3).temperature == pytest.approx(1.5)


@pytest.mark.parametrize("top", [1, 50, 6000])
@pytest.mark.parametrize("order", ORDERS)
def test_columns_sum_to_1_and_the_rest_is_what_is_left(top: int, order: str) -> None:
    cases: list[dict[str, Any]] = [
        {},
        {"temperature": 3.0, "top_k": 0, "min_p": 0.0, "top_p": 1.0},
        {"typical_p": 0.4},
    ]
    for seed, values in enumerate(cases):
        row = big_logits(seed)
        params = SamplingParams(**values, order=ORDERS[order])
        outcome = run(row, params)
        record = record_of(outcome, draw(outcome, state()).id, top, end_ids=(5,))
        listed = np.array([one.id for one in record.candidates])
        others = np.ones(row.size, dtype=np.bool_)
        others[listed] = False
        exact = softmax(row.astype(np.float64))
        assert record.other_model_prob == pytest.approx(exact[others].sum().item(), abs=1e-6)
        assert record.p_end == pytest.approx(exact[5].item(), abs=1e-7)
        for column, rest in (
            ([one.model_prob for one in record.candidates], record.other_model_prob),
            ([one.tempered_prob for one in record.candidates], record.other_tempered_prob),
            ([one.prob for one in record.candidates], record.other_prob),
        ):
            assert math.fsum(column) + rest == pytest.approx(1, abs=1e-6)
        assert record.other_count == row.size - len(record.candidates)
        entropy = -math.fsum(p * math.log2(p) for p in exact.tolist() if p)
        assert record.entropy_bits == pytest.approx(entropy, abs=1e-5)


def test_the_whole_vocabulary_is_listed_with_each_removal_explained() -> None:
    row = big_logits(4)
    params = SamplingParams(top_k=3000, top_p=0.9, min_p=0, typical_p=0.5, banned=(7, 8))
    record = record_of(run(row, params), 0, row.size)
    assert len(record.candidates) == int((row > -math.inf).sum())
    for one in record.candidates:
        assert (one.removed_by is None) == (one.prob > 0)
        if one.removed_by is not None and one.removed_by.stage == "top_k":
            edited = row.copy()
            edited[[7, 8]] = -math.inf
            assert one.removed_by.value == 1 + int((edited > row[one.id]).sum())
    stages = {one.removed_by.stage for one in record.candidates if one.removed_by}
    assert stages == {"bias", "top_k", "top_p", "typical"}


@form
@settings(max_examples=100, deadline=None)
@given(
    row=logits(least=3),
    values=st.fixed_dictionaries(
        {
            "temperature": st.sampled_from([0.0, 0.5, 1.0, 2.0]),
            "top_k": st.sampled_from([0, 2, 6]),
            "top_p": st.sampled_from([1.0, 0.8]),
            "min_p": st.sampled_from([0.0, 0.1]),
            "typical_p": st.sampled_from([1.0, 0.6]),
            "top_n_sigma": st.sampled_from([0.0, 1.0]),
            "xtc_probability": st.sampled_from([0.0, 1.0]),
            "mirostat_tau": st.sampled_from([0.0, 1.0]),
            "repetition_penalty": st.sampled_from([1.0, 1.5]),
            "no_repeat_ngram": st.sampled_from([0, 2]),
            "dry_multiplier": st.sampled_from([0.0, 0.8]),
            "banned": st.sampled_from([(), (1,)]),
            "end": st.sampled_from(["allow", "forbid", "force"]),
        }
    ),
    order=st.sampled_from(sorted(ORDERS)),
)
def test_trace_and_record_tell_the_same_story(
    form: str, row: list[float], values: dict[str, Any], order: str
) -> None:
    params = SamplingParams(**values, order=ORDERS[order])
    where = context([0, 1, 2, 0], prompt_length=2, end_ids=[2])
    ids = list(range(len(row)))
    with held(form):
        chain = state()
        snapshot = chain.snapshot()
        try:
            outcome = run_chain(array(row), params, where, chain)
        except NothingLeft:
            return
        again = run_chain(array(row), params, where, ChainState.restore(snapshot))
        story = trace_tokens(Lookup(again, ids))
        assert story == trace_tokens(Lookup(outcome, ids))
        record = record_of(outcome, draw(outcome, chain).id, len(row))
        part = trace_tokens(Lookup(outcome, ids[:2]))
    assert [stage.stage for stage in story.stages[1:]] == [
        *(edit.name for edit in outcome.edits),
        *(stage.name for stage in outcome.stages),
    ]
    known = [*EDITS, "end", *params.order]
    order_told = [known.index(stage.stage) for stage in story.stages[1:]]
    assert order_told == sorted(order_told)
    for stage in (*story.stages, *part.stages):
        if stage.alive:
            total = math.fsum(one.prob for one in stage.tokens) + stage.other_prob
            assert total == pytest.approx(1, abs=1e-6)
        assert all(one.prob == 0 for one in stage.tokens if one.logit is None)
    last = {one.id: one for one in story.stages[-1].tokens}
    removed = {one.id: stage.stage for stage in story.stages for one in stage.tokens if one.removed}
    for one in record.candidates:
        assert last[one.id].prob == pytest.approx(one.prob, abs=1e-12)
        if one.removed_by is not None:
            first = [
                s.stage for s in story.stages for t in s.tokens if t.removed and t.id == one.id
            ]
            assert one.removed_by.stage in first
            assert one.prob == 0
        else:
            assert one.id not in removed or values["end"] == "force"
            assert last[one.id].logit is not None


def test_a_random_stage_says_what_it_drew() -> None:
    params = off({"xtc_probability": 1.0})
    snapshot = state(9).snapshot()
    outcome = run_chain(array([1, 1, 0]), params, context(), ChainState.restore(snapshot))
    story = trace_tokens(Lookup(outcome, [0, 1, 2]))
    assert story.stages[1].stage == "xtc"
    assert story.stages[1].drawn == state(9).uniform()
    assert [one.removed for one in story.stages[1].tokens] == [True, True, False]
    assert (story.stages[1].setting, story.stages[1].threshold) == (1.0, 0.1)
