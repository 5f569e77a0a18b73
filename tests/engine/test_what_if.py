"""What-if: every token as an independent chain in NumPy tells it, from the formulas alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from chatapp.chat.errors import EngineError
from chatapp.chat.inspection import WhatIf, WhatIfToken
from chatapp.chat.sampling import LLAMA_CPP_ORDER, SamplingParams
from chatapp.engine.look.history import LogitRow
from chatapp.engine.look.what_if import ReplyUnderTest
from chatapp.engine.sampler.alive import Array
from tests.engine.numpy_oracle import Filters, Logits, penalties, softmax
from tests.engine.sampler_cases import big_logits, off

SETTINGS: dict[str, SamplingParams] = {
    "default": SamplingParams(),
    "off": off({}),
    "greedy": off({"temperature": 0}),
    "cold": off({"temperature": 0.05}),
    "hot nucleus": off({"temperature": 2.0, "top_p": 0.97}),
    "nucleus": off({"top_p": 0.6}),
    "top-k": off({"top_k": 7, "temperature": 1.3}),
    "more than a head": off({"top_k": 2000, "temperature": 1.3}),
    "min-p": off({"min_p": 0.02, "temperature": 0.8}),
    "typical": off({"typical_p": 0.7}),
    "top-nσ": off({"top_n_sigma": 1.2}),
    "penalties": off(
        {"repetition_penalty": 1.4, "presence_penalty": 0.5, "frequency_penalty": -0.3, "top_k": 9}
    ),
    "bans": off({"logit_bias": ((3, 4.0), (8, -2.5), (3, 1.0)), "banned": (1, 2), "top_p": 0.9}),
    "dynamic": off({"dynatemp_range": 0.6, "dynatemp_exponent": 1.4, "top_p": 0.9}),
    "llama.cpp": SamplingParams(order=LLAMA_CPP_ORDER, top_n_sigma=1.5, typical_p=0.97),
    "mirostat": off({"mirostat_tau": 3.0, "mirostat_eta": 0.4, "temperature": 1.1}),
    "xtc": off({"xtc_probability": 1.0, "xtc_threshold": 0.05, "temperature": 1.2}),
}


@dataclass(frozen=True)
class Told:
    """A token by the oracle."""

    tempered: float
    final: float
    choices: int
    best: int
    sure: bool
    """Whether no decision was nearer than rounding."""
    removed: bool


def by_oracle(
    rows: Sequence[Array], prompt: Sequence[int], reply: Sequence[int], p: SamplingParams
) -> list[Told]:
    told, mu = [], 2 * p.mirostat_tau
    for index, (row, id_) in enumerate(zip(rows, reply, strict=True)):
        z: Logits = row.astype(np.float64)
        for token, bias in p.logit_bias:
            z[token] += bias
        z[list(p.banned)] = -np.inf
        seen = [*prompt, *reply[:index]]
        z = penalties(z, seen, p.repetition_penalty, p.presence_penalty, p.frequency_penalty)
        oracle = Filters(coins=[0.0], mu=mu)
        stages = oracle.chain(z, p)
        final = softmax(stages[-1][1] if stages else z)
        # Over the whole vocabulary, whatever place temperature has in the order.
        alone = replace(off({}), temperature=p.temperature, dynatemp_range=p.dynatemp_range)
        alone = replace(alone, dynatemp_exponent=p.dynatemp_exponent)
        tempered = Filters(coins=[], mu=0).chain(z, alone)
        warm = softmax(tempered[-1][1] if tempered else z)
        told.append(
            Told(
                tempered=float(warm[id_]),
                final=float(final[id_]),
                choices=int((final > 0).sum()),
                best=int(final.argmax()),
                sure=oracle.margin > 1e-5,
                removed=bool(final[id_] == 0 and row[id_] > -np.inf),
            )
        )
        if p.mirostat_tau and final[id_] > 0:
            mu -= p.mirostat_eta * (-math.log2(final[id_]) - p.mirostat_tau)
    return told


def made_reply(seed: int, tokens: int, size: int) -> tuple[list[Array], list[int]]:
    """Rows of a large vocabulary, and a reply of probable and improbable tokens, with repeats."""
    generator = np.random.default_rng(seed)
    exact = [big_logits(seed * 1000 + index, size, grid=4096) for index in range(tokens)]
    reply: list[int] = []
    for index, row in enumerate(exact):
        if index % 5 == 4:
            reply.append(reply[index // 2])
        else:
            flat = softmax(row.astype(np.float64) / (1 + index % 3))
            reply.append(int(generator.choice(size, p=flat)))
    return exact, reply


def what_if(
    exact: Sequence[Array], prompt: Sequence[int], reply: Sequence[int], params: SamplingParams
) -> WhatIf:
    rows = [LogitRow.of(row) for row in exact]
    return ReplyUnderTest(rows, prompt, reply, end_ids=(0, 3)).under(params)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("size", [60, 6000])
def test_every_token_is_told_as_the_formulas_say(name: str, size: int) -> None:
    exact, reply = made_reply(1, 30, size)
    prompt = [3, *reply[5:9], 4, 8, 8, reply[0], size - 1]
    params = SETTINGS[name]
    kept = [LogitRow.of(row).logits() for row in exact]
    told = by_oracle(kept, prompt, reply, params)
    found = what_if(exact, prompt, reply, params)
    sure = [pair for pair in zip(found.tokens, told, strict=True) if pair[1].sure]
    assert len(sure) >= 15
    for one, other in sure:
        assert one.tempered_prob == pytest.approx(other.tempered, abs=1e-5)
        assert one.prob == pytest.approx(other.final, abs=1e-5)
        assert (one.choices, one.best_id) == (other.choices, other.best)
        assert (one.removed_by is not None) == other.removed
    for one, row in zip(found.tokens, kept, strict=True):
        assert one.model_prob == pytest.approx(softmax(row.astype(float))[one.id], abs=1e-6)


def test_a_second_look_under_other_settings_is_not_the_first_again() -> None:
    exact, reply = made_reply(2, 12, 6000)
    rows = [LogitRow.of(row) for row in exact]
    under = ReplyUnderTest(rows, [7], reply, end_ids=(0, 3))
    cold = under.under(off({"temperature": 0.3}))
    hot = under.under(off({"temperature": 3.0}))
    assert cold == under.under(off({"temperature": 0.3}))
    assert cold.total_logprob != hot.total_logprob
    assert [one.model_logprob for one in cold.tokens] == [one.model_logprob for one in hot.tokens]


def test_xtc_is_told_as_its_expectation() -> None:
    exact, reply = made_reply(4, 30, 2000)
    params = off({"xtc_threshold": 0.05, "top_k": 40, "temperature": 1.2})
    kept = [LogitRow.of(row).logits() for row in exact]
    spared = by_oracle(kept, [1], reply, params)
    dropped = by_oracle(kept, [1], reply, replace(params, xtc_probability=1.0))
    told = what_if(exact, [1], reply, replace(params, xtc_probability=0.3))
    assert any(
        one.removed and not other.removed for one, other in zip(dropped, spared, strict=True)
    )
    for one, never, always in zip(told.tokens, spared, dropped, strict=True):
        assert one.prob == pytest.approx(0.7 * never.final + 0.3 * always.final, abs=1e-6)
        assert (one.removed_by is None) == (one.prob > 0)
        assert (one.choices, one.best_id) == (never.choices, never.best)


def test_a_forced_end_leaves_only_the_ends() -> None:
    exact, reply = made_reply(3, 8, 300)
    reply[-1] = 3
    params = off({"end": "force", "banned": (3,), "repetition_penalty": 1.5})
    told = what_if(exact, [1], reply, params)
    assert told.tokens[-1].removed_by is None
    assert told.tokens[-1].prob == pytest.approx(
        softmax(exact[-1].astype(float)[[0, 3]])[1], abs=1e-6
    )
    assert told.tokens[0].removed_by == "end"


def test_settings_that_leave_nothing_are_refused_with_the_place() -> None:
    words = "at token 1 bans, end rules and the grammar leave no token"
    with pytest.raises(EngineError, match=words):
        what_if([np.zeros(4, dtype=np.float32)], [1], [1], off({"banned": (0, 1, 2, 3)}))


def test_there_is_a_row_for_each_token() -> None:
    with pytest.raises(ValueError, match="1 rows of logits for 2 tokens"):
        what_if([np.zeros(4, dtype=np.float32)], [1], [1, 2], SamplingParams())


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
