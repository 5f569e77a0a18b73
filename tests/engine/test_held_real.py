"""A reply of the real model that is held: what could come next, and texts taken by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from chatapp.chat.generation import (
    GenerateOptions,
    GenerationEnd,
    GenerationEvent,
    Paused,
    PromptRead,
    TokenStep,
)
from chatapp.chat.inspection import ReplyStep, WrittenReply
from chatapp.chat.prompt import Prompt, Turn
from chatapp.chat.record import FinishReason, SamplingSpan, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.engine import LocalEngine

pytestmark = pytest.mark.model

PROMPT = Prompt("", (Turn("user", "Write about a garden in spring."),))
HOT = SamplingParams(temperature=1.2, top_k=0, top_p=0.98, min_p=0.0)
SEED = 5


@pytest.fixture
def engine(reference_engine: LocalEngine) -> LocalEngine:
    return reference_engine


class Run:
    """One reply, driven event by event."""

    def __init__(self, engine: LocalEngine, options: GenerateOptions) -> None:
        self.controls = Controls(options.sampling)
        self.options = options
        self.records: list[TokenRecord] = []
        self.spans: list[SamplingSpan] = []
        self.prompt_ids: tuple[int, ...] = ()
        self.end: GenerationEnd | None = None
        self._events: Iterator[GenerationEvent] = iter(
            engine.generate(PROMPT, options, self.controls)
        )

    def until_held(self) -> Paused:
        """Go on to the next hold."""
        for event in self._events:
            self._take(event)
            if isinstance(event, Paused):
                return event
        raise AssertionError("it was not held again")

    def until(self, count: int) -> None:
        """Go on until there are so many tokens."""
        while len(self.records) < count:
            self._take(next(self._events))

    def finish(self) -> GenerationEnd:
        """Go on to the end."""
        for event in self._events:
            self._take(event)
        assert self.end is not None
        return self.end

    def next_step(self, paused: Paused) -> ReplyStep:
        """The step that it is held at, as a question."""
        spans = (*self.spans, SamplingSpan(len(self.records), paused.sampling))
        return ReplyStep(reply=self.written(spans), index=len(self.records))

    def written(self, spans: tuple[SamplingSpan, ...]) -> WrittenReply:
        return WrittenReply(
            prompt_ids=self.prompt_ids,
            ids=tuple(record.id for record in self.records),
            draws=tuple(record.draw for record in self.records),
            probs=tuple(record.prob for record in self.records),
            spans=spans,
            seed=self.options.seed,
        )

    def _take(self, event: GenerationEvent) -> None:
        match event:
            case PromptRead():
                self.prompt_ids = event.prompt_ids
            case TokenStep():
                self.records.append(event.record)
                if event.sampling is not None:
                    self.spans.append(SamplingSpan(event.record.index, event.sampling))
            case GenerationEnd():
                self.end = event


def model_probs(reference: Any, run: Run) -> torch.Tensor:
    """What transformers gives for every token of the reply and the next one: (n + 1, V)."""
    ids = torch.tensor([[*run.prompt_ids, *(record.id for record in run.records)]])
    with torch.no_grad():
        logits = reference(ids).logits[0].float()
    return logits[len(run.prompt_ids) - 1 :].softmax(-1).double()


def assert_is_transformers(reference: Any, run: Run) -> None:
    probs = model_probs(reference, run)
    for record, row in zip(run.records, probs[:-1], strict=True):
        assert math.exp(record.logprob) == pytest.approx(float(row[record.id]), abs=1e-4)


def test_a_held_step_has_the_whole_vocabulary_with_the_numbers_of_transformers(
    engine: LocalEngine, reference: Any
) -> None:
    run = Run(engine, GenerateOptions(sampling=HOT, seed=SEED, max_tokens=20))
    run.until(4)
    run.controls.pause()
    paused = run.until_held()
    assert len(run.records) == paused.next.index == 4
    step = run.next_step(paused)
    probs = model_probs(reference, run)[-1]
    vocabulary = len(probs)
    listed = [
        candidate
        for start in range(0, vocabulary, 1000)
        for candidate in engine.inspection.candidates(step, start, 1000).candidates
    ]
    assert sorted(candidate.id for candidate in listed) == list(range(vocabulary))
    told = torch.tensor([candidate.model_prob for candidate in listed], dtype=torch.float64)
    wanted = probs[[candidate.id for candidate in listed]]
    assert (told - wanted).abs().max() < 1e-4
    below = listed[299]
    assert below.rank == 300
    higher = int((probs > probs[below.id]).sum())
    assert higher == pytest.approx(299, abs=3)  # near ties may change places
    (found,) = engine.inspection.find_tokens(step, below.id, 1)
    assert found.candidate == below
    run.controls.cancel()
    run.finish()


@pytest.mark.parametrize(
    "turned",
    [
        SamplingParams(temperature=0.0),
        SamplingParams(temperature=1.5, min_p=0.0, xtc_probability=0.5, xtc_threshold=0.02),
        SamplingParams(temperature=1.5, top_k=0, top_p=1, min_p=0, mirostat_tau=3),
        SamplingParams(temperature=0.7, repetition_penalty=1.3, top_k=30),
    ],
    ids=["greedy", "xtc", "mirostat", "penalty"],
)
def test_answers_about_a_held_step_agree_with_its_record_also_when_a_control_was_turned(
    engine: LocalEngine, turned: SamplingParams
) -> None:
    options = GenerateOptions(sampling=turned, seed=SEED, max_tokens=20)
    run = Run(engine, options)
    run.until(6)
    run.controls.pause()
    for sampling in (turned, HOT, turned):
        if sampling is not run.controls.sampling:
            run.controls.sampling = sampling
        paused = run.until_held()
        assert paused.sampling == sampling
        record = paused.next
        step = run.next_step(paused)
        traced = engine.inspection.trace(step, [one.id for one in record.candidates])
        assert traced.candidates == record.candidates
        assert (traced.sampling, traced.draw, traced.note) == (sampling, None, "")
        page = engine.inspection.candidates(step, 0, len(record.candidates))
        assert page.candidates == record.candidates
    run.controls.step()
    run.until(7)
    taken = run.records[-1]
    (asked,) = engine.inspection.trace(step, [taken.id]).candidates
    assert asked.prob == taken.prob  # the very step that was shown is the one drawn from
    run.controls.cancel()
    run.finish()


def test_all_tokens_of_a_text_are_taken_while_held_and_it_holds_again(
    engine: LocalEngine, reference: Any, model_folder: Path
) -> None:
    from transformers import AutoTokenizer

    run = Run(engine, GenerateOptions(sampling=HOT, seed=SEED, max_tokens=20))
    run.until(3)
    run.controls.pause()
    step = run.next_step(run.until_held())
    text = " Bluebird house 🦉"
    spelt = engine.inspection.spell(step, text)
    ids = [token.id for token in spelt.tokens]
    own = AutoTokenizer.from_pretrained(model_folder)
    assert ids == own(text, add_special_tokens=False).input_ids
    assert len(ids) > 4
    (first,) = engine.inspection.find_tokens(step, ids[0], 1)
    assert spelt.first == first
    run.controls.step(ids)
    again = run.until_held()
    assert again.next.index == len(run.records) == 3 + len(ids)
    assert [record.id for record in run.records[3:]] == ids
    assert all(record.draw is None for record in run.records[3:])
    assert "".join(record.text for record in run.records[3:]) == text
    assert run.records[3].rank == spelt.first.candidate.rank
    assert_is_transformers(reference, run)
    run.controls.step(ids[:2])
    run.controls.resume()  # what was chosen still comes before it goes on by itself
    run.finish()
    assert [record.id for record in run.records[3 + len(ids) :][:2]] == ids[:2]
    assert len(run.records) == 20
    assert_is_transformers(reference, run)


def test_control_tokens_are_spelt_as_ordinary_text(engine: LocalEngine) -> None:
    run = Run(engine, GenerateOptions(sampling=HOT, seed=SEED, max_tokens=3))
    run.controls.pause()
    step = run.next_step(run.until_held())
    spelt = engine.inspection.spell(step, "<|im_end|>")
    assert b"".join(token.bytes for token in spelt.tokens) == b"<|im_end|>"
    assert len(spelt.tokens) > 1
    assert not any(token.control for token in spelt.tokens)
    run.controls.step([token.id for token in spelt.tokens])
    end = run.finish()
    assert end.reason is FinishReason.LENGTH
    left = len(spelt.tokens) - 3
    assert end.message.endswith(f"the last {left} tokens of your text could not be taken")


def test_a_stop_sequence_inside_a_text_ends_the_reply_and_says_so(engine: LocalEngine) -> None:
    (text, stop), ids = (" Bluebird STOP house", "STOP"), ()
    for held in (True, False):
        options = GenerateOptions(
            sampling=HOT, seed=SEED, max_tokens=30, stop=(stop,), forced_ids=() if held else ids
        )
        run = Run(engine, options)
        if held:
            run.controls.pause()
            step = run.next_step(run.until_held())
            ids = tuple(token.id for token in engine.inspection.spell(step, text).tokens)
            run.controls.step(ids)
        end = run.finish()
        assert end.reason is FinishReason.STOP_SEQUENCE
        assert "".join(record.text for record in run.records) == " Bluebird "
        left = len(ids) - len(run.records)
        tokens = "the last token" if left == 1 else f"the last {left} tokens"
        assert end.message == (
            f"the reply came to a stop sequence; {tokens} of your text could not be taken"
        )


def test_the_next_token_of_a_reply_that_is_no_more_held_is_computed_anew(
    engine: LocalEngine, reference: Any
) -> None:
    run = Run(engine, GenerateOptions(sampling=HOT, seed=SEED, max_tokens=5))
    run.finish()
    step = ReplyStep(reply=run.written(tuple(run.spans)), index=len(run.records))
    assert engine.inspection.recompute(step.reply, step.index, lambda _: None, lambda: False)
    page = engine.inspection.candidates(step, 0, 50)
    probs = model_probs(reference, run)[-1]
    for candidate in page.candidates:
        assert candidate.model_prob == pytest.approx(float(probs[candidate.id]), abs=1e-4)
