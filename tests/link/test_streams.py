"""Scoring, several replies and searches through the pipe."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest

from chatapp.chat.errors import EngineError
from chatapp.chat.generation import GenerateOptions, GenerationEnd, PromptRead, TokenStep
from chatapp.chat.inspection import ScoreEnd, ScoreEvent, ScoreStart
from chatapp.chat.prompt import Prompt, PromptFormat, Turn
from chatapp.chat.record import FinishReason, SamplingSpan, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.search import (
    BeamEnd,
    BeamOptions,
    BeamStep,
    BeamStop,
    ColumnEvent,
    ContrastiveEnd,
    ContrastiveOptions,
    ContrastiveStep,
)
from chatapp.link.client import EngineClient
from chatapp.session.protocols import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

FORMAT = PromptFormat("plain", "{% for m in messages %}{{ m.content }}\n{% endfor %}")
HELLO = Prompt("", (Turn("user", "hello"),), FORMAT)
HOT = SamplingParams(temperature=1.5, top_k=0, top_p=1, min_p=0)
WAIT = 60.0


async def score(running: Running[ScoreEvent]) -> tuple[ScoreStart, list[TokenRecord], ScoreEnd]:
    events = [event async for event in running]
    start = next(event for event in events if isinstance(event, ScoreStart))
    end = events[-1]
    assert isinstance(end, ScoreEnd)
    return start, [event for event in events if isinstance(event, TokenRecord)], end


async def test_a_text_is_scored_by_itself(engine: EngineClient) -> None:
    start, records, end = await score(engine.score_text("héllo wörld", 3))
    assert b"".join(piece.bytes for piece in start.tokens) == "héllo wörld".encode()
    assert [record.index for record in records] == list(range(start.first, len(start.tokens)))
    assert [record.id for record in records] == [p.id for p in start.tokens[start.first :]]
    assert all(len(record.candidates) in (3, 4) for record in records)
    assert end.scored == len(records)
    mean = math.fsum(record.logprob for record in records) / len(records)
    assert end.perplexity == pytest.approx(math.exp(-mean))
    with pytest.raises(EngineError, match="nothing to score"):
        await score(engine.score_text(""))


async def test_the_persons_own_words_are_scored_in_their_prompt(engine: EngineClient) -> None:
    start, records, _ = await score(engine.score_prompt(HELLO))
    rendered = await engine.render(HELLO)
    assert start.tokens == rendered.tokens
    assert len(records) == len(rendered.tokens) - start.first


async def test_in_the_background_only_what_was_read_is_scored(engine: EngineClient) -> None:
    options = GenerateOptions(sampling=HOT, seed=3, max_tokens=8)
    async for _ in engine.generate(HELLO, options):
        pass
    _, kept, end = await score(engine.score_prompt(HELLO, 3, background=True))
    assert end.scored == len(kept) > 0
    some = [kept[0].index, kept[2].index]
    _, chosen, _ = await score(engine.score_prompt(HELLO, 3, places=some, background=True))
    assert [record.index for record in chosen] == some
    other = replace(HELLO, turns=(Turn("user", "yellow"),))
    start, nothing, end = await score(engine.score_prompt(other, 3, background=True))
    assert start.tokens
    assert not nothing and not end.scored and not end.cancelled
    _, read, _ = await score(engine.score_prompt(other, 3))
    assert len(read) > 0
    async for _ in engine.generate(other, options):
        pass
    _, anew, _ = await score(engine.score_prompt(HELLO, 3))  # the cache holds the other one
    for record, again in zip(kept, anew, strict=True):
        assert record.logprob == pytest.approx(again.logprob, abs=1e-4)
        assert record.rank == again.rank


async def test_scored_ids_have_the_numbers_of_the_reply_that_wrote_them(
    engine: EngineClient,
) -> None:
    options = GenerateOptions(sampling=HOT, seed=3, max_tokens=8)
    events = [event async for event in engine.generate(HELLO, options)]
    (read,) = [event for event in events if isinstance(event, PromptRead)]
    written = [event.record for event in events if isinstance(event, TokenStep)]
    start, records, _ = await score(
        engine.score_ids(read.prompt_ids, [record.id for record in written])
    )
    assert start.context_tokens == len(read.prompt_ids)
    assert [record.index for record in records] == [record.index for record in written]
    for record, other in zip(records, written, strict=True):
        assert record.logprob == pytest.approx(other.logprob, abs=1e-4)


async def test_several_replies_come_side_by_side(engine: EngineClient) -> None:
    cold = SamplingParams(temperature=0)
    columns = (
        GenerateOptions(sampling=cold, max_tokens=6),
        GenerateOptions(sampling=HOT, seed=4, max_tokens=9),
    )
    alone = [
        [
            event.record.id
            async for event in engine.generate(HELLO, one)
            if isinstance(event, TokenStep)
        ]
        for one in columns
    ]
    ids: list[list[int]] = [[], []]
    ends = []
    async for event in engine.compare(HELLO, columns):
        match event:
            case ColumnEvent(column, TokenStep() as step):
                ids[column].append(step.record.id)
            case ColumnEvent(column, GenerationEnd()):
                ends.append(column)
    assert ids == alone
    assert sorted(ends) == [0, 1]


async def test_one_column_is_steered_and_stopped_alone(engine: EngineClient) -> None:
    hot = replace(HOT, min_tokens=9999)  # neither comes to its own end before it is told
    options = GenerateOptions(sampling=hot, seed=4, max_tokens=1500)
    running = engine.compare(HELLO, (options, replace(options, seed=5)))
    temperatures: list[list[float]] = [[], []]
    reasons: dict[int, FinishReason] = {}
    async with asyncio.timeout(WAIT):
        async for event in running:
            match event:
                case ColumnEvent(column, TokenStep() as step):
                    temperatures[column].append(step.record.temperature)
                    if column == 0 and len(temperatures[0]) == 2:
                        running.set_sampling(1, SamplingParams(temperature=0, min_tokens=200))
                        running.cancel(0)
                case ColumnEvent(column, GenerationEnd() as end):
                    reasons[column] = end.reason
    assert reasons[0] is FinishReason.CANCELLED
    assert reasons[1] is not FinishReason.CANCELLED
    assert set(temperatures[0]) == {1.5}
    assert temperatures[1][-1] == 0


async def test_beam_search(engine: EngineClient) -> None:
    events = [event async for event in engine.beam(HELLO, BeamOptions(num_beams=3, max_tokens=5))]
    steps = [event for event in events if isinstance(event, BeamStep)]
    end = events[-1]
    assert isinstance(end, BeamEnd)
    assert steps and len(end.hypotheses) == 1
    (read,) = [event for event in events if isinstance(event, PromptRead)]
    _, records, _ = await score(engine.score_ids(read.prompt_ids, end.hypotheses[0].ids))
    total = math.fsum(record.logprob for record in records)
    assert total == pytest.approx(end.hypotheses[0].total_logprob, abs=1e-3)


async def test_a_beam_search_is_stopped(engine: EngineClient) -> None:
    running = engine.beam(HELLO, BeamOptions(num_beams=3, length_penalty=5, max_tokens=300))
    end = None
    async with asyncio.timeout(WAIT):
        async for event in running:
            match event:
                case BeamStep(index=1):
                    running.cancel()
                case BeamEnd():
                    end = event
    assert end is not None
    assert end.reason is BeamStop.CANCELLED


async def test_contrastive_search(engine: EngineClient) -> None:
    options = ContrastiveOptions(top_k=3, max_tokens=5)
    events = [event async for event in engine.contrastive(HELLO, options)]
    steps = [event for event in events if isinstance(event, ContrastiveStep)]
    assert [step.index for step in steps] == list(range(len(steps)))
    assert all(len(step.candidates) == 3 for step in steps)
    assert isinstance(events[-1], ContrastiveEnd)


async def test_exact_ids_and_a_schedule_bring_a_reply_back(engine: EngineClient) -> None:
    options = GenerateOptions(sampling=HOT, seed=9, max_tokens=12)
    generation = engine.generate(HELLO, options)
    read: PromptRead | None = None
    ids: list[int] = []
    spans: list[SamplingSpan] = []
    async for event in generation:
        match event:
            case PromptRead():
                read = event
            case TokenStep():
                ids.append(event.record.id)
                if event.sampling is not None:
                    spans.append(SamplingSpan(event.record.index, event.sampling))
                if len(ids) == 3:
                    generation.set_sampling(replace(HOT, temperature=0.5))
    assert read is not None
    again = replace(options, max_tokens=len(ids), schedule=tuple(spans[1:]))
    prompt = Prompt("", (), ids=read.prompt_ids)
    replayed = [
        event.record.id
        async for event in engine.generate(prompt, again)
        if isinstance(event, TokenStep)
    ]
    assert replayed == ids


async def test_what_nobody_reads_to_its_end_is_stopped(engine: EngineClient) -> None:
    abandoned = aiter(engine.generate(HELLO, GenerateOptions(sampling=HOT, seed=4)))
    await anext(abandoned)
    await abandoned.aclose()  # type: ignore[attr-defined]
    # Would wait for hundreds of tokens otherwise; the tiny model has room for 500.
    async with asyncio.timeout(WAIT):
        events = [event async for event in engine.generate(HELLO, GenerateOptions(max_tokens=1))]
    assert isinstance(events[-1], GenerationEnd)
