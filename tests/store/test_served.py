"""Replies of servers on disk and in files: what was not told stays unknown."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from chatapp.chat.conversation import Conversation, Message, Reply
from chatapp.chat.record import FinishReason, SamplingSpan
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.served import SERVERS, UNTOLD
from chatapp.engine.served.kinds import Weighed
from chatapp.engine.served.record import make_record
from chatapp.store.formats.export_file import export_text, find_export_format
from chatapp.store.formats.import_file import import_text
from chatapp.store.store import Store

TOP = tuple(Weighed(b, math.log(p)) for b, p in ((b"Red", 0.5), (b"Blue", 0.25)))
TOKENS = (
    Weighed(b"Red", math.log(0.5), top=TOP),
    Weighed(b"\xc3", math.nan),
    Weighed(b"", math.nan),
)


def conversation() -> Conversation:
    records = tuple(
        make_record(token, text, index, 0.7, SERVERS["vLLM"], 2, 0)
        for index, (token, text) in enumerate(zip(TOKENS, ("Red", "", ""), strict=True))
    )
    reply = Reply(
        model="m",
        model_sha256="5e",
        runtime="vLLM",
        seed=1,
        records=records,
        sampling=(SamplingSpan(0, SamplingParams()),),
        finish_reason=FinishReason.STOP,
    )
    ask = Message(id="1" * 32, parent=None, role="user", text="?", created=1.0)
    answer = Message(
        id="2" * 32, parent=ask.id, role="assistant", text="Red", created=2.0, reply=reply
    )
    empty = Conversation(id="c" * 32, created=0.0)
    return empty.with_message(ask).with_message(answer)


def check(kept: Conversation) -> None:
    reply = kept.messages["2" * 32].reply
    assert reply is not None
    red, half, end = reply.records
    assert (red.id >= UNTOLD, red.rank) == (True, 1)
    assert red.logprob == pytest.approx(math.log(0.5))  # single precision on disk
    for record in reply.records:
        assert all(map(math.isnan, (record.prob, record.tempered_prob, record.entropy_bits)))
    assert [math.isnan(one.logprob) for one in (half, end)] == [True, True]
    assert (half.rank, half.bytes, end.bytes) == (0, b"\xc3", b"")
    assert [one.id for one in red.candidates] == [red.id, red.candidates[1].id]
    assert reply.runtime == "vLLM"


async def test_on_disk_and_in_a_file(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "chats.db")
    said = conversation()
    await store.save_conversation(said)
    for message in said.messages.values():
        await store.save_message(said.id, message)
    check(await store.load(said.id))
    await store.close()
    text = export_text([said], find_export_format("x.json"))
    (brought,) = import_text(text.encode(), 0.0).conversations
    check(brought)
    assert export_text([brought], find_export_format("x.json")) == text


def test_as_a_page_and_as_lines() -> None:
    page = export_text([conversation()], find_export_format("x.html"))
    assert "nan" not in page
    assert "perplexity 2.00" in page  # of what was told
    assert "id n/a" in page
    assert "entropy at least 1.50 bit" in page
    lines = export_text([conversation()], find_export_format("x.jsonl"))
    assert '"numbers":{"logprob":"raw"' in lines
    assert str(UNTOLD)[:4] not in lines
    csv = export_text([conversation()], find_export_format("x.csv"))
    assert "nan" not in csv
