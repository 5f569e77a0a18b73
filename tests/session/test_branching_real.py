"""Other tokens taken in a reply of the real model, all the way from session to engine process."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
import torch

from chatapp.chat.conversation import Message, Reply
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource
from chatapp.chat.generation import Paused, PromptRead
from chatapp.chat.prompt import PromptFormat
from chatapp.chat.record import FinishReason
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.template import NO_TEMPLATE
from chatapp.link.client import EngineClient
from chatapp.session.inspector import Inspector
from chatapp.session.session import ReplyEnded, Session, TurnEvent
from chatapp.settings.paths import Paths

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

EMOJI = " 🦊 and 🦉"
TEXT = " Bluebird house"
WAIT = 120.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(
    model_source: ModelSource, shared_paths: Paths
) -> AsyncIterator[tuple[EngineClient, ModelFacts]]:
    """An engine with the model on transformers, loaded once, and its facts."""
    client = EngineClient(shared_paths)
    options = LoadOptions(runtime="transformers", device="cpu")
    yield client, await client.load(model_source, options, lambda _: None)
    await client.close()


@pytest.fixture
def session(client: tuple[EngineClient, ModelFacts]) -> Session:
    engine, facts = client
    session = Session(
        engine,
        None,
        template=NO_TEMPLATE,
        formats=PromptFormat,
        sampling=SamplingParams(temperature=1.0),
        seed=3,
        max_tokens=12,
    )
    session.facts = facts
    return session


async def run(events: AsyncIterator[TurnEvent]) -> tuple[PromptRead, Message]:
    """A whole turn: what was read, and the message that came of it."""
    async with asyncio.timeout(WAIT):
        seen = [event async for event in events]
    (read,) = [event for event in seen if isinstance(event, PromptRead)]
    ended = seen[-1]
    assert isinstance(ended, ReplyEnded)
    return read, ended.message


async def spell(session: Session, message_id: str, index: int, text: str) -> tuple[int, ...]:
    inspector = Inspector(session)
    spelt = await inspector.spell(inspector.step(message_id, index), text)
    return tuple(token.id for token in spelt.tokens)


def reply_of(message: Message) -> Reply:
    assert message.reply is not None
    return message.reply


async def test_branches_inside_an_emoji_keep_their_ids_and_have_the_models_numbers(
    session: Session, reference: Any
) -> None:
    _, first = await run(session.send("Name two animals."))
    emoji = await spell(session, first.id, 3, EMOJI)
    read, second = await run(session.branch(first.id, 3, emoji))
    assert reply_of(second).ids[:3] == reply_of(first).ids[:3]
    assert reply_of(second).ids[3 : 3 + len(emoji)] == emoji
    assert EMOJI in second.text
    assert read.cached_tokens == len(read.prompt_ids) - 1  # cropped there, and one token read

    fox = "🦊".encode()
    place = next(index for index in range(1, 12) if _inside(fox, reply_of(second), index))
    written = await spell(session, second.id, place, TEXT)
    assert len(written) > 1
    read, third = await run(session.branch(second.id, place, written))
    assert read.prompt_ids[-place:] == reply_of(second).ids[:place]
    assert read.cached_tokens == len(read.prompt_ids) - 1
    ids = reply_of(third).ids
    assert ids[:place] == reply_of(second).ids[:place]
    assert ids[place : place + len(written)] == written
    assert len(ids) == place + 12  # it went on by itself
    assert TEXT in third.text

    beside = session.conversation.siblings(third.id)
    assert [message.id for message in beside] == [first.id, second.id, third.id]
    assert [session.conversation.messages[one.id] for one in (first, second)] == [first, second]
    _assert_is_transformers(reference, [reply_of(one) for one in (first, second, third)])


async def test_a_reply_that_a_stop_sequence_cut_inside_a_token_goes_on_behind_what_is_shown(
    session: Session,
) -> None:
    _, whole = await run(session.send("Name two animals."))
    texts = [record.text for record in reply_of(whole).records]
    place = next(number for number, text in enumerate(texts) if number > 1 and len(text) > 4)
    session.stop = (texts[place][3:],)
    _, cut = await run(session.regenerate(whole.id))
    shown = "".join(texts[:place]) + texts[place][:3]
    assert reply_of(cut).finish_reason is FinishReason.STOP_SEQUENCE
    assert cut.text == shown
    session.stop = ()
    _, more = await run(session.continue_reply(cut.id))
    assert more.text.startswith(shown)
    assert len(more.text) > len(shown)
    assert reply_of(more).ids[:place] == reply_of(whole).ids[:place]


async def test_a_text_edited_in_the_middle_keeps_the_tokens_before_it_and_is_gone_on_from(
    session: Session, reference: Any
) -> None:
    _, first = await run(session.send("Name two animals."))
    old = reply_of(first)
    kept = "".join(record.text for record in old.records[:4])
    changed = kept + first.text[len(kept) :].replace(" ", EMOJI + " ", 1)
    read, second = await run(session.reply_from(first.parent, changed))
    assert second.text.startswith(changed) and len(second.text) > len(changed)
    assert reply_of(second).ids[:4] == old.ids[:4]
    assert read.cached_tokens >= len(old.prompt_ids) + 3  # they are not even read again
    _, third = await run(session.reply_from(first.parent, second.text))
    count = len(reply_of(second).ids)
    assert reply_of(third).ids[:count] == reply_of(second).ids
    _, fourth = await run(session.reply_from(first.parent, "Cats<|im_end|>"))  # as plain text
    assert fourth.text.startswith("Cats<|im_end|>")
    assert session.facts is not None
    assert not set(reply_of(fourth).ids[:3]) & set(session.facts.control_ids)
    _assert_is_transformers(reference, [reply_of(one) for one in (second, third, fourth)])


THINKS = (
    "{% for message in messages %}{% set content = message.content %}"
    "{% if message.role == 'assistant' and '</think>' in content %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)


async def test_thinking_that_the_prompt_begins_is_marked_and_left_out_of_the_next_prompt(
    client: tuple[EngineClient, ModelFacts], reference: Any
) -> None:
    engine, facts = client
    session = Session(
        engine,
        None,
        template=replace(NO_TEMPLATE, format="thinks"),
        formats=lambda name: PromptFormat(name, THINKS),
        sampling=SamplingParams(temperature=0.0),
        max_tokens=8,
    )
    session.facts = facts
    _, open_ = await run(session.send("Name a colour."))
    first = reply_of(open_)
    assert first.thinking is not None and first.thinking.begun
    assert first.thinking.tokens == len(first.ids)  # it was never closed
    closing = await spell(session, open_.id, 4, " done.\n</think>\n\nBlue.")
    _, closed = await run(session.branch(open_.id, 4, closing))
    reply = reply_of(closed)
    assert reply.thinking is not None
    texts = [record.text for record in reply.records]
    wanted = next(n for n in range(len(texts) + 1) if "</think>" in "".join(texts[:n]))
    assert reply.thinking.tokens == wanted
    assert reply.thinking.seconds > 0
    thought = "".join(texts[:wanted]).partition("</think>")[0]
    read, _ = await run(session.send("Another one."))
    text = b"".join(piece.bytes for piece in await engine.pieces(read.prompt_ids)).decode()
    assert thought not in text
    kept = closed.text.split("</think>")[-1].lstrip("\n")
    assert f"<|im_start|>assistant\n{kept}<|im_end|>" in text
    before = (*reply.prompt_ids, *reply.ids)
    same = next(n for n, (a, b) in enumerate(zip(before, read.prompt_ids, strict=False)) if a != b)
    assert read.cached_tokens == same  # the texts part where the thinking stood
    _assert_is_transformers(reference, [reply])


async def test_a_text_is_taken_while_held_through_the_pipe(
    session: Session, reference: Any
) -> None:
    steps: list[int] = []
    written: tuple[int, ...] = ()
    inspector = Inspector(session)
    async with asyncio.timeout(WAIT):
        async for event in session.send("Name two animals."):
            if isinstance(event, PromptRead):
                session.pause()
            if not isinstance(event, Paused):
                continue
            message = session.conversation.path()[-1]
            record = event.next
            step = inspector.step(message.id, record.index, event.sampling)
            page = await inspector.candidates(step, 0, len(record.candidates))
            assert page.candidates == record.candidates
            steps.append(record.index)
            if len(steps) == 1:
                session.set_sampling(SamplingParams(temperature=0.3))
            elif len(steps) == 2:
                assert event.sampling.temperature == record.temperature == 0.3
                written = await spell(session, message.id, record.index, TEXT)
                session.step(written)
            else:
                session.cancel()
    first = steps[0]
    assert steps == [first, first, first + len(written)]
    reply = reply_of(session.conversation.path()[-1])
    assert reply.finish_reason is FinishReason.CANCELLED
    assert reply.ids[first:] == written
    assert session.conversation.path()[-1].text.endswith(TEXT)
    _assert_is_transformers(reference, [reply])


def _inside(character: bytes, reply: Reply, index: int) -> bool:
    """Whether the bytes before a token end in the midst of a character."""
    before = b"".join(record.bytes for record in reply.records[:index])
    return any(before.endswith(character[:count]) for count in range(1, len(character)))


def _assert_is_transformers(reference: Any, replies: list[Reply]) -> None:
    """Every record's model probability, against one pass of transformers over all of the ids."""
    for reply in replies:
        with torch.no_grad():
            logits = reference(torch.tensor([[*reply.prompt_ids, *reply.ids]])).logits[0].float()
        probs = logits[len(reply.prompt_ids) - 1 : -1].softmax(-1)
        for record, row in zip(reply.records, probs, strict=True):
            assert math.exp(record.logprob) == pytest.approx(float(row[record.id]), abs=1e-4)
