"""A server's model in the engine's process, in turn with models that are here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.chat.generation import GenerateOptions, GenerationEnd, Paused, TokenStep
from chatapp.chat.inspection import ReplyStep, WrittenReply
from chatapp.chat.prompt import Prompt, Turn
from chatapp.chat.record import FinishReason, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.link.client import EngineClient
from chatapp.settings.paths import Paths
from tests.engine.llama_server import llama_server

HELLO = Prompt("", (Turn("user", "hello"),))
GREEDY = SamplingParams(temperature=0, end="forbid")


@pytest.fixture(scope="module")
def address(tiny_gguf: str) -> Iterator[str]:
    with llama_server(tiny_gguf) as address:
        yield address


async def written(engine: EngineClient) -> list[TokenRecord]:
    options = GenerateOptions(sampling=GREEDY, max_tokens=6, top_logprobs=3)
    return [e.record async for e in engine.generate(HELLO, options) if isinstance(e, TokenStep)]


async def test_a_server_and_a_file_in_turn(paths: Paths, tiny: ModelSource, address: str) -> None:
    engine = EngineClient.at(paths)
    numbers = []
    for source in (tiny, ModelSource("", address, "server"), tiny):
        facts = await engine.load(source, LoadOptions(), lambda _: None)
        records = await written(engine)
        numbers.append((facts.runtime, [record.logprob for record in records if record.rank]))
        assert len(await engine.tokenize("abc")) == 3
    local, served, again = numbers
    assert [name for name, _ in numbers] == ["llama.cpp", "llama-server", "llama.cpp"]
    assert local == again
    assert set(served[1]) and all(
        any(one == pytest.approx(other, abs=1e-3) for other in local[1]) for one in served[1]
    )
    await engine.close()


async def test_it_is_steered_and_stopped_and_refuses_in_words(paths: Paths, address: str) -> None:
    engine = EngineClient.at(paths)
    await engine.load(ModelSource("", address, "server"), LoadOptions(), lambda _: None)
    # Letters alone: inside a character a reply is not held.
    letters = tuple((piece.id, 100.0) for piece in await engine.tokenize("abc"))
    hot = SamplingParams(temperature=2, top_k=0, top_p=1, min_p=0, logit_bias=letters)
    cold = replace(hot, temperature=0)
    generation = engine.generate(HELLO, GenerateOptions(sampling=hot, seed=2))
    generation.pause()
    temperatures: list[float] = []
    steps = 0
    async with asyncio.timeout(60):
        async for event in generation:
            match event:
                case Paused() if steps > len(temperatures):
                    pass  # held anew for the other settings; the step is on its way
                case Paused() if steps == 5:
                    generation.cancel()
                case Paused():
                    if steps == 3:
                        generation.set_sampling(cold)
                    generation.step()
                    steps += 1
                case TokenStep():
                    temperatures.append(event.record.temperature)
                case GenerationEnd():
                    assert event.reason is FinishReason.CANCELLED
    assert temperatures == [2, 2, 2, 0, 0]
    step = ReplyStep(reply=WrittenReply(prompt_ids=(1,), ids=(2,)), index=0)
    for question in (
        engine.trace(step, (2,)),
        engine.anatomy(),
        anext(aiter(engine.score_text("x"))),
    ):
        with pytest.raises(EngineError, match=r"^llama-server writes one reply at a time"):
            await question
    await engine.close()
