"""Whole chains, the draw, and what lives from step to step."""

from __future__ import annotations

import itertools
import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from scipy import stats

from chatapp.chat.sampling import LLAMA_CPP_ORDER, ORDERS, TRANSFORMERS_ORDER, SamplingParams
from chatapp.engine.sampler.alive import Alive, _round_up
from chatapp.engine.sampler.chain import ChainState, Outcome, draw, run_chain
from tests.engine.numpy_oracle import Filters, softmax
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
    survivors,
)

few = settings(max_examples=50, deadline=None)
form = pytest.mark.parametrize("form", FORMS)


def chains() -> st.SearchStrategy[dict[str, Any]]:
    """Settings with some stages on and some off."""
    return st.fixed_dictionaries(
        {
            "temperature": st.sampled_from([0.0, 0.4, 1.0, 1.7]),
            "top_k": st.sampled_from([0, 1, 5, 12]),
            "top_p": st.sampled_from([1.0, 0.93, 0.5, 0.0]),
            "min_p": st.sampled_from([0.0, 0.03, 0.4]),
            "typical_p": st.sampled_from([1.0, 0.9, 0.3]),
            "top_n_sigma": st.sampled_from([0.0, 0.7, 2.0]),
            "xtc_probability": st.sampled_from([0.0, 0.5, 1.0]),
            "mirostat_tau": st.sampled_from([0.0, 0.6, 3.0]),
            "dynatemp_range": st.sampled_from([0.0, 0.5]),
        }
    )


@form
@pytest.mark.parametrize("order", ORDERS)
@few
@given(row=logits(), values=chains(), seed=st.integers(0, 3))
def test_chains_are_the_oracles_in_both_orders(
    form: str, order: str, row: list[float], values: dict[str, Any], seed: int
) -> None:
    params = SamplingParams(**values, order=ORDERS[order])
    coins = ChainState(seed)
    oracle = Filters(coins=[coins.uniform()], mu=2 * params.mirostat_tau)
    stages = oracle.chain(np.array(row), params)
    assume(oracle.margin > 1e-5)
    expected = stages[-1][1] if stages else np.array(row)
    with held(form):
        outcome = run_chain(array(row), params, context(), state(seed))
        assert survivors(outcome.final) == set(np.flatnonzero(expected > -np.inf).tolist())
        assert [stage.name for stage in outcome.stages] == [
            name for name, _ in stages if name != "xtc" or params.xtc_threshold <= 0.5
        ]
        probs = outcome.final.probs(np.arange(len(row)))
    np.testing.assert_allclose(probs, softmax(expected), atol=1e-5)
    assert probs.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("order", ORDERS)
def test_a_large_vocabulary_goes_through_the_same_chain(seed: int, order: str) -> None:
    row = big_logits(seed)
    cases: list[dict[str, Any]] = [
        {},
        {"temperature": 2.0, "top_k": 0, "min_p": 0.0, "top_p": 0.99},
        {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 0.9, "xtc_probability": 1.0},
        {"top_k": 5500, "top_n_sigma": 4.0, "mirostat_tau": 6.0, "dynatemp_range": 0.3},
    ]
    for values in cases:
        params = SamplingParams(**values, order=ORDERS[order])
        oracle = Filters(coins=[ChainState(seed).uniform()], mu=2 * params.mirostat_tau)
        expected = oracle.chain(row.astype(np.float64), params)[-1][1]
        outcome = run_chain(row, params, context(), state(seed))
        different = survivors(outcome.final) ^ set(np.flatnonzero(expected > -np.inf).tolist())
        assert len(different) <= (0 if oracle.margin > 1e-8 else 2)
        if not different:
            ours = outcome.final.probs(np.arange(row.size))
            np.testing.assert_allclose(ours, softmax(expected), atol=1e-6)


def test_transformers_own_chain_gives_the_same_distribution() -> None:
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    chain = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(1.2),
            TemperatureLogitsWarper(0.7),
            TopKLogitsWarper(50),
            TopPLogitsWarper(0.95),
            MinPLogitsWarper(0.05),
        ]
    )
    params = SamplingParams(repetition_penalty=1.2)
    ids = list(range(0, 6000, 7))
    for seed in range(20):
        row = big_logits(seed)
        theirs = chain(torch.tensor([ids]), torch.tensor(row[None]))[0].softmax(0).double()
        outcome = run_chain(row, params, context(ids), state())
        ours = outcome.final.probs(np.arange(row.size))
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)


EXTREMES: dict[str, tuple[Any, ...]] = {
    "temperature": (0, 5e-324, 1e-9, 1, 5),
    "top_k": (0, 1, 2**31 - 1),
    "top_p": (0, 1e-300, 1),
    "min_p": (0, 1e-300, 1),
    "repetition_penalty": (0.1, 1, 5),
    "presence_penalty": (-5, 0, 5),
    "frequency_penalty": (-5, 0, 5),
    "penalty_window": (0, 1, 2**31 - 1),
    "dry_multiplier": (0, 10),
    "dry_base": (1, 8),
    "dry_allowed_length": (0, 2**31 - 1),
    "no_repeat_ngram": (0, 2, 2**31 - 1),
    "dynatemp_range": (0, 5),
    "dynatemp_exponent": (0, 10),
    "typical_p": (0, 1e-300, 1),
    "top_n_sigma": (0, 1e-300, 10),
    "xtc_probability": (0, 1),
    "xtc_threshold": (0, 0.5, 1),
    "mirostat_tau": (0, 1e-300, 20),
    "mirostat_eta": (0, 1),
    "min_tokens": (0, 2**31 - 1),
    "end": ("allow", "forbid", "force"),
}


@form
@settings(max_examples=150, deadline=None)
@given(
    row=logits(least=6),
    values=st.fixed_dictionaries({n: st.sampled_from(v) for n, v in EXTREMES.items()}),
    order=st.permutations(TRANSFORMERS_ORDER),
    ids=st.lists(st.integers(0, 5), max_size=30),
)
def test_any_mix_of_extremes_leaves_a_token(
    form: str, row: list[float], values: dict[str, Any], order: list[str], ids: list[int]
) -> None:
    row[4] = 0.5  # neither banning the end nor forcing it can leave nothing
    row[5] = 0.25
    values["end"] = values["end"] if values["no_repeat_ngram"] != 2 else "force"
    params = SamplingParams(**values, order=tuple(order))
    with held(form):
        chain = state()
        for _ in range(2):
            outcome = run_chain(array(row), params, context(ids, end_ids=[5]), chain)
            chosen = draw(outcome, chain).id
            chain.observe(outcome, chosen)
            probs = outcome.final.probs(np.arange(len(row)))
            assert probs.sum().item() == pytest.approx(1, abs=1e-6)
            assert probs[chosen] > 0
            assert outcome.final.count == int(
                (outcome.final.at(np.arange(len(row))) > -math.inf).sum()
            )
            ids = [*ids, chosen]


def test_temperature_0_is_the_arg_max_whatever_else_is_set() -> None:
    row = big_logits(1)
    for order in ORDERS.values():
        params = SamplingParams(temperature=0, dynatemp_range=3, top_k=7, typical_p=1, order=order)
        outcome = run_chain(row, params, context(), state())
        drawn = draw(outcome, state())
        assert (drawn.id, drawn.uniform) == (int(row.argmax()), None)
        assert outcome.temperature == 0
        assert outcome.tempered.probs(np.array([drawn.id])).item() == 1


def test_tempered_is_over_the_whole_vocabulary_in_any_order() -> None:
    row = big_logits(2)
    expected = softmax(row.astype(np.float64) / 0.6)
    for order in (TRANSFORMERS_ORDER, LLAMA_CPP_ORDER):
        outcome = run_chain(row, SamplingParams(temperature=0.6, order=order), context(), state())
        ours = outcome.tempered.probs(np.arange(row.size))
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_model_logprobs_are_log_softmax() -> None:
    row = big_logits(3)
    model = run_chain(row, SamplingParams(), context(), state()).model
    ours = model.logprobs(model.logits)
    np.testing.assert_allclose(ours, torch.tensor(row).log_softmax(0).numpy(), atol=1e-5)


def draws(outcome: Outcome, seed: int, count: int) -> list[int]:
    chain = state(seed)
    return [draw(outcome, chain).id for _ in range(count)]


@pytest.mark.parametrize(
    ("params", "size"),
    [(SamplingParams(temperature=1.3, top_k=40, min_p=0), 6000), (OFF, 60)],
    ids=["filtered", "whole"],
)
def test_twenty_thousand_draws_follow_the_distribution(params: SamplingParams, size: int) -> None:
    row = big_logits(5)[:size]
    outcome = run_chain(row, params, context(), state())
    counts = np.bincount(draws(outcome, 11, 20_000), minlength=size)
    probs = outcome.final.probs(np.arange(size))
    assert counts[probs == 0].sum() == 0
    often = probs * 20_000 >= 10
    observed = np.append(counts[often], counts[~often].sum())
    expected = np.append(probs[often], probs[~often].sum()) * 20_000
    if expected[-1] < 10:
        observed, expected = (
            observed[:-1],
            expected[:-1] * observed[:-1].sum() / expected[:-1].sum(),
        )
    assert len(observed) > 10
    assert stats.chisquare(observed, expected).pvalue > 0.001


@few
@given(row=logits(), uniforms=st.lists(st.floats(0, 1, exclude_max=True), max_size=5))
def test_a_draw_is_the_inverse_cdf_in_the_documented_order(
    row: list[float], uniforms: list[float]
) -> None:
    order = sorted(
        (i for i, value in enumerate(row) if value > -math.inf), key=lambda i: (-row[i], i)
    )
    sums = np.cumsum(softmax(np.array(row))[order])
    for uniform in [0.0, 1 - 2**-53, *uniforms]:
        if min(abs(sums - uniform)) < 1e-6 and uniform not in (0.0, 1 - 2**-53):
            continue
        expected = order[min(int(np.searchsorted(sums, uniform)), len(order) - 1)]
        picked = set()
        for name in FORMS:
            with held(name):
                picked.add(Alive(array(row)).pick(uniform))
                picked.add(Alive(array(row)).ranked().pick(uniform))
        if uniform < 1e-9 or uniform < sums[-1] - 1e-6:
            assert picked == {expected}
        assert all(softmax(np.array(row))[one] > 0 for one in picked)


def replies(params: SamplingParams, seed: int, steps: int = 30) -> list[int]:
    chain, ids = state(seed), [1, 2, 3]
    for step in range(steps):
        outcome = run_chain(big_logits(step, size=500), params, context(ids), chain)
        chosen = draw(outcome, chain).id
        chain.observe(outcome, chosen)
        ids.append(chosen)
    return ids[3:]


def test_same_seed_same_ids() -> None:
    params = SamplingParams(temperature=1.5, xtc_probability=0.4, mirostat_tau=4.0)
    assert replies(params, 5) == replies(params, 5)
    assert replies(params, 5) != replies(params, 6)


def test_xtc_draws_its_coin_only_when_it_is_on() -> None:
    row = big_logits(0)
    cases: list[tuple[dict[str, Any], int]] = [
        ({"xtc_probability": 0.0}, 0),
        ({"xtc_probability": 0.5}, 1),
        ({"xtc_probability": 0.5, "xtc_threshold": 0.51}, 0),
        ({"xtc_probability": 0.5, "temperature": 0}, 0),
    ]
    for values, expected in cases:
        chain = state()
        run_chain(row, SamplingParams(**values), context(), chain)
        assert chain.snapshot().draws == expected


def test_a_state_is_restored_from_its_snapshot() -> None:
    params = SamplingParams(temperature=2.0, min_p=0, xtc_probability=0.5, mirostat_tau=5.0)
    chain = state(2**70 + 3)
    taken = []
    for step in range(12):
        if step == 5:
            snapshot = chain.snapshot()
        outcome = run_chain(big_logits(step, size=500), params, context(), chain)
        taken.append(draw(outcome, chain))
        chain.observe(outcome, taken[-1].id)
    again = ChainState.restore(snapshot)
    for step in range(5, 12):
        outcome = run_chain(big_logits(step, size=500), params, context(), again)
        assert draw(outcome, again) == taken[step]
        again.observe(outcome, taken[step].id)
    assert again.snapshot() == chain.snapshot()


def test_seeds_give_pythons_documented_sequence() -> None:
    chain = ChainState(42)
    assert [chain.uniform() for _ in range(2)] == [0.6394267984578837, 0.025010755222666936]


def test_mirostat_moves_mu_by_its_error() -> None:
    params = off({"mirostat_tau": 2.0, "mirostat_eta": 0.5})
    chain = state()
    outcome = run_chain(array([0, 0, 0, 0]), params, context(), chain)
    assert outcome.stages[-1].cut.threshold == 4.0  # 2τ
    chain.observe(outcome, 1)  # 2 bits: no error
    assert chain.snapshot().mu == 4.0
    outcome = run_chain(array([math.log(7), 0]), params, context(), chain)
    chain.observe(outcome, 1)  # 3 bits
    assert chain.snapshot().mu == pytest.approx(4.0 - 0.5 * (3 - 2))
    outcome = run_chain(array([0, -50]), params, context(), chain)
    before = chain.snapshot().mu
    chain.observe(outcome, 1)  # forced, although cut
    assert chain.snapshot().mu == before
    chain.observe(run_chain(array([0, 1]), OFF, context(), chain), 0)
    assert chain.snapshot().mu is None  # off: it starts anew when it is next turned on


def test_every_order_runs_every_stage_that_is_on() -> None:
    values: dict[str, Any] = {
        "top_k": 9,
        "top_p": 0.9,
        "min_p": 0.01,
        "typical_p": 0.9,
        "top_n_sigma": 3.0,
        "xtc_probability": 0.1,
        "mirostat_tau": 9.0,
        "temperature": 0.8,
    }
    for order in itertools.islice(itertools.permutations(TRANSFORMERS_ORDER), 0, 40320, 977):
        params = SamplingParams(**values, order=order)
        outcome = run_chain(big_logits(0, size=300), params, context(), state())
        assert tuple(stage.name for stage in outcome.stages) == order


@given(st.floats(allow_nan=False))
def test_a_bound_is_rounded_up_to_a_float32(value: float) -> None:
    found = float(_round_up(value))
    largest = float(np.finfo(np.float32).max)
    assert math.isfinite(found) and np.float32(found) == found
    assert found >= min(value, largest)
    below = float(np.nextafter(np.float32(found), np.float32(-largest)))
    assert found in (largest, -largest) or below < value
