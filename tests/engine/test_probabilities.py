"""The numbers of the records against transformers' processors, on the real model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from chatapp.chat.generation import GenerateOptions, GenerationEnd, TokenStep
from chatapp.chat.prompt import Prompt, Turn
from chatapp.chat.record import FinishReason, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.engine import LocalEngine

pytestmark = pytest.mark.model

SHOWN = 200
OFF: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}

SETTINGS = {
    "temperature": {**OFF, "temperature": 1.4},
    "top_k": {**OFF, "temperature": 1.0, "top_k": 40},
    "top_p": {**OFF, "temperature": 1.0, "top_p": 0.9},
    "min_p": {**OFF, "temperature": 1.0, "min_p": 0.02},
    "repetition_penalty": {**OFF, "temperature": 1.0, "repetition_penalty": 1.3},
    "together": {
        "temperature": 0.8,
        "top_k": 60,
        "top_p": 0.95,
        "min_p": 0.03,
        "repetition_penalty": 1.1,
    },
}


@pytest.fixture
def engine(reference_engine: LocalEngine) -> LocalEngine:
    return reference_engine


def run(
    engine: LocalEngine, sampling: SamplingParams, *, seed: int = 7, tokens: int
) -> tuple[tuple[int, ...], list[TokenRecord]]:
    options = GenerateOptions(sampling=sampling, seed=seed, max_tokens=tokens, top_logprobs=SHOWN)
    prompt = Prompt("", (Turn("user", "Tell me a long story about a lighthouse."),))
    events = list(engine.generate(prompt, options, Controls(sampling)))
    read = next(event for event in events if hasattr(event, "prompt_ids"))
    return read.prompt_ids, [event.record for event in events if isinstance(event, TokenStep)]


def processors(settings: dict[str, Any]) -> Any:
    """transformers' own processors, in its own order."""
    from transformers import LogitsProcessorList
    from transformers.generation import logits_process as made

    chain: list[Any] = []
    if settings.get("repetition_penalty", 1.0) != 1.0:
        chain.append(made.RepetitionPenaltyLogitsProcessor(settings["repetition_penalty"]))
    chain.append(made.TemperatureLogitsWarper(float(settings["temperature"])))
    if settings.get("top_k"):
        chain.append(made.TopKLogitsWarper(settings["top_k"]))
    if settings.get("top_p", 1.0) < 1.0:
        chain.append(made.TopPLogitsWarper(settings["top_p"]))
    if settings.get("min_p", 0.0) > 0.0:
        chain.append(made.MinPLogitsWarper(settings["min_p"]))
    return LogitsProcessorList(chain)


@pytest.mark.parametrize("steps", [10, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_number_equals_transformers(
    engine: LocalEngine, reference: Any, name: str, steps: int
) -> None:
    settings = SETTINGS[name]
    prompt_ids, records = run(engine, SamplingParams(**settings), tokens=steps)
    assert len(records) == steps
    ids = torch.tensor([[*prompt_ids, *(record.id for record in records)]])
    with torch.no_grad():
        logits = reference(ids).logits[0].float()
    chain = processors(settings)

    end_ids = list(engine.runtime.facts.end_ids)
    for number, record in enumerate(records):
        position = len(prompt_ids) + number - 1
        scores = logits[position : position + 1]
        before = ids[:, : position + 1]
        model = scores.softmax(-1)[0].double()
        final = chain(before, scores.clone()).softmax(-1)[0].double()
        tempered = _until_temperature(chain, before, scores).softmax(-1)[0].double()
        for candidate in record.candidates:
            assert math.exp(candidate.logprob) == pytest.approx(model[candidate.id], abs=1e-4)
            assert candidate.tempered_prob == pytest.approx(tempered[candidate.id], abs=1e-4)
            assert candidate.prob == pytest.approx(final[candidate.id], abs=1e-4)
            assert (candidate.prob == 0) == (candidate.removed_by is not None)
        assert record.prob == pytest.approx(final[record.id], abs=1e-4)
        assert record.prob > 0
        higher = int((model > model[record.id] + 1e-7).sum())
        as_high = int((model > model[record.id] - 1e-7).sum())
        assert higher < record.rank <= max(as_high, higher + 1)
        entropy = -(model * model.clamp_min(1e-45).log2()).sum()
        assert record.entropy_bits == pytest.approx(float(entropy), abs=1e-3)
        assert record.p_end == pytest.approx(float(model[end_ids].sum()), abs=1e-5)
        columns = ("model_prob", "tempered_prob", "prob")
        others = (record.other_model_prob, record.other_tempered_prob, record.other_prob)
        for column, other in zip(columns, others, strict=True):
            shown = math.fsum(getattr(candidate, column) for candidate in record.candidates)
            assert shown + other == pytest.approx(1, abs=1e-6)
        assert record.other_count == len(model) - len(record.candidates)


def _until_temperature(chain: Any, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """The scores after the processors up to and including temperature."""
    scores = scores.clone()
    for processor in chain:
        scores = processor(ids, scores)
        if type(processor).__name__ == "TemperatureLogitsWarper":
            break
    return scores


def test_same_seed_same_ids(engine: LocalEngine) -> None:
    sampling = SamplingParams(temperature=1.2)
    ids = [[record.id for record in run(engine, sampling, seed=s, tokens=12)[1]] for s in (1, 1, 2)]
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]


def test_a_change_in_mid_reply_holds_for_the_very_next_token(engine: LocalEngine) -> None:
    hot, cold = SamplingParams(temperature=2.0, **OFF), SamplingParams(temperature=0)
    controls = Controls(hot)
    options = GenerateOptions(sampling=hot, seed=3, max_tokens=24, top_logprobs=5)
    prompt = Prompt("", (Turn("user", "Tell me a story."),))
    records = []
    spans = []
    for event in engine.generate(prompt, options, controls):
        if isinstance(event, TokenStep):
            records.append(event.record)
            if event.sampling is not None:
                spans.append((event.record.index, event.sampling))
            if len(records) == 10:
                controls.sampling = cold
    assert [record.temperature for record in records] == [2.0] * 10 + [0.0] * 14
    assert any(record.rank > 1 for record in records[:10])
    for record in records[10:]:
        assert record.rank == 1
        assert record.id == record.candidates[0].id
        assert record.prob == 1
        assert record.draw is None
    assert spans == [(0, hot), (10, cold)]


def test_stopping_takes_at_most_one_more_token(engine: LocalEngine) -> None:
    controls = Controls(SamplingParams())
    options = GenerateOptions(seed=3, max_tokens=50, top_logprobs=0)
    prompt = Prompt("", (Turn("user", "Tell me a story."),))
    events = []
    for event in engine.generate(prompt, options, controls):
        events.append(event)
        if len([e for e in events if isinstance(e, TokenStep)]) == 5:
            controls.cancel()
    assert len([event for event in events if isinstance(event, TokenStep)]) == 5
    assert isinstance(events[-1], GenerationEnd)
    assert events[-1].reason is FinishReason.CANCELLED


def test_a_stop_sequence_never_shows(engine: LocalEngine) -> None:
    sampling = SamplingParams(temperature=0)
    prompt = Prompt("", (Turn("user", "Count from one to ten in words, separated by commas."),))

    def text_with(stop: tuple[str, ...]) -> tuple[str, FinishReason]:
        options = GenerateOptions(sampling=sampling, max_tokens=16, stop=stop)
        events = list(engine.generate(prompt, options, Controls(sampling)))
        end = events[-1]
        assert isinstance(end, GenerationEnd)
        return "".join(e.record.text for e in events if isinstance(e, TokenStep)), end.reason

    whole, _ = text_with(())
    middle = whole[len(whole) // 2 : len(whole) // 2 + 7]
    cut, reason = text_with((middle, "never to be found"))
    assert reason is FinishReason.STOP_SEQUENCE
    assert cut == whole[: whole.index(middle)]
    held, _ = text_with((whole + "and what never comes",))
    assert held == whole  # all of it was held back for the stop sequence, and came out at the end


def test_draws_follow_the_final_distribution(engine: LocalEngine) -> None:
    """20,000 draws of one step of the real model: chi-square against the final distribution."""
    from scipy.stats import chisquare

    from chatapp.engine.sampler.chain import ChainState, StepContext, draw, run_chain

    prompt_ids, _ = run(engine, SamplingParams(), tokens=1)
    logits = engine.runtime.sequence().read(prompt_ids).logits[-1]
    context = StepContext(
        ids=np.array(prompt_ids),
        prompt_length=len(prompt_ids),
        end_ids=np.array([2]),
    )
    state = ChainState(11)
    sampling = SamplingParams(temperature=1.5, top_k=12, top_p=1, min_p=0)
    outcome = run_chain(logits, sampling, context, state)
    counts: dict[int, int] = {}
    for _ in range(20_000):
        drawn = draw(outcome, state).id
        counts[drawn] = counts.get(drawn, 0) + 1
    scores = torch.tensor(logits) / 1.5
    kept = scores.topk(12)
    expected = kept.values.double().softmax(-1) * 20_000
    assert set(counts) <= set(kept.indices.tolist())
    observed = [counts.get(token_id, 0) for token_id in kept.indices.tolist()]
    assert chisquare(observed, expected.tolist(), sum_check=False).pvalue > 1e-4
