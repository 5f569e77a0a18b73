"""Runs the interface over a scripted engine: services without disk, network or clock."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from textual.pilot import Pilot

from chatapp.chat.conversation import Conversation, ConversationSummary, Message, SearchHit
from chatapp.chat.errors import FetchError, StoreError
from chatapp.chat.facts import ModelSource, Progress
from chatapp.chat.prompt import PromptFormat
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.template import NO_TEMPLATE, Template
from chatapp.session.session import Session
from chatapp.settings.presets import Presets
from chatapp.store.chats import grown
from chatapp.store.store import Store
from chatapp.ui.app import ChatApp
from chatapp.ui.chat.screen import ChatScreen
from chatapp.ui.services import ModelChoice, ModelOffer, Services
from tests.ui.scripted import ScriptedEngine

SECONDS = 60.0
"""How long anything may take before a test fails."""

TEMPLATES = {
    "pirate": Template("pirate", "Speaks like a pirate", "You are a pirate."),
    "strict": Template("strict", "At T = 0", "Be exact.", sampling={"temperature": 0.0}),
}


class MemoryStore:
    """Keeps conversations in memory; fails on demand."""

    def __init__(self) -> None:
        self.conversations: dict[str, Conversation] = {}
        self.messages: dict[str, dict[str, Message]] = {}
        self.failure = ""

    async def save_conversation(self, conversation: Conversation) -> None:
        self._check()
        self.conversations[conversation.id] = conversation

    async def save_message(self, conversation_id: str, message: Message) -> None:
        self._check()
        self.messages.setdefault(conversation_id, {})[message.id] = message

    async def append(self, conversation_id: str, message: Message) -> None:
        self._check()  # it may be that nothing of it was saved before
        before = self.messages[conversation_id][message.id]
        await self.save_message(conversation_id, grown(before, message))

    async def load(self, conversation_id: str) -> Conversation:
        return self.conversations[conversation_id]

    async def latest(self) -> str | None:
        return next(reversed(self.conversations), None)

    async def close(self) -> None:
        pass

    async def list_conversations(self, *, deleted: bool = False) -> Sequence[ConversationSummary]:
        return [
            ConversationSummary(
                id=conversation.id,
                title=conversation.title,
                created=0,
                changed=0,
                model="Scripted-1M",
                messages=len(conversation.messages),
                pinned=False,
                first_words=conversation.title,
            )
            for conversation in self.conversations.values()
        ]

    async def search(self, text: str, limit: int = 50) -> Sequence[SearchHit]:
        return [
            SearchHit(
                conversation_id=conversation.id,
                title=conversation.title,
                message_id=message.id,
                role=message.role,
                created=0,
                snippet=message.text,
                marks=(),
            )
            for conversation in self.conversations.values()
            for message in conversation.messages.values()
            if text in message.text
        ]

    async def rename(self, conversation_id: str, title: str) -> None:
        pass

    async def pin(self, conversation_id: str, pinned: bool = True) -> None:
        raise NotImplementedError  # the tests of the list of chats have a real store

    async def duplicate(self, conversation_id: str) -> str:
        raise NotImplementedError

    async def delete(self, conversation_id: str) -> None:
        pass

    async def undelete(self, conversation_id: str) -> None:
        pass

    def _check(self) -> None:
        if self.failure:
            raise StoreError(self.failure)


class ScriptedModels:
    """One model that is here, or one that has to be fetched first."""

    def __init__(self, *, here: bool = True) -> None:
        self.here = here
        self.may_fetch = asyncio.Event()
        self.fetching = asyncio.Event()
        self.stopped = False

    async def choices(self) -> Sequence[ModelChoice]:
        return [
            ModelChoice(ref="scripted", name="Scripted-1M", detail="Q4_1 · 2.0 MB"),
            ModelChoice(ref="other", name="Other-2M", detail="4.0 MB", installed=False),
        ]

    async def search(self, text: str) -> Sequence[ModelChoice]:
        if text == "down":
            raise FetchError("the Hub cannot be reached")
        repo = f"someone/{text}-GGUF"
        return [
            ModelChoice(ref=repo, name=repo, detail="on the Hub", installed=False, is_repo=True)
        ]

    async def files(self, repo: str) -> Sequence[ModelChoice]:
        return [
            ModelChoice(ref=f"{repo}:{kind}", name=f"x {kind}", detail="1 GB", installed=False)
            for kind in ("Q4_K_M", "Q8_0")
        ]

    async def missing(self, ref: str) -> ModelOffer | None:
        if self.here:
            return None
        return ModelOffer(
            ref=ref,
            name="Scripted-1M",
            description="A model for tests",
            size=98_000_000,
            license="Apache-2.0",
            sources=("the Hub (tests/scripted)", "the package index"),
        )

    async def obtain(self, ref: str, on_progress: Callable[[Progress], None]) -> ModelSource:
        if not self.here:
            on_progress(Progress("fetching from the Hub", 49_000_000, 98_000_000, "bytes"))
            self.fetching.set()
            try:
                await self.may_fetch.wait()
            except asyncio.CancelledError:
                self.stopped = True
                raise
            self.here = True
        return ModelSource("Scripted-1M", "/nowhere", "gguf", "5c")


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_services(
    engine: ScriptedEngine,
    *,
    store: MemoryStore | Store | None = None,
    models: ScriptedModels | None = None,
    clock: Callable[[], float] | None = None,
    **changes: Any,
) -> Services:
    """Services over a scripted engine."""
    seconds = itertools.count(1_700_000_000)
    session = Session(
        engine,
        store,
        template=changes.get("template", NO_TEMPLATE),
        formats=PromptFormat,
        sampling=SamplingParams(),
        seed=7,
        clock=lambda: float(next(seconds)),
    )
    values: dict[str, Any] = {
        "session": session,
        "models": models or ScriptedModels(),
        "model": "scripted",
        "presets": Presets(Path("/nowhere")),
        "sampling_for": lambda template: SamplingParams().with_values(template.sampling),
        "save_template": None,
        "save_setting": None,
        "watch_engine": lambda tell: None,
        "templates": MappingProxyType(TEMPLATES),
        "chats": store,
        "clock": clock or Clock(),
        **changes,
    }
    return Services(**values)


def make_app(engine: ScriptedEngine, **changes: Any) -> ChatApp:
    """The interface over a scripted engine."""
    return ChatApp(make_services(engine, **changes))


async def until(
    pilot: Pilot[Any], condition: Callable[[], object], what: str = "the condition"
) -> None:
    """Wait until something holds. Fails when it takes too long."""
    loop = asyncio.get_running_loop()
    end = loop.time() + SECONDS
    while not condition():
        if loop.time() > end:
            raise AssertionError(f"waited {SECONDS:g} s for {what}")
        await pilot.pause()


async def ready(pilot: Pilot[Any]) -> ChatScreen:
    """Wait until the model is loaded; returns the chat."""
    app = pilot.app
    assert isinstance(app, ChatApp)
    await until(pilot, lambda: app.chat.session.facts is not None, "the model")
    await pilot.pause()
    return app.chat


async def say(pilot: Pilot[Any], text: str) -> None:
    """Put a text into the prompt and press Enter."""
    app = pilot.app
    assert isinstance(app, ChatApp)
    app.chat.prompt.focus()
    app.chat.prompt.take(text)
    await pilot.press("enter")


async def ask(pilot: Pilot[Any], text: str) -> None:
    """Send a message and wait until the reply is over."""
    app = pilot.app
    assert isinstance(app, ChatApp)
    await say(pilot, text)
    await until(pilot, lambda: not app.chat.turns.busy, f"the reply to {text!r}")
    await pilot.pause()


def shown(chat: ChatScreen) -> str:
    """The transcript's rows as text."""
    return "\n".join(chat.transcript.text_rows)


def notice(chat: ChatScreen) -> str:
    """What is being said to the user."""
    from chatapp.ui.widgets.notices import Notices

    return chat.query_one(Notices).words
