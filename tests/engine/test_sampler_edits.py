"""Each logit edit against transformers where it has it, else against llama.cpp's in NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings

from chatapp.chat.sampling import SamplingParams
from chatapp.engine.sampler.alive import Array
from chatapp.engine.sampler.chain import BadLogits, NothingLeft, run_chain
from tests.engine import numpy_oracle
from tests.engine.sampler_cases import array, context, logits, off, state

few = settings(max_examples=40, deadline=None)
histories = st.lists(st.integers(0, 7), max_size=40)
rows = logits(least=8, most=8)


def edited(
    row: Sequence[float],
    params: SamplingParams,
    ids: Sequence[int] = (),
    *,
    prompt_length: int = 0,
    end_ids: Sequence[int] = (),
    breakers: frozenset[int] = frozenset(),
) -> Array:
    """The logits after the edits, or all -inf where they leave nothing."""
    given_context = context(ids, prompt_length=prompt_length, end_ids=end_ids, breakers=breakers)
    try:
        return run_chain(array(row), params, given_context, state()).edited.logits
    except NothingLeft:
        return np.full(len(row), -math.inf, dtype=np.float32)


@few
@given(
    row=rows, ids=st.lists(st.integers(0, 9), min_size=1, max_size=20), penalty=st.floats(0.1, 5)
)
def test_repetition_is_transformers(row: list[float], ids: list[int], penalty: float) -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    ours = edited(row, off({"repetition_penalty": penalty}), ids)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([ids]), torch.tensor([row]))[0]
    np.testing.assert_allclose(
        ours, theirs.numpy(), rtol=1e-6
    )  # ids 8 and 9 are beyond the vocabulary


@few
@given(
    row=rows,
    ids=histories,
    repeat=st.floats(0.5, 2),
    presence=st.floats(-3, 3),
    frequency=st.floats(-3, 3),
    window=st.integers(0, 12),
)
def test_penalties_are_llama_cpps(
    row: list[float], ids: list[int], repeat: float, presence: float, frequency: float, window: int
) -> None:
    params = off(
        {
            "repetition_penalty": repeat,
            "presence_penalty": presence,
            "frequency_penalty": frequency,
            "penalty_window": window,
        }
    )
    seen = ids[-window:] if window else ids
    expected = numpy_oracle.penalties(np.array(row), seen, repeat, presence, frequency)
    np.testing.assert_allclose(edited(row, params, ids), expected, rtol=1e-5, atol=1e-4)


@few
@given(
    ids=st.one_of(histories, st.lists(st.integers(0, 2), max_size=40)),
    allowed=st.integers(0, 4),
    base=st.sampled_from([1.0, 1.75, 8.0]),
    breakers=st.frozensets(st.integers(0, 7), max_size=2),
    window=st.sampled_from([0, 5, 20]),
)
@example(ids=[1] * 40, allowed=2, base=8.0, breakers=frozenset(), window=0)
@example(ids=[0, 1, 2, 2, 1, 2, 3, 0, 1, 2], allowed=1, base=2.0, breakers=frozenset(), window=0)
@example(ids=[5, 1, 2, 3, 5, 1, 2], allowed=1, base=2.0, breakers=frozenset({5}), window=0)
def test_dry_is_llama_cpps(
    ids: list[int], allowed: int, base: float, breakers: frozenset[int], window: int
) -> None:
    params = off(
        {
            "dry_multiplier": 0.8,
            "dry_base": base,
            "dry_allowed_length": allowed,
            "penalty_window": window,
        }
    )
    seen = ids[-window:] if window else ids
    expected = np.zeros(8)
    for id_, penalty in numpy_oracle.dry(seen, 0.8, base, allowed, breakers).items():
        expected[id_] -= min(penalty, 3.5e38)
    ours = edited([0.0] * 8, params, ids, breakers=breakers)
    np.testing.assert_allclose(ours, expected.astype(np.float32), rtol=1e-5)


@few
@given(row=rows, ids=st.lists(st.integers(0, 3), min_size=1, max_size=30), size=st.integers(1, 5))
@example(row=[0.0] * 8, ids=[1] * 30, size=4)
def test_no_repeat_ngram_is_transformers(row: list[float], ids: list[int], size: int) -> None:
    from transformers import NoRepeatNGramLogitsProcessor

    ours = edited(row, off({"no_repeat_ngram": size}), ids)
    theirs = NoRepeatNGramLogitsProcessor(size)(torch.tensor([ids]), torch.tensor([row]))[0]
    assert np.array_equal(ours, theirs.numpy())


@few
@given(row=rows, reply=st.integers(0, 6), least=st.integers(0, 6))
def test_min_tokens_is_transformers(row: list[float], reply: int, least: int) -> None:
    from transformers import MinNewTokensLengthLogitsProcessor

    ids = [0] * (3 + reply)
    params = off({"min_tokens": least})
    ours = edited(row, params, ids, prompt_length=3, end_ids=[2, 5])
    processor = MinNewTokensLengthLogitsProcessor(3, least, eos_token_id=[2, 5])
    theirs = processor(torch.tensor([ids]), torch.tensor([row]))[0]
    assert np.array_equal(ours, theirs.numpy())


def test_biases_add_up_and_a_ban_beats_them() -> None:
    params = off({"logit_bias": ((0, 2.0), (0, 1.5), (1, 9.0), (99, 1.0)), "banned": (1,)})
    assert edited([1.0, 1.0, 1.0], params).tolist() == [4.5, -math.inf, 1.0]


def test_what_is_not_in_the_vocabulary_is_passed_over() -> None:
    params = off({"logit_bias": ((7, 1.0),), "banned": (9, 8), "no_repeat_ngram": 1})
    outcome = run_chain(array([1, 2]), params, context([5, 6]), state())
    assert outcome.edits == ()
    assert outcome.edited is outcome.model


def test_the_end_is_forbidden_and_forced() -> None:
    row = [1.0, 5.0, 3.0]
    forbid = off({"end": "forbid"})
    assert edited(row, forbid, end_ids=[1, 9]).tolist() == [1, -math.inf, 3]
    force = off({"end": "force"})
    assert edited(row, force, end_ids=[0, 2, 9]).tolist() == [1, -math.inf, 3]


def test_a_forced_end_overrules_bans_penalties_and_a_minimum_length() -> None:
    params = off({"end": "force", "banned": (2,), "min_tokens": 50, "repetition_penalty": 3.0})
    assert edited([1.0, 5.0, 3.0], params, [2, 2], end_ids=[2]).tolist() == [
        -math.inf,
        -math.inf,
        3.0,
    ]


@pytest.mark.parametrize(
    ("params", "end_ids"),
    [
        (off({"banned": (0, 1)}), []),
        (off({"logit_bias": ((0, -math.inf), (1, -math.inf))}), []),
        (off({"end": "force"}), []),
        (off({"end": "force"}), [7]),
        (off({"end": "forbid"}), [0, 1]),
        (off({"min_tokens": 9}), [0, 1]),
    ],
)
def test_leaving_nothing_is_said_in_one_line(params: SamplingParams, end_ids: list[int]) -> None:
    with pytest.raises(NothingLeft) as raised:
        run_chain(array([1, 2]), params, context(end_ids=end_ids), state())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "row", [[math.nan, 1], [math.inf, 1], [-math.inf, -math.inf], [math.nan, math.inf]]
)
def test_bad_logits_are_said_in_one_line(row: list[float]) -> None:
    with pytest.raises(BadLogits) as raised:
        run_chain(array(row), SamplingParams(), context(), state())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("bias", [math.inf, 1e39])
def test_a_bias_to_infinity_is_refused(bias: float) -> None:
    params = off({"logit_bias": ((0, bias),)})
    with pytest.raises(BadLogits, match="bias or penalty"):
        run_chain(array([1, 2]), params, context(), state())


def test_the_models_logits_are_never_changed() -> None:
    row = array([1, 2, 3])
    params = off({"banned": (2,), "repetition_penalty": 2.0})
    outcome = run_chain(row, params, context([0, 1]), state())
    assert row.tolist() == [1, 2, 3]
    assert outcome.model.logits.tolist() == [1, 2, 3]
