"""The interface with a model behind a server: steered, branched, broken off, and changed."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.pilot import Pilot

from chatapp.chat.conversation import Reply
from chatapp.commands.chat import interface
from chatapp.commands.setup import Setup
from chatapp.ui.chat.screen import ChatScreen
from tests.engine.model_server import Answer, ModelServer, delta, entry, sse
from tests.ui.host import notice, until

CHAT = "/v1/chat/completions"
ONE = delta("Red", entry("Red", -0.5, ("Red", -0.5), ("Blue", -1.5)))
MORE = delta(" and", entry(" and", -0.1))


@pytest.fixture
def server() -> Iterator[ModelServer]:
    server = ModelServer()
    listed = [{"id": name, "owned_by": "vllm", "max_model_len": 4096} for name in ("a", "b")]
    server.answers["/v1/models"] = [Answer({"data": listed})]
    yield server
    server.close()


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[tuple[Pilot[Any], ChatScreen]]:
    setup = Setup.from_args(argparse.Namespace(model=address, template="none"))
    async with interface(setup) as app, app.run_test(size=(110, 34)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, ChatScreen), "the screen")
        chat = app.screen
        assert isinstance(chat, ChatScreen)
        await until(pilot, lambda: chat.session.facts is not None, "the model")
        yield pilot, chat


def newest(chat: ChatScreen) -> Callable[[], Reply | None]:
    return lambda: chat.session.conversation.path()[-1].reply


async def send(pilot: Pilot[Any], text: str) -> None:
    await pilot.press(*text, "enter")


async def test_temperature_stop_continue_and_branch(server: ModelServer) -> None:
    server.answers[CHAT] = [
        Answer(lines=sse(ONE), silent=True),
        Answer(lines=sse(MORE), silent=True),
        Answer(lines=sse(MORE, delta("", finish="stop"))),
        Answer(lines=sse(ONE, delta("", finish="stop"))),
    ]
    async with opened(f"{server.url}#a") as (pilot, chat):
        assert "vLLM gives the model's own probabilities" in notice(chat)
        await send(pilot, "go")
        await until(pilot, lambda: "Red" in "\n".join(chat.transcript.text_rows), "a token")
        await pilot.press("ctrl+up")
        await until(pilot, lambda: "Red and" in "\n".join(chat.transcript.text_rows), "the next")
        first, *_, second = server.bodies(CHAT)
        assert (first["temperature"], second["temperature"]) == (0.7, 0.75)
        assert second["messages"][-1] == {"role": "assistant", "content": "Red"}
        await pilot.press("escape")
        await until(pilot, lambda: not chat.turns.busy, "the stop")
        assert chat.session.conversation.path()[-1].text == "Red and"
        server.answers[CHAT] = server.answers[CHAT][-2:]
        chat.messages.continue_reply()
        await until(pilot, lambda: not chat.turns.busy and len(server.bodies(CHAT)) > 2, "the end")
        assert chat.session.conversation.path()[-1].text == "Red and and"
        assert server.bodies(CHAT)[-1]["messages"][-1]["content"] == "Red and"
        server.answers[CHAT] = [Answer(lines=sse(ONE, delta("", finish="stop")))]
        chat.transcript.point(chat.session.conversation.path()[-1].id, 0)
        chat.show_token()
        await chat.tokens.branch("2")
        await until(pilot, lambda: "Blue" in chat.session.conversation.path()[-1].text, "a branch")
        await until(pilot, lambda: not chat.turns.busy, "the end")
        assert chat.session.conversation.path()[-1].text == "BlueRed"
        assert server.bodies(CHAT)[-1]["messages"][-1]["content"] == "Blue"


async def test_a_stream_that_breaks_off_keeps_what_came_and_says_why(server: ModelServer) -> None:
    server.answers[CHAT] = [Answer(lines=sse(ONE, MORE), cut=True)]
    async with opened(f"{server.url}#a") as (pilot, chat):
        await send(pilot, "go")
        await until(pilot, lambda: (r := newest(chat)()) and r.finish_reason, "the end")
        assert chat.session.conversation.path()[-1].text == "Red and"
        await until(pilot, lambda: "broke the connection off" in notice(chat), "the reason")


async def test_another_model_of_the_server_and_one_that_is_not_there(server: ModelServer) -> None:
    async with opened(f"{server.url}#a") as (pilot, chat):
        chat.models.choose(f"{server.url}#b")
        await until(pilot, lambda: (f := chat.session.facts) and f.name == "b", "the other model")
        chat.models.choose("http://me:secret@host/v1")
        await until(pilot, lambda: "no password" in notice(chat), "the refusal")
        assert "secret" not in notice(chat)
        chat.models.choose(f"{server.url}#c")
        await until(pilot, lambda: "has no model c; it has a, b" in notice(chat), "the failure")
