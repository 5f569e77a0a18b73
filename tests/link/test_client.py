"""The engine in its own process: what it answers, and what happens when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from chatapp.chat.errors import EngineDied, EngineError
from chatapp.chat.facts import LoadOptions, ModelSource, Progress
from chatapp.chat.generation import GenerateOptions, GenerationEnd, PromptRead, TokenStep
from chatapp.chat.prompt import Prompt, PromptFormat, Turn
from chatapp.chat.record import FinishReason
from chatapp.chat.sampling import SamplingParams
from chatapp.link.client import EngineClient
from chatapp.settings.paths import Paths
from tests.tiny_models import save_model

FORMAT = PromptFormat("plain", "{% for m in messages %}{{ m.content }}\n{% endfor %}")
HELLO = Prompt("", (Turn("user", "hello"),), FORMAT)


@pytest.fixture
async def client(paths: Paths) -> AsyncIterator[EngineClient]:
    client = EngineClient(paths)
    yield client
    await client.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def transformers_client(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[EngineClient]:
    """One that has begun transformers stays; that takes most of ten seconds."""
    home = tmp_path_factory.mktemp("home")
    client = EngineClient(Paths(*(home / name for name in ("config", "data", "cache", "state"))))
    yield client
    await client.close()


async def load(client: EngineClient, source: ModelSource) -> list[Progress]:
    seen: list[Progress] = []
    await client.load(source, LoadOptions(device="cpu", threads=1), seen.append)
    return seen


@pytest.mark.asyncio(loop_scope="module")
async def test_a_whole_conversation(transformers_client: EngineClient, tmp_path: Path) -> None:
    """On transformers; the other tests have a GGUF, which starts without torch."""
    client = transformers_client
    folder = save_model(tmp_path / "qwen2", "qwen2")
    progress = await load(client, ModelSource("tiny", str(folder), "folder"))
    assert any(step.stage == "loading weights" and step.done == step.total for step in progress)

    pieces = await client.tokenize("héllo")
    assert b"".join(piece.bytes for piece in pieces) == "héllo".encode()
    rendered = await client.render(HELLO)
    assert rendered.text == "hello\n"

    options = GenerateOptions(max_tokens=12, seed=5, top_logprobs=3)
    events = [event async for event in client.generate(HELLO, options)]
    end = events[-1]
    assert isinstance(end, GenerationEnd)
    assert end.reason in (FinishReason.LENGTH, FinishReason.STOP)
    records = [event.record for event in events if isinstance(event, TokenStep)]
    assert [record.index for record in records] == list(range(len(records)))
    assert all(len(record.candidates) in (3, 4) for record in records)


async def test_tokens_are_counted_while_a_reply_streams(
    client: EngineClient, tiny: ModelSource
) -> None:
    await load(client, tiny)
    generation = client.generate(HELLO, GenerateOptions(max_tokens=200, seed=1))
    counted = 0
    async for event in generation:
        if isinstance(event, TokenStep) and counted < 3:
            counted += len(await client.tokenize("x"))
    assert counted == 3


async def test_sampling_changes_and_stopping_reach_a_running_reply(
    client: EngineClient, tiny: ModelSource
) -> None:
    await load(client, tiny)
    hot = SamplingParams(temperature=2, top_k=0, top_p=1, min_p=0, min_tokens=9999)
    generation = client.generate(HELLO, GenerateOptions(sampling=hot, seed=2))
    temperatures = []
    end = None
    async for event in generation:
        match event:
            case TokenStep():
                temperatures.append(event.record.temperature)
                if len(temperatures) == 3:
                    generation.set_sampling(replace(hot, temperature=0))
                if event.record.temperature == 0:
                    generation.cancel()
            case GenerationEnd():
                end = event
    assert temperatures[0] == 2
    assert temperatures == sorted(temperatures, reverse=True)
    assert 0 in temperatures
    assert end is not None
    assert end.reason is FinishReason.CANCELLED


async def test_a_reply_stopped_before_its_turn_came_never_starts(
    client: EngineClient, tiny: ModelSource
) -> None:
    await load(client, tiny)
    first = client.generate(HELLO, GenerateOptions(max_tokens=100, seed=2))
    second = client.generate(HELLO, GenerateOptions(max_tokens=100, seed=2))
    running = aiter(first)
    await anext(running)
    waiting = aiter(second)
    end = asyncio.ensure_future(anext(waiting))
    await asyncio.sleep(0)  # let the request go out; it queues behind the first
    second.cancel()
    async for _ in running:
        pass
    event = await end
    while not isinstance(event, GenerationEnd):
        assert not isinstance(event, TokenStep)
        event = await anext(waiting)
    assert event.reason is FinishReason.CANCELLED


async def test_a_killed_engine_is_noticed_and_can_be_started_again(
    paths: Paths, tiny: ModelSource
) -> None:
    deaths: list[str] = []
    client = EngineClient(paths, deaths.append)
    await load(client, tiny)
    assert client.process_id is not None
    with pytest.raises(EngineDied, match="it was killed"):
        async for event in client.generate(HELLO, GenerateOptions(seed=2)):
            if isinstance(event, TokenStep):
                os.kill(client.process_id, signal.SIGKILL)
    assert len(deaths) == 1
    with pytest.raises(EngineDied, match="not running"):
        await client.tokenize("x")
    await load(client, tiny)
    assert len(await client.tokenize("x")) == 1
    await client.close()
    assert len(deaths) == 1


async def test_closing_leaves_no_process(paths: Paths, tiny: ModelSource) -> None:
    client = EngineClient(paths)
    await load(client, tiny)
    process_id = client.process_id
    assert process_id is not None
    await client.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)


@pytest.mark.asyncio(loop_scope="module")
async def test_what_cannot_be_loaded_is_refused_in_words(
    transformers_client: EngineClient, tiny: ModelSource, tmp_path: Path
) -> None:
    client = transformers_client
    (tmp_path / "nothing").mkdir()
    (tmp_path / "no model").mkdir()
    (tmp_path / "no model" / "config.json").write_text('{"model_type": "no-such-thing"}')
    for what in ("nothing", "no model"):
        source = ModelSource("bad", str(tmp_path / what), "folder")
        with pytest.raises(EngineError) as caught:
            await client.load(source, LoadOptions(), lambda _: None)
        assert "\n" not in str(caught.value)
        assert source.path in str(caught.value)
        with pytest.raises(EngineError, match="no model is loaded"):
            await client.tokenize("x")
    for device in ("toaster", "cuda:99"):
        with pytest.raises(EngineError, match="device"):
            await client.load(tiny, LoadOptions(device=device), lambda _: None)
    with pytest.raises(EngineError, match="dtype must be"):
        await client.load(tiny, LoadOptions(dtype="int3"), lambda _: None)


async def test_a_stop_before_the_request_went_out_is_not_lost(
    client: EngineClient, tiny: ModelSource
) -> None:
    await load(client, tiny)
    generation = client.generate(HELLO, GenerateOptions(max_tokens=100, seed=2))
    generation.set_sampling(SamplingParams(temperature=0))
    generation.cancel()
    end = [event async for event in generation][-1]
    assert isinstance(end, GenerationEnd)
    assert end.reason is FinishReason.CANCELLED


async def test_what_is_asked_aside_leaves_the_cache_to_the_replies(
    client: EngineClient, tiny: ModelSource
) -> None:
    await load(client, tiny)
    options = GenerateOptions(max_tokens=4, seed=5)

    async def cached(prompt: Prompt, options: GenerateOptions) -> int:
        events = [event async for event in client.generate(prompt, options)]
        return next(event.cached_tokens for event in events if isinstance(event, PromptRead))

    other = Prompt("", (Turn("user", "a title, please"),), FORMAT)
    assert await cached(HELLO, options) == 0
    assert await cached(other, replace(options, is_aside=True)) == 0
    assert await cached(HELLO, options) == len("hello\n") - 1  # one is read for its logits
    assert await cached(other, options) == 0
    assert await cached(HELLO, options) == 0  # as it is without keeping aside
