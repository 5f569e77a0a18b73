"""What-if: all tokens at once must say what the chain says of each, and what the model would."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from chatapp.chat.errors import EngineError
from chatapp.chat.sampling import LLAMA_CPP_ORDER, TRANSFORMERS_ORDER, SamplingParams
from chatapp.chat.whatif import WhatIf, WhatIfToken
from chatapp.engine.look.history import HEAD_LIMIT, LogitRow, recompute
from chatapp.engine.look.whatif import PART_ROWS, ReplyUnderTest, what_if
from chatapp.engine.sampler.chain import ChainState, NothingLeft, StepContext, run_chain
from chatapp.engine.sampler.lookup import Lookup
from tests.engine.sampler_cases import big_logits, logits, off

if TYPE_CHECKING:
    from chatapp.engine.runtimes.loader import LoadedModel

BREAKERS = frozenset({4})

SETTINGS: dict[str, SamplingParams] = {
    "default": SamplingParams(),
    "off": off({}),
    "greedy": off({"temperature": 0}),
    "cold": off({"temperature": 0.05}),
    "hot nucleus": off({"temperature": 2.0, "top_p": 0.97}),
    "nucleus": off({"top_p": 0.6}),
    "top-k": off({"top_k": 7, "temperature": 1.3}),
    "min-p": off({"min_p": 0.02, "temperature": 0.8}),
    "typical": off({"typical_p": 0.7}),
    "hot typical": off({"typical_p": 0.95, "temperature": 1.7}),
    "top-nσ": off({"top_n_sigma": 1.2}),
    "penalties": off(
        {"repetition_penalty": 1.4, "presence_penalty": 0.5, "frequency_penalty": -0.3, "top_k": 9}
    ),
    "window": off({"repetition_penalty": 0.8, "frequency_penalty": 0.4, "penalty_window": 5}),
    "bias": off({"logit_bias": ((3, 4.0), (8, -2.5), (3, 1.0)), "banned": (1, 2), "top_p": 0.9}),
    "dry": off({"dry_multiplier": 0.8, "dry_allowed_length": 1, "min_p": 0.05}),
    "n-gram": off({"no_repeat_ngram": 2}),
    "minimum": off({"min_tokens": 6, "top_k": 12}),
    "no end": off({"end": "forbid"}),
    "dynamic": off({"dynatemp_range": 0.6, "dynatemp_exponent": 1.4, "top_p": 0.9}),
    "dynamic to 0": off({"temperature": 0.5, "dynatemp_range": 3.0}),
    "llama.cpp": SamplingParams(order=LLAMA_CPP_ORDER, top_n_sigma=1.5, typical_p=0.97),
    "xtc": off({"xtc_probability": 1.0, "xtc_threshold": 0.08, "temperature": 1.2}),
    "mirostat": SamplingParams(mirostat_tau=2.0),
    "mirostat alone": off({"mirostat_tau": 3.0, "mirostat_eta": 0.4, "temperature": 1.1}),
    "mirostat, llama.cpp": SamplingParams(
        order=LLAMA_CPP_ORDER, mirostat_tau=3.0, xtc_probability=1.0, dynatemp_range=0.4
    ),
    "all": SamplingParams(
        temperature=0.9,
        top_k=20,
        top_p=0.92,
        min_p=0.01,
        typical_p=0.95,
        top_n_sigma=2.5,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        no_repeat_ngram=3,
        banned=(5,),
    ),
}


def by_chain(
    exact: Sequence[torch.Tensor],
    prompt: Sequence[int],
    reply: Sequence[int],
    params: SamplingParams,
    end_ids: Sequence[int],
) -> WhatIf:
    """The chain, row by row; the plain way to say what `what_if` must say."""
    state = ChainState(0)
    tokens = []
    for index, id_ in enumerate(reply):
        context = StepContext(
            ids=torch.tensor([*prompt, *reply[:index]], dtype=torch.int64),
            prompt_length=len(prompt),
            end_ids=torch.tensor(list(end_ids)),
            dry_breakers=BREAKERS,
        )
        outcome = run_chain(exact[index], params, context, state)
        state.observe(outcome, id_)
        ids = torch.tensor([id_])
        removal = Lookup(outcome, [id_]).removals[0]
        tokens.append(
            WhatIfToken(
                id=id_,
                model_logprob=float(outcome.model.at(ids)) - outcome.model.log_mass,
                tempered_logprob=float(outcome.tempered.at(ids)) - outcome.tempered.log_mass,
                logprob=float(outcome.final.at(ids)) - outcome.final.log_mass,
                removed_by=removal.stage if removal else None,
                choices=outcome.final.count,
                best_id=outcome.final.first(),
            )
        )
    return WhatIf(tuple(tokens))


def assert_same(found: WhatIf, wanted: WhatIf) -> None:
    for index, (one, other) in enumerate(zip(found.tokens, wanted.tokens, strict=True)):
        where = f"token {index}: {one} {other}"
        told = (one.id, one.removed_by, one.choices, one.best_id)
        assert told == (other.id, other.removed_by, other.choices, other.best_id), where
        assert one.model_prob == pytest.approx(other.model_prob, abs=1e-6), where
        assert one.tempered_prob == pytest.approx(other.tempered_prob, abs=1e-5), where
        assert one.prob == pytest.approx(other.prob, abs=1e-5), where
        assert one.impossible == other.impossible, where


def check(
    exact: Sequence[torch.Tensor],
    prompt: Sequence[int],
    reply: Sequence[int],
    params: SamplingParams,
    end_ids: Sequence[int] = (0, 3),
) -> None:
    """Both ways must agree on the rows as they are kept, and refuse the same."""
    rows = [LogitRow.of(row) for row in exact]
    kept = [row.logits() for row in rows]
    try:
        wanted = by_chain(kept, prompt, reply, params, end_ids)
    except EngineError as error:
        with pytest.raises(type(error)):
            what_if(rows, prompt, reply, params, end_ids, lambda: BREAKERS)
        return
    assert_same(what_if(rows, prompt, reply, params, end_ids, lambda: BREAKERS), wanted)


def made_reply(seed: int, tokens: int, size: int) -> tuple[list[torch.Tensor], list[int]]:
    """Rows of a large vocabulary, and a reply of probable and improbable tokens, with repeats."""
    generator = torch.Generator().manual_seed(seed)
    exact = [big_logits(seed * 1000 + index, size, grid=4096) for index in range(tokens)]
    reply: list[int] = []
    for index, row in enumerate(exact):
        if index % 5 == 4:
            reply.append(reply[index // 2])
        else:
            flat = (row / (1 + index % 3)).softmax(0)
            reply.append(int(torch.multinomial(flat, 1, generator=generator)))
    return exact, reply


# Against the chain


@pytest.mark.parametrize("name", SETTINGS)
def test_every_token_is_told_as_the_chain_tells_it(name: str) -> None:
    exact, reply = made_reply(1, 30, 6000)
    prompt = [3, *reply[5:9], 4, 8, 8, reply[0], 5999]
    check(exact, prompt, reply, SETTINGS[name])


def stage_values() -> st.SearchStrategy[dict[str, Any]]:
    some: dict[str, st.SearchStrategy[Any]] = {
        "temperature": st.sampled_from([0.0, 0.3, 0.7, 1.0, 1.9, 5.0]),
        "top_k": st.sampled_from([0, 1, 2, 5, 30]),
        "top_p": st.sampled_from([0.0, 0.3, 0.5, 0.77, 0.95, 1.0]),
        "min_p": st.sampled_from([0.0, 0.01, 0.2, 1.0]),
        "typical_p": st.sampled_from([0.0, 0.2, 0.9, 1.0]),
        "top_n_sigma": st.sampled_from([0.0, 0.5, 1.0, 2.0]),
        "xtc_probability": st.sampled_from([0.0, 1.0]),
        "xtc_threshold": st.sampled_from([0.0, 0.05, 0.1, 0.5]),
        "mirostat_tau": st.sampled_from([0.0, 0.3, 1.0, 2.5]),
        "mirostat_eta": st.sampled_from([0.1, 0.5, 1.0]),
        "dynatemp_range": st.sampled_from([0.0, 0.5, 2.0]),
        "repetition_penalty": st.sampled_from([1.0, 0.5, 1.3]),
        "presence_penalty": st.sampled_from([0.0, 1.0, -1.5]),
        "frequency_penalty": st.sampled_from([0.0, 0.75]),
        "penalty_window": st.integers(0, 4),
        "dry_multiplier": st.sampled_from([0.0, 1.5]),
        "dry_allowed_length": st.integers(0, 2),
        "dry_base": st.sampled_from([1.0, 1.75, 4.0]),
        "no_repeat_ngram": st.integers(0, 3),
        "min_tokens": st.integers(0, 3),
        "end": st.sampled_from(["allow", "allow", "allow", "forbid", "force"]),
        "banned": st.lists(st.integers(0, 20), max_size=3).map(tuple),
        "logit_bias": st.lists(
            st.tuples(st.integers(0, 20), st.sampled_from([-3.0, 0.5, 9.0])), max_size=2
        ).map(tuple),
        "order": st.permutations(TRANSFORMERS_ORDER).map(tuple),
    }
    return st.fixed_dictionaries({}, optional=some)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), values=stage_values())
def test_any_settings_on_any_logits(data: st.DataObject, values: dict[str, Any]) -> None:
    """Small vocabularies, full of ties and -inf, where each token stands on some edge."""
    size = data.draw(st.integers(2, 24))
    count = data.draw(st.integers(1, 5))
    row = logits(least=size, most=size).map(torch.tensor)
    exact = data.draw(st.lists(row, min_size=count, max_size=count))
    ids = st.integers(0, size - 1)
    reply = data.draw(st.lists(ids, min_size=count, max_size=count))
    prompt = data.draw(st.lists(ids, max_size=6))
    check(exact, prompt, reply, off(values))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 500), values=stage_values())
def test_any_settings_on_large_vocabularies(seed: int, values: dict[str, Any]) -> None:
    exact, reply = made_reply(seed, 6, 5000)
    check(exact, reply[2:5], reply, off(values))


@pytest.mark.parametrize("flat", [torch.zeros(4000), torch.linspace(0, 0.02, 4000)])
def test_rows_flatter_than_a_head(flat: torch.Tensor) -> None:
    assert flat.numel() > HEAD_LIMIT
    for name in ("default", "greedy", "nucleus", "typical", "penalties", "top-nσ", "xtc"):
        check([flat, flat], [7], [3999, 5], SETTINGS[name])


def test_a_reply_of_several_parts_is_one_reply() -> None:
    count = 2 * PART_ROWS + 3
    exact, reply = made_reply(2, count, 120)
    params = off({"repetition_penalty": 1.3, "penalty_window": 40, "top_p": 0.9, "min_tokens": 200})
    check(exact, reply[:3], reply, params)
    repeats = {"dry_multiplier": 0.7, "penalty_window": 30, "no_repeat_ngram": 4, "top_p": 0.9}
    check(exact, reply[:3], reply, off(repeats))
    check(exact, reply[:3], reply, off({"mirostat_tau": 2.0, "dry_multiplier": 0.7}))


def test_an_empty_reply_has_nothing_to_tell() -> None:
    assert what_if([], [1, 2], [], SamplingParams(), [0]) == WhatIf(())


def test_rows_and_tokens_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="1 rows of logits for 2 tokens"):
        what_if([LogitRow.of(torch.zeros(4))], [1], [1, 2], SamplingParams(), [0])


def test_nothing_left_is_said() -> None:
    rows = [LogitRow.of(torch.zeros(4))]
    with pytest.raises(NothingLeft, match="bans and end rules leave no token"):
        what_if(rows, [1], [1], off({"banned": (0, 1, 2, 3)}), [0])


def test_a_forced_end_leaves_only_the_ends() -> None:
    exact, reply = made_reply(3, 8, 300)
    reply[-1] = 3
    params = off({"end": "force", "banned": (3,), "repetition_penalty": 1.5})
    check(exact, [1], reply, params)
    told = what_if([LogitRow.of(row) for row in exact], [1], reply, params, (0, 3))
    assert told.tokens[-1].removed_by is None
    assert told.tokens[0].removed_by == "end"


# Random stages


def test_xtc_is_told_as_its_expectation() -> None:
    exact, reply = made_reply(4, 30, 2000)
    rows = [LogitRow.of(row) for row in exact]
    params = off({"xtc_threshold": 0.05, "top_k": 40, "temperature": 1.2})
    kept = [row.logits() for row in rows]
    spared = by_chain(kept, [1], reply, params, [0])
    dropped = by_chain(kept, [1], reply, replace(params, xtc_probability=1.0), [0])
    told = what_if(rows, [1], reply, replace(params, xtc_probability=0.3), [0])
    assert any(one.removed_by == "xtc" for one in dropped.tokens)
    for one, never, always in zip(told.tokens, spared.tokens, dropped.tokens, strict=True):
        assert one.prob == pytest.approx(0.7 * never.prob + 0.3 * always.prob, abs=1e-6)
        assert (one.removed_by is None) == (one.prob > 0)
        assert (one.choices, one.best_id) == (never.choices, never.best_id)


def test_mirostat_follows_the_reply_from_its_first_token() -> None:
    exact, reply = made_reply(5, 25, 2000)
    params = off({"mirostat_tau": 3.0, "mirostat_eta": 0.4, "temperature": 1.1})
    check(exact, [1], reply, params)
    rows = [LogitRow.of(row) for row in exact]
    told = what_if(rows, [1], reply, params, [0])
    assert {"mirostat"} <= {one.removed_by for one in told.tokens}


def test_mirostat_before_other_stages_goes_through_the_chain() -> None:
    exact, reply = made_reply(7, 12, 800)
    order = ("mirostat", *(name for name in LLAMA_CPP_ORDER if name != "mirostat"))
    params = off({"mirostat_tau": 3.0, "top_p": 0.9, "order": order})
    check(exact, [1], reply, params)


def test_mirostat_on_its_edge_is_decided_by_the_chain() -> None:
    """Four equals have 2 bits each, and 2τ is 2: all stand on the edge, whatever η does."""
    row = torch.tensor([1.0, 1.0, 1.0, 1.0, -math.inf])
    for eta in (0.1, 0.3, 1.0):
        params = off({"mirostat_tau": 1.0, "mirostat_eta": eta})
        check([row] * 6, [1], [0, 3, 1, 1, 0, 2], params)


def test_mirostat_with_xtc_is_an_expectation_too() -> None:
    exact, reply = made_reply(6, 10, 500)
    rows = [LogitRow.of(row) for row in exact]
    params = off({"mirostat_tau": 4.0, "xtc_probability": 0.5, "xtc_threshold": 0.05})
    told = what_if(rows, [1], reply, params, [0])
    first = [
        run_chain(
            rows[0].logits(),
            replace(params, xtc_probability=chance),
            StepContext(torch.tensor([1]), 1, torch.tensor([0])),
            ChainState(0),
        ).final.probs(torch.tensor(reply[:1]))
        for chance in (0.0, 1.0)
    ]
    assert told.tokens[0].prob == pytest.approx(float(sum(first)) / 2, abs=1e-6)


# Values


def test_totals() -> None:
    def token(id_: int, logprob: float, best: int) -> WhatIfToken:
        return WhatIfToken(id_, -1.0, -1.0, logprob, None, 3, best)

    fine = WhatIf((token(1, -0.5, 1), token(2, -1.5, 1)))
    assert fine.total_logprob == -2.0
    assert fine.impossible_count == 0
    assert fine.different_count == 1
    cut = WhatIf((*fine.tokens, token(3, -math.inf, 3)))
    assert cut.total_logprob == -math.inf
    assert cut.impossible_count == 1
    assert cut.tokens[-1].prob == 0
    assert WhatIf(()).total_logprob == 0


# On the real model


@pytest.fixture(scope="module")
def real_reply(loaded_model: LoadedModel) -> tuple[list[int], list[int]]:
    """A prompt, and 70 tokens that might be a reply, with some odd ones among them."""
    tokenizer = loaded_model.tokenizer
    prompt = tokenizer.encode_text("Once upon a time there was a lighthouse keeper who")
    text = (
        " lived alone on a small island in the middle of the sea. Every evening he climbed the"
        " stairs, lit the lamp and watched the ships go by. One night, however, the lamp would"
        " not burn. The keeper ran down the stairs, and down the stairs, purple 144 × 12; he"
        ' looked for oil, but there was no oil. "What shall I do?" he cried. "The ships!"'
    )
    return prompt, tokenizer.encode_text(text)[:70]


@pytest.fixture(scope="module")
def real_logits(loaded_model: LoadedModel, real_reply: tuple[list[int], list[int]]) -> torch.Tensor:
    """What running the model gives: (n, V) float32."""
    prompt, reply = real_reply
    with torch.no_grad():
        logits = loaded_model.model(torch.tensor([[*prompt, *reply]])).logits[0].float()
    return logits[len(prompt) - 1 : -1]


@pytest.fixture(scope="module")
def under_test(loaded_model: LoadedModel, real_reply: tuple[list[int], list[int]]) -> Any:
    prompt, reply = real_reply
    rows = recompute(loaded_model, prompt, reply, lambda _: None, lambda: False)
    assert rows is not None
    return ReplyUnderTest(rows, prompt, reply, loaded_model.facts.end_ids, lambda: BREAKERS)


@pytest.mark.model
@pytest.mark.parametrize("name", SETTINGS)
def test_it_equals_running_the_model_with_those_settings(
    loaded_model: LoadedModel,
    real_reply: tuple[list[int], list[int]],
    real_logits: torch.Tensor,
    under_test: ReplyUnderTest,
    name: str,
) -> None:
    prompt, reply = real_reply
    params = SETTINGS[name]
    end_ids = loaded_model.facts.end_ids
    wanted = by_chain(list(real_logits), prompt, reply, params, end_ids)
    found = under_test.under(params)
    for index, (one, other) in enumerate(zip(found.tokens, wanted.tokens, strict=True)):
        where = f"token {index}: {one} {other}"
        assert one.model_prob == pytest.approx(other.model_prob, abs=1e-4), where
        assert one.tempered_prob == pytest.approx(other.tempered_prob, abs=1e-3), where
        assert one.prob == pytest.approx(other.prob, abs=1e-3), where
        assert one.removed_by == other.removed_by, where
        assert one.best_id == other.best_id, where


@pytest.mark.model
def test_the_chain_is_rarely_asked(
    under_test: ReplyUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nearly every row of a real reply is settled without it, or it would take seconds."""
    asked: list[int] = []
    run = ReplyUnderTest._run

    def count(self: ReplyUnderTest, row: int, *rest: Any) -> Any:
        asked.append(row)
        return run(self, row, *rest)

    monkeypatch.setattr(ReplyUnderTest, "_run", count)
    for params in SETTINGS.values():
        under_test.under(params)
    assert len(asked) < 0.02 * len(SETTINGS) * 70


@pytest.mark.model
def test_five_hundred_tokens_are_recoloured_within_150_ms(
    real_reply: tuple[list[int], list[int]], real_logits: torch.Tensor
) -> None:
    """At most 300 ms of one core's time, which two cores share.

    On a machine that is slower, or slowed down by its other work, the softmax of a hundred rows (10
    ms of one core) tells by how much.
    """
    prompt, reply = real_reply
    rows = [LogitRow.of(row) for row in real_logits]
    times = 1 + 500 // len(reply)
    many, ids = (rows * times)[:500], (reply * times)[:500]
    sample = torch.randn(100, 49152)

    def seconds(work: Callable[[], object]) -> float:
        started = time.thread_time()
        work()
        return time.thread_time() - started

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        under_test = ReplyUnderTest(many, prompt, ids, [2])
        names = ("default", "hot nucleus", "typical", "penalties", "bias", "llama.cpp")
        for name in (*names, "dry", "mirostat alone"):
            shares = []
            for _ in range(4):
                before = seconds(lambda: sample.softmax(1))
                taken = seconds(partial(under_test.under, SETTINGS[name]))
                after = seconds(lambda: sample.softmax(1))
                shares.append(taken / max(0.3, 30 * min(before, after)))
            assert min(shares) < 1, name
    finally:
        torch.set_num_threads(threads)
