"""Questions about replies, through the pipe: a tiny model tells why, what if, and what else."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace

import pytest

from chatapp.chat.errors import EngineError
from chatapp.chat.generation import GenerateOptions, GenerationEnd, PromptRead, TokenStep
from chatapp.chat.inspection import ReplyStep, WrittenReply
from chatapp.chat.prompt import Prompt, PromptFormat, Turn
from chatapp.chat.record import SamplingSpan, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.link.client import EngineClient
from tests.tiny_models import VOCABULARY

pytestmark = pytest.mark.asyncio(loop_scope="session")

FORMAT = PromptFormat("plain", "{% for m in messages %}{{ m.content }}\n{% endfor %}")
HELLO = Prompt("", (Turn("user", "hello"),), FORMAT)
HOT = SamplingParams(temperature=1.5, top_k=40, top_p=0.9, min_p=0.02)


@dataclass
class Written:
    """A reply as it came."""

    reply: WrittenReply
    records: list[TokenRecord]


async def write(
    engine: EngineClient, options: GenerateOptions, change: SamplingParams | None = None
) -> Written:
    """Let a reply be written; `change` holds from about its fifth token on."""
    records: list[TokenRecord] = []
    spans = [SamplingSpan(0, options.sampling)]
    prompt_ids: tuple[int, ...] = ()
    generation = engine.generate(HELLO, options)
    async for event in generation:
        match event:
            case PromptRead():
                prompt_ids = event.prompt_ids
            case TokenStep():
                if event.sampling is not None and event.sampling != spans[-1].sampling:
                    spans.append(SamplingSpan(event.record.index, event.sampling))
                records.append(event.record)
                if len(records) == 4 and change is not None:
                    generation.set_sampling(change)
    return Written(
        WrittenReply(
            prompt_ids=prompt_ids,
            ids=tuple(record.id for record in records),
            draws=tuple(record.draw for record in records),
            probs=tuple(record.prob for record in records),
            spans=tuple(spans),
            seed=options.seed,
            format=FORMAT,
        ),
        records,
    )


def forgotten(reply: WrittenReply) -> WrittenReply:
    """The same tokens behind another prompt, which the engine has never seen."""
    return replace(reply, prompt_ids=(*reply.prompt_ids[:-1], 65), draws=(), probs=())


async def test_a_trace_tells_what_the_record_told(engine: EngineClient) -> None:
    options = GenerateOptions(sampling=HOT, seed=5, max_tokens=12, top_logprobs=6)
    written = await write(engine, options)
    for index, record in enumerate(written.records):
        ids = [candidate.id for candidate in record.candidates]
        traced = await engine.trace(ReplyStep(reply=written.reply, index=index), ids)
        assert not traced.recomputed
        assert traced.note == ""
        assert traced.draw == record.draw
        assert traced.candidates == record.candidates
        assert next(stage.stage for stage in traced.trace.stages) == "model"
        for stage in traced.trace.stages:
            total = math.fsum(token.prob for token in stage.tokens) + stage.other_prob
            assert total == pytest.approx(1, abs=1e-6)
        last = traced.trace.stages[-1]
        probs = {token.id: token.prob for token in last.tokens}
        assert probs[record.id] == pytest.approx(record.prob, abs=1e-6)


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(temperature=1.5, min_p=0, xtc_probability=0.5, xtc_threshold=0.01),
        SamplingParams(temperature=1.5, top_k=0, top_p=1, min_p=0, mirostat_tau=3),
        SamplingParams(
            temperature=1.5, mirostat_tau=2.5, xtc_probability=0.6, xtc_threshold=0.02, min_p=0
        ),
    ],
    ids=["xtc", "mirostat", "both"],
)
async def test_what_random_stages_drew_is_found_again(
    engine: EngineClient, sampling: SamplingParams
) -> None:
    options = GenerateOptions(sampling=sampling, seed=11, max_tokens=16, top_logprobs=10)
    # Changed in mid-reply, to no draw at all and so to coins that no record tells of.
    change = replace(sampling, temperature=0.0)
    for written in (await write(engine, options), await write(engine, options, change)):
        for index, record in enumerate(written.records):
            ids = [candidate.id for candidate in record.candidates]
            traced = await engine.trace(ReplyStep(reply=written.reply, index=index), ids)
            assert traced.note == ""
            told = {candidate.id: candidate.prob for candidate in traced.candidates}
            for candidate in record.candidates:
                assert told[candidate.id] == pytest.approx(candidate.prob, abs=1e-6)


async def test_a_start_taken_over_is_said_not_guessed(engine: EngineClient) -> None:
    sampling = SamplingParams(temperature=1.5, min_p=0, xtc_probability=0.5, xtc_threshold=0.01)
    first = await write(engine, GenerateOptions(sampling=sampling, seed=1, max_tokens=8))
    kept = first.reply.ids[:4]
    prompt = Prompt(
        "", (*HELLO.turns, Turn("assistant", "kept", kept)), FORMAT, continue_reply=True
    )
    draws, probs, ids = list(first.reply.draws[:4]), list(first.reply.probs[:4]), list(kept)
    options = GenerateOptions(sampling=sampling, seed=2, max_tokens=6, forced_ids=(70,))
    async for event in engine.generate(prompt, options):
        if isinstance(event, TokenStep):
            ids.append(event.record.id)
            draws.append(event.record.draw)
            probs.append(event.record.prob)
    reply = replace(
        first.reply,
        ids=tuple(ids),
        draws=tuple(draws),
        probs=tuple(probs),
        spans=(SamplingSpan(0, sampling), SamplingSpan(4, sampling)),
        seed=2,
    )
    notes = [
        (await engine.trace(ReplyStep(reply=reply, index=index), [ids[index]])).note
        for index in range(len(ids))
    ]
    assert all("taken over" in note for note in notes[:4])
    assert notes[4:] == [""] * len(notes[4:])


async def test_the_whole_vocabulary_can_be_listed_and_searched(engine: EngineClient) -> None:
    written = await write(engine, GenerateOptions(sampling=HOT, seed=3, max_tokens=4))
    step = ReplyStep(reply=written.reply, index=2)
    pages = [await engine.candidates(step, start, 100) for start in (0, 100, 200, 300)]
    listed = [candidate for page in pages for candidate in page.candidates]
    assert pages[0].vocabulary == len(listed) == VOCABULARY
    assert sorted(candidate.id for candidate in listed) == list(range(VOCABULARY))
    logprobs = [candidate.logprob for candidate in listed]
    assert logprobs == sorted(logprobs, reverse=True)
    assert [candidate.rank for candidate in listed] == list(range(1, VOCABULARY + 1))
    assert sum(candidate.prob for candidate in listed) == pytest.approx(1, abs=1e-6)
    assert sum(candidate.prob > 0 for candidate in listed) == pages[0].choices

    (by_id,) = await engine.find_tokens(step, written.reply.ids[2])
    draw = written.reply.draws[2]
    assert draw is not None and by_id.draw_from is not None and by_id.draw_to is not None
    assert by_id.draw_from <= draw < by_id.draw_to
    (by_text,) = await engine.find_tokens(step, "z")
    assert by_text.candidate.token == "z"
    assert by_text.bias_to_lead is not None
    biased = replace(HOT, logit_bias=((by_text.candidate.id, by_text.bias_to_lead + 1e-3),))
    (now,) = await engine.find_tokens(replace(step, sampling=biased), "z")
    assert now.bias_to_lead == 0
    assert now.draw_from == 0
    (banned,) = await engine.find_tokens(
        replace(step, sampling=replace(HOT, banned=(by_text.candidate.id,))), "z"
    )
    assert banned.bias_to_lead is None
    assert banned.draw_from is None
    assert banned.candidate.removed_by is not None
    for wanted, words in (
        (9999, f"ids go from 0 to {VOCABULARY - 1}"),
        ("", "nothing to look for"),
    ):
        with pytest.raises(EngineError, match=words):
            await engine.find_tokens(step, wanted)
    with pytest.raises(EngineError, match="no token 99"):
        await engine.candidates(ReplyStep(reply=written.reply, index=99), 0, 5)


async def test_what_if_tells_the_probabilities_of_running_with_those_settings(
    engine: EngineClient,
) -> None:
    written = await write(engine, GenerateOptions(sampling=HOT, seed=7, max_tokens=10))
    other = SamplingParams(temperature=0.6, top_k=20, top_p=0.8, min_p=0.1)
    forced = await write(
        engine,
        GenerateOptions(sampling=other, seed=7, max_tokens=10, forced_ids=written.reply.ids),
    )
    told = await engine.what_if(written.reply, other)
    assert [token.id for token in told.tokens] == list(written.reply.ids)
    for token, record in zip(told.tokens, forced.records, strict=True):
        assert token.prob == pytest.approx(record.prob, abs=1e-3)
        assert token.tempered_prob == pytest.approx(record.tempered_prob, abs=1e-3)


async def test_logits_that_are_gone_are_computed_again(engine: EngineClient) -> None:
    written = await write(engine, GenerateOptions(sampling=HOT, seed=7, max_tokens=6))
    old = forgotten(written.reply)
    traced = await engine.trace(ReplyStep(reply=old, index=3), old.ids[3:4])
    assert traced.recomputed
    again = await engine.trace(ReplyStep(reply=old, index=4), old.ids[4:5])
    assert not again.recomputed
    other = forgotten(old)
    scored = [
        event
        async for event in engine.score_ids(old.prompt_ids, old.ids)
        if isinstance(event, TokenRecord)
    ]
    told = await engine.what_if(other, SamplingParams())
    for token, record in zip(told.tokens, scored, strict=True):
        assert token.model_logprob == pytest.approx(record.logprob, abs=1e-3)


async def test_questions_are_answered_while_a_reply_streams(engine: EngineClient) -> None:
    written = await write(engine, GenerateOptions(sampling=HOT, seed=7, max_tokens=6))
    generation = engine.generate(HELLO, GenerateOptions(sampling=HOT, seed=1, max_tokens=200))
    answers = 0
    async for event in generation:
        if isinstance(event, TokenStep) and answers < 3:
            step = ReplyStep(reply=written.reply, index=answers)
            await engine.candidates(step, 0, 10)
            answers += 1
        if isinstance(event, GenerationEnd):
            break
    assert answers == 3


async def test_a_question_nobody_waits_for_is_withdrawn(engine: EngineClient) -> None:
    written = await write(engine, GenerateOptions(sampling=HOT, seed=7, max_tokens=6))
    generation = engine.generate(HELLO, GenerateOptions(sampling=HOT, seed=1, max_tokens=400))
    running = aiter(generation)
    await anext(running)
    # The reply runs, so this has to wait for its turn.
    question = asyncio.ensure_future(engine.what_if(forgotten(written.reply), HOT))
    await asyncio.sleep(0)
    question.cancel()
    with pytest.raises(asyncio.CancelledError):
        await question
    generation.cancel()
    async for _ in running:
        pass
    assert (await engine.what_if(written.reply, HOT)).tokens
