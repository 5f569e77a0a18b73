"""The two ends of the pipe, with a scripted engine: order, faults, and frames that are none."""

from __future__ import annotations

import asyncio
import io
import os
import struct
import subprocess
import threading
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from chatapp.chat.errors import EngineDied, EngineError
from chatapp.chat.facts import LoadOptions, ModelSource, Progress
from chatapp.chat.generation import GenerateOptions, GenerationEnd, PromptRead, TokenStep
from chatapp.chat.prompt import Prompt, PromptFormat, Turn
from chatapp.link import connection
from chatapp.link.client import EngineClient
from chatapp.link.server import Outbox
from chatapp.link.wire import CALLS, FrameReader, encode
from chatapp.settings.paths import Paths
from tests.link.scripted import COMMAND, fast_record

FORMAT = PromptFormat("plain", "{{ messages }}")
WAIT = 60.0


def saying(text: str) -> Prompt:
    return Prompt("", (Turn("user", text),), FORMAT)


@pytest.fixture
async def client(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EngineClient]:
    monkeypatch.setattr(connection, "SERVER", COMMAND)
    client = EngineClient(paths)
    progress: list[Progress] = []
    await client.load(ModelSource("m", "/nowhere", "gguf"), LoadOptions(), progress.append)
    assert progress[-1] == Progress("weights", 1, 2, "tensors")
    yield client
    await client.close()


async def test_events_come_whole_and_in_order_however_many_there_are(client: EngineClient) -> None:
    options = GenerateOptions(max_tokens=2000)
    async with asyncio.timeout(WAIT):
        events: list[Any] = [event async for event in client.generate(saying("go"), options)]
    assert isinstance(events[0], PromptRead)
    steps = events[1:-1]
    assert [step.record for step in steps] == [fast_record(index) for index in range(2000)]
    assert steps[0].sampling == options.sampling
    assert isinstance(events[-1], GenerationEnd)


async def test_background_scoring_gives_way_to_other_work(client: EngineClient) -> None:
    async with asyncio.timeout(WAIT):
        scoring = aiter(client.score_prompt(saying("x"), 4, background=True))
        await anext(scoring)
        events = [
            event async for event in client.generate(saying("go"), GenerateOptions(max_tokens=2))
        ]
        assert isinstance(events[-1], GenerationEnd)
        async for _ in scoring:  # ended by itself, with what it had
            pass


async def test_other_scoring_is_only_stopped_by_who_asked(client: EngineClient) -> None:
    async with asyncio.timeout(WAIT):
        running = client.score_prompt(saying("x"), 4)
        scoring = aiter(running)
        await anext(scoring)
        reply = aiter(client.generate(saying("go"), GenerateOptions(max_tokens=2)))
        waiting = asyncio.ensure_future(anext(reply))
        for _ in range(500):
            await anext(scoring)
        assert not waiting.done()
        running.cancel()
        async for _ in scoring:
            pass
        assert isinstance(await waiting, PromptRead)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("panic", "PanicException: index out of bounds"),
        ("leave", "SystemExit: a model's own code wants to leave"),
        ("no_memory", "MemoryError"),
    ],
)
async def test_whatever_ends_the_work_ends_the_request_in_words_and_nothing_else(
    client: EngineClient, fault: str, words: str
) -> None:
    async with asyncio.timeout(WAIT):
        with pytest.raises(EngineError, match=words):
            await client.tokenize(fault)
        seen = []
        with pytest.raises(EngineError, match=words):
            async for event in client.generate(saying(fault), GenerateOptions()):
                seen.append(event)
        assert [type(event) for event in seen] == [PromptRead, *[TokenStep] * 3]
        assert len(await client.tokenize("still there")) == 2
        options = GenerateOptions(max_tokens=1)
        assert len([event async for event in client.generate(saying("on"), options)]) == 3


async def test_a_file_that_loads_for_ever_is_given_up_in_words(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SERVER", COMMAND)
    client, deaths = EngineClient(paths), list[str]()
    client.on_death = deaths.append
    await client.load(ModelSource("m", "/nowhere", "gguf"), LoadOptions(), lambda _: None)
    monkeypatch.setattr("chatapp.link.client.LOAD_SECONDS", 0.1)
    async with asyncio.timeout(WAIT):
        with pytest.raises(EngineError, match="/endless was not ready after 0 s"):
            await client.load(ModelSource("m", "/endless", "gguf"), LoadOptions(), lambda _: None)
    assert client.process_id is None and not deaths
    monkeypatch.undo()
    monkeypatch.setattr(connection, "SERVER", COMMAND)
    await client.load(ModelSource("m", "/nowhere", "gguf"), LoadOptions(), lambda _: None)
    await client.close()


@pytest.mark.parametrize("fault", ["badly_sent", "too_long"])
async def test_what_is_no_event_ends_the_engine_in_words(client: EngineClient, fault: str) -> None:
    deaths: list[str] = []
    client.on_death = deaths.append
    async with asyncio.timeout(WAIT):
        with pytest.raises(EngineDied, match="sent something that is no event"):
            await client.tokenize(fault)
    assert len(deaths) == 1 and "killed" not in deaths[0]
    assert client.process_id is None


def request(call: str, **arguments: Any) -> bytes:
    return encode(1, call, arguments)


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff",
        struct.pack("<I", 3) + b"abc",
        encode(1, "no_such_method", {}),
        encode(1, "__init__", {}),
        encode(1, "close", {}),
        request("tokenize", text=5),
        request("tokenize"),
        request("generate", prompt={}, options={}),
    ],
    ids=["long", "bytes", "unknown", "inner", "close", "type", "missing", "values"],
)
def test_what_is_no_request_ends_the_engine_in_words(sent: bytes) -> None:
    done = subprocess.run(
        [*COMMAND, "prepared"],
        input=sent + encode(2, "tokenize", {"text": "x", "inside": False}),
        capture_output=True,
        timeout=WAIT,
        check=True,
    )
    (frame,) = FrameReader().feed(done.stdout)
    assert (frame.request, frame.kind) == (0, "broken")
    assert "no request" in msgspec.msgpack.decode(frame.payload)
    assert b"no request" in done.stderr


def test_a_frame_may_come_in_any_pieces() -> None:
    frames = b"".join(request("tokenize", text="x" * size, inside=False) for size in (0, 1, 300))
    whole = FrameReader().feed(frames)
    reader = FrameReader()
    pieces = [frame for byte in frames for frame in reader.feed(bytes([byte]))]
    assert pieces == whole
    texts = [CALLS["tokenize"].unpack(frame.payload).arguments["text"] for frame in whole]
    assert [len(text) for text in texts] == [0, 1, 300]


class Writes(io.BytesIO):
    """Keeps each write by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[bytes] = []
        self.done = threading.Condition()

    def write(self, data: Any) -> int:
        with self.done:
            self.all.append(bytes(data))
            self.done.notify()
        return len(data)


def test_what_can_wait_is_written_together_and_what_cannot_takes_it_along() -> None:
    writes = Writes()
    outbox = Outbox(writes)
    for frame in (b"a", b"b", b"c"):
        outbox.put(frame, urgent=False)
    threading.Thread(target=outbox.run, daemon=True).start()
    with writes.done:
        assert writes.done.wait_for(lambda: writes.all, WAIT)  # by the timer
    outbox.put(b"d", urgent=False)
    outbox.put(b"e", urgent=True)
    with writes.done:
        assert writes.done.wait_for(lambda: b"".join(writes.all) == b"abcde", WAIT)
    assert writes.all[0] == b"abc"


def test_an_engine_ends_when_its_input_does() -> None:
    process = subprocess.Popen(
        [*COMMAND, "prepared"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    prompt = {"system": "", "turns": [{"role": "user", "text": "go"}], "format": {}}
    process.stdin.write(request("generate", prompt=prompt, options={}))
    process.stdin.flush()
    assert os.read(process.stdout.fileno(), 1)
    process.stdin.close()  # in the middle of a reply without end
    assert process.wait(WAIT) == 0
    process.stdout.close()
