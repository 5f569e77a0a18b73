"""Each filter against transformers where it has it, else against the papers in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings

from chatapp.engine.sampler import filters
from chatapp.engine.sampler.alive import Alive, Array, crossing
from tests.engine.numpy_oracle import Filters, Logits
from tests.engine.sampler_cases import FORMS, array, big_logits, held, logits, survivors

few = settings(max_examples=40, deadline=None)
form = pytest.mark.parametrize("form", FORMS)
NEAR = 1e-5
"""Decisions closer than this may fall either way in float32."""


def transformers_survivors(processor: Callable[..., torch.Tensor], row: Array) -> set[int]:
    left = processor(torch.zeros((1, 1), dtype=torch.int64), torch.tensor(row[None]))[0]
    return set((left > -math.inf).nonzero().squeeze(1).tolist())


def oracle_survivors(left: Logits) -> set[int]:
    return set(np.flatnonzero(left > -np.inf).tolist())


def wide(row: list[float]) -> Logits:
    return np.array(row, dtype=np.float64)


@form
@few
@given(row=logits(), k=st.integers(1, 50))
@example(row=[1.0, 1.0, 1.0, 0.0], k=2)
def test_top_k_is_transformers_with_its_ties(form: str, row: list[float], k: int) -> None:
    from transformers import TopKLogitsWarper

    with held(form):
        ours = survivors(filters.top_k(Alive(array(row)), k).alive)
    assert ours == transformers_survivors(TopKLogitsWarper(k), array(row))


@form
@few
@given(row=logits(), p=st.floats(0, 0.9999))
@example(row=[0.0, 0.0, 0.0, 0.0], p=0.4)
@example(row=[3.0, 0.0, 0.0, 0.0, 0.0], p=0.9)
@example(row=[2.0, 2.0, 2.0], p=0.0)
def test_top_p_is_transformers_with_its_ties(form: str, row: list[float], p: float) -> None:
    from transformers import TopPLogitsWarper

    oracle = Filters()
    expected = oracle_survivors(oracle.top_p(wide(row), p))
    assume(oracle.margin > NEAR)
    with held(form):
        ours = survivors(filters.top_p(Alive(array(row)), p).alive)
    assert ours == expected
    # Which of several equals its sort puts last is not promised, and differs with the length.
    theirs = transformers_survivors(TopPLogitsWarper(p), array(row))
    assert sorted(row[i] for i in ours) == sorted(row[i] for i in theirs)
    if len(row) <= 16:
        assert ours == theirs


def test_a_mass_that_is_reached_exactly_needs_no_further_token() -> None:
    assert filters.top_p(Alive(np.zeros(10, dtype=np.float32)), 0.9).alive.count == 9


@form
@few
@given(row=logits(), share=st.floats(0.001, 1))
@example(row=[1.0, 1.0, 0.5], share=1.0)
def test_min_p_is_transformers(form: str, row: list[float], share: float) -> None:
    from transformers import MinPLogitsWarper

    oracle = Filters()
    expected = oracle_survivors(oracle.min_p(wide(row), share))
    assume(oracle.margin > NEAR)
    with held(form):
        ours = survivors(filters.min_p(Alive(array(row)), share).alive)
    assert ours == expected
    if share < 1:  # transformers' own rounding may drop one of two equals at 1
        assert ours == transformers_survivors(MinPLogitsWarper(share), array(row))


@form
@few
@given(row=logits(), mass=st.floats(0.01, 0.99))
def test_typical_is_transformers(form: str, row: list[float], mass: float) -> None:
    from transformers import TypicalLogitsWarper

    oracle = Filters()
    expected = oracle_survivors(oracle.typical(wide(row), mass))
    assume(oracle.margin > NEAR)
    with held(form):
        ours = survivors(filters.typical(Alive(array(row)), mass).alive)
    assert ours == expected
    # float32 tells ever fewer of the very unlikely tokens apart; there only the oracle is right.
    if min(value for value in row if value > -math.inf) > max(row) - 12:
        assert ours == transformers_survivors(TypicalLogitsWarper(mass), array(row))


@form
@few
@given(row=logits(), n=st.floats(0.05, 4))
@example(row=[1.0, 1.0, 1.0], n=1.0)
def test_top_n_sigma_is_the_papers(form: str, row: list[float], n: float) -> None:
    oracle = Filters()
    expected = oracle_survivors(oracle.top_n_sigma(wide(row), n))
    assume(oracle.margin > NEAR)
    with held(form):
        assert survivors(filters.top_n_sigma(Alive(array(row)), n).alive) == expected


@form
@few
@given(row=logits(), threshold=st.floats(0, 0.6), coin=st.floats(0, 0.999))
@example(row=[1.0, 1.0, 1.0, -5.0], threshold=0.1, coin=0.0)
@example(row=[0.0, 1.0, 2.0], threshold=0.0, coin=0.5)
def test_xtc_is_llama_cpps(form: str, row: list[float], threshold: float, coin: float) -> None:
    oracle = Filters(coins=[coin])
    expected = oracle_survivors(oracle.xtc(wide(row), 0.5, threshold))
    assume(oracle.margin > NEAR or threshold == 0)
    drawn: list[float] = []

    def uniform() -> float:
        drawn.append(coin)
        return coin

    with held(form):
        cut = filters.xtc(Alive(array(row)), 0.5, threshold, uniform)
        assert survivors(cut.alive) == expected
    assert len(drawn) == oracle.used_coins
    assert cut.drawn == (coin if drawn else None)


@form
@few
@given(row=logits(), mu=st.floats(-2, 30))
def test_mirostat_is_llama_cpps(form: str, row: list[float], mu: float) -> None:
    oracle = Filters(mu=mu)
    expected = oracle_survivors(oracle.mirostat(wide(row)))
    assume(oracle.margin > NEAR)
    with held(form):
        assert survivors(filters.mirostat(Alive(array(row)), mu).alive) == expected


@few
@given(row=logits(), t=st.sampled_from([0.0, 0.3, 1.0, 2.5]), spread=st.floats(0.0, 3.0))
@example(row=[0.0, 0.0, 9.0], t=0.5, spread=3.0)
def test_dynamic_temperature_is_llama_cpps(row: list[float], t: float, spread: float) -> None:
    expected = Filters().temperature(wide(row), t, spread, 1.5)
    cut = filters.temperature(Alive(array(row)), t, spread, 1.5)
    ids = np.arange(len(row))
    living = expected > -np.inf
    assert survivors(cut.alive) == oracle_survivors(expected)
    np.testing.assert_allclose(cut.alive.at(ids)[living], expected[living], rtol=1e-4)


@few
@given(row=logits(), t=st.floats(0.05, 5))
def test_temperature_is_transformers(row: list[float], t: float) -> None:
    from transformers import TemperatureLogitsWarper

    ids = torch.zeros((1, 1), dtype=torch.int64)
    expected = TemperatureLogitsWarper(t)(ids, torch.tensor([row]))[0]
    ours = filters.temperature(Alive(array(row)), t).alive.logits
    assert np.array_equal(ours, expected.numpy())


def test_temperature_0_takes_the_first_of_the_largest() -> None:
    cut = filters.temperature(Alive(array([1, 5, 5, 2])), 0)
    assert survivors(cut.alive) == {1}
    assert cut.alive.probs(np.arange(4)).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("t", [5e-324, 1e-300, 1e-45, 1e-38, 1e-9, 1e-4])
@pytest.mark.parametrize("row", [[3, 3, 1, -math.inf], [-3e38, 3e38, 3e38], [0, 0, -1e-6]])
def test_a_tiny_temperature_never_overflows(t: float, row: list[float]) -> None:
    cut = filters.temperature(Alive(array(row)), t)
    probs = cut.alive.probs(np.arange(len(row)))
    best = [value == max(row) for value in row]
    assert probs.sum().item() == pytest.approx(1, abs=1e-7)
    if t < 1e-9:
        assert probs.tolist() == pytest.approx([0.5 if one else 0 for one in best], abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("grid", [64, 1])
def test_a_large_vocabulary_is_filtered_the_same(seed: int, grid: int) -> None:
    row = big_logits(seed, grid=grid)
    values = row.astype(np.float64)
    for name, setting in [
        ("top_k", 20),
        ("top_k", 5000),
        ("top_p", 0.3),
        ("top_p", 0.9),
        ("top_p", 0.9999),
        ("min_p", 0.05),
        ("min_p", 1e-6),
        ("typical", 0.2),
        ("typical", 0.95),
        ("top_n_sigma", 1.0),
        ("top_n_sigma", 5.0),
    ]:
        oracle = Filters()
        expected = oracle_survivors(getattr(oracle, name)(values, setting))
        ours = survivors(getattr(filters, name)(Alive(row), setting).alive)
        assert len(ours ^ expected) <= (0 if oracle.margin > 1e-9 else 1), (name, setting)


@few
@given(
    row=st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=60),
    seed=st.integers(0, 9),
    share=st.floats(-0.1, 1.1),
)
def test_buckets_find_what_a_full_sort_finds(row: list[float], seed: int, share: float) -> None:
    weights = np.random.default_rng(seed).random(len(row)) + 0.01
    order = np.argsort([-key for key in row], kind="stable")
    sums = np.cumsum(weights[order])
    mass = share * sums[-1]
    assume(min(abs(sums - mass)) > 1e-9)
    index = min(int(np.searchsorted(sums, mass)), len(row) - 1)
    key = row[order[index]]
    above = sum(w for k, w in zip(row, weights, strict=True) if k > key)
    for form in FORMS:
        with held(form):
            found = crossing(np.array(row), weights, mass)
        assert found.key == key
        assert found.above == pytest.approx(above, abs=1e-9)


@form
@few
@given(row=logits(least=2), data=st.data())
def test_what_was_measured_explains_what_was_cut(
    form: str, row: list[float], data: st.DataObject
) -> None:
    """Every token cut missed its threshold by its measure, and every token kept met it."""
    name, setting, missed = data.draw(
        st.sampled_from(
            [
                ("top_k", 3, lambda value, needed: value > needed),
                ("top_p", 0.7, lambda value, needed: value >= needed - 1e-6),
                ("typical", 0.6, lambda value, needed: value >= needed - 1e-6),
                ("min_p", 0.1, lambda value, needed: value < needed * (1 + 1e-9)),
                ("top_n_sigma", 0.8, lambda value, needed: value < needed),
                ("mirostat", 2.5, lambda value, needed: value > needed),
            ]
        )
    )
    with held(form):
        before = Alive(array(row))
        cut = getattr(filters, name)(before, setting)
        kept = survivors(cut.alive)
        gone = sorted(survivors(before) - kept)
        assert kept
        if not gone:
            return
        for value in filters.measure(name, before, np.array(gone)).tolist():
            assert missed(value, cut.threshold)
        if name not in ("typical", "mirostat") or len(kept) > 1:
            for value in filters.measure(name, before, np.array(sorted(kept))).tolist():
                assert not missed(value, cut.threshold + (1e-5 if name == "typical" else 1e-8))
