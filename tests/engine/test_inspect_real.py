"""What-if and recomputed logits against running the real model."""

from __future__ import annotations

import pytest

from chatapp.chat.generation import GenerateOptions, TokenStep
from chatapp.chat.inspection import ReplyStep, WrittenReply
from chatapp.chat.record import SamplingSpan
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.decoding.decode import generate
from chatapp.engine.decoding.reply import Task
from chatapp.engine.look.history import LogitHistory
from chatapp.engine.look.inspection import Inspection, LogitsGone
from chatapp.engine.runtimes.transformers import TransformersRuntime

pytestmark = pytest.mark.model

LIMIT = 64 << 20


def write(
    loaded: TransformersRuntime, history: LogitHistory, options: GenerateOptions
) -> tuple[WrittenReply, list[TokenStep]]:
    prompt_ids = tuple(loaded.tokenizer.encode_text("The three primary colours are"))
    task = Task(prompt_ids, options, loaded.facts.end_ids)
    events = generate(loaded, loaded.sequence(), task, Controls(options.sampling), history)
    steps = [event for event in events if isinstance(event, TokenStep)]
    reply = WrittenReply(
        prompt_ids=prompt_ids,
        ids=tuple(step.record.id for step in steps),
        draws=tuple(step.record.draw for step in steps),
        probs=tuple(step.record.prob for step in steps),
        spans=(SamplingSpan(0, options.sampling),),
        seed=options.seed,
    )
    return reply, steps


def inspection(loaded: TransformersRuntime, history: LogitHistory) -> Inspection:
    return Inspection(loaded, history, lambda *_: loaded.facts.end_ids, frozenset)


def test_what_if_and_recomputing_equal_running_the_model(
    reference_model: TransformersRuntime,
) -> None:
    history = LogitHistory(LIMIT)
    hot = SamplingParams(temperature=1.2, top_p=0.98, min_p=0.0, end="forbid")
    reply, steps = write(
        reference_model, history, GenerateOptions(sampling=hot, seed=4, max_tokens=16)
    )
    other = SamplingParams(temperature=0.8, top_k=40, top_p=0.9, repetition_penalty=1.2)
    _, forced = write(
        reference_model,
        LogitHistory(LIMIT),
        GenerateOptions(sampling=other, seed=4, max_tokens=16, forced_ids=reply.ids),
    )
    told = inspection(reference_model, history).what_if(reply, other)
    for token, step in zip(told.tokens, forced, strict=True):
        assert token.prob == pytest.approx(step.record.prob, abs=1e-3)
        assert token.tempered_prob == pytest.approx(step.record.tempered_prob, abs=1e-3)

    # Gone from the history, whether it has room for the reply or only for a part of it.
    for limit in (LIMIT, 0):
        looking = inspection(reference_model, LogitHistory(limit))
        with pytest.raises(LogitsGone):
            looking.trace(ReplyStep(reply=reply, index=9), reply.ids[9:10])
        assert looking.recompute(reply, 9, lambda _: None, lambda: False)
        traced = looking.trace(ReplyStep(reply=reply, index=9), reply.ids[9:10], recomputed=True)
        assert traced.note == ""
        assert traced.candidates[0].prob == pytest.approx(steps[9].record.prob, abs=1e-3)
