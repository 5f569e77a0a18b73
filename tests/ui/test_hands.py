"""Hands that do anything at any moment: a random walk through all that the interface offers.

The screen and the store are real, the engine is scripted, slow at random, and dies now and then. A
walk is the same for the same seed as far as the machine's own timing lets it be.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.geometry import Size
from textual.pilot import Pilot

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Progress
from chatapp.chat.generation import GenerateOptions
from chatapp.chat.inspection import PLAIN, ReplyStep, ScoreEvent, TracedStep
from chatapp.chat.prompt import Prompt, TokenPiece
from chatapp.session.titles import TitleWriter
from chatapp.store.store import Store
from chatapp.ui.app import ChatApp
from chatapp.ui.chat.screen import ChatScreen
from chatapp.ui.widgets.prompt import PromptInput
from tests.ui.host import SECONDS, ScriptedModels, make_services
from tests.ui.inspected import SteeredGeneration, _stage
from tests.ui.kept import open_store
from tests.ui.scripted import make_record
from tests.ui.seen import SeenEngine

pytestmark = pytest.mark.filterwarnings(  # a worker may be withdrawn before it ever ran
    "ignore:coroutine .* was never awaited", "ignore::pytest.PytestUnraisableExceptionWarning"
)

WORDS = ("red", "blue", "**bold**", "`code`", "sea", "é", "\n\n", "- item", "wide 字", "\n")
KEYS = (
    *("escape", "enter", "tab", "shift+tab", "up", "down", "left", "right", "home", "end"),
    *("pageup", "pagedown", "ctrl+n", "ctrl+o", "ctrl+r", "ctrl+t", "ctrl+l", "ctrl+b", "ctrl+p"),
    *("ctrl+up", "ctrl+down", *(f"f{number}" for number in range(1, 13))),
    *("n", "p", "e", "d", "u", "c", "y", "o", "x", "b", "t", "f", "left_square_bracket"),
    *("right_square_bracket", "plus", "minus", "1", "2", "space", "delete", "g"),
    *("i", "j", "t", "T", "comma", "full_stop", "less_than_sign", "greater_than_sign", "alt+t"),
)
SIGNS = {
    "space": " ",
    "plus": "+",
    "minus": "-",
    "comma": ",",
    "full_stop": ".",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
}
NOT_TRIED = {"quit", "editor", "copy", "export", "import", "theme", "suspend"}
"""The walk's own end; what needs a terminal, a clipboard, or writes files anywhere."""
SIZES = ((140, 42), (100, 30), (80, 24), (59, 19), (20, 5), (1, 1))


class Hands(SeenEngine):
    """Writes what chance says, keeps everybody waiting, and dies now and then."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(held=True)
        self.chance = chance
        self.on_death: Callable[[str], None] = lambda _: None

    def die(self) -> None:
        if not self.dead and self.loads:
            self.dead = True
            self.allow(3)  # what is held finds out
            self.on_death("the engine process ended: it was killed")

    async def _wait(self) -> None:
        for _ in range(self.chance.choice((0, 0, 1, 5, 30))):
            await asyncio.sleep(0)
        if self.chance.random() < 0.1:
            await asyncio.sleep(self.chance.random() * 0.1)

    async def load(
        self, source: ModelSource, options: LoadOptions, on_progress: Callable[[Progress], None]
    ) -> ModelFacts:
        await self._wait()
        if self.chance.random() < 0.1:
            raise EngineError("this model cannot be loaded")
        facts = await super().load(source, options, on_progress)
        return replace(facts, name=source.name, sha256=source.sha256)

    def generate(self, prompt: Prompt, options: GenerateOptions) -> SteeredGeneration:
        words = self.chance.choices(WORDS, k=self.chance.randrange(40))
        self.scripts = [" ".join(words)]
        return super().generate(prompt, options)

    async def tokenize(self, text: str, *, inside: bool = False) -> tuple[TokenPiece, ...]:
        await self._wait()
        return await super().tokenize(text, inside=inside)

    async def turn(self) -> None:
        await self._wait()
        await super().turn()

    def compare(self, prompt: Prompt, columns: Sequence[GenerateOptions]) -> Any:
        self.scripts = [" ".join(self.chance.choices(WORDS, k=20))]
        return super().compare(prompt, columns)

    async def pieces(self, ids: Sequence[int]) -> tuple[TokenPiece, ...]:
        await self._wait()
        self._live()
        return tuple(TokenPiece(id_, f" word{id_}", f" word{id_}".encode()) for id_ in ids)

    async def trace(self, step: ReplyStep, ids: Sequence[int]) -> TracedStep:
        await self._wait()
        self._live()
        record = make_record(step.index, b"red", "red", PLAIN)
        inherited = await super().trace(replace(step, index=0), [record.id for record in ()])
        stage = _stage("model", None, record.candidates, [0.1] * len(record.candidates), 0)
        return replace(
            inherited,
            trace=replace(inherited.trace, stages=(stage,)),
            candidates=record.candidates,
        )

    async def _score_ids(self, ids: Sequence[int]) -> AsyncIterator[ScoreEvent]:
        await self._wait()
        async for event in super()._score_ids(ids):
            yield event

    async def _score(
        self, prompt: Prompt, places: Sequence[int] | None, background: bool
    ) -> AsyncIterator[ScoreEvent]:
        await self._wait()
        async for event in super()._score(prompt, places, background):
            yield event


class HandModels(ScriptedModels):
    """Two models that are here, and a reference that is none."""

    async def obtain(self, ref: str, on_progress: Callable[[Progress], None]) -> ModelSource:
        await asyncio.sleep(0)
        return ModelSource(f"{ref}-1M", "/nowhere", "gguf", f"sha of {ref}")


class Walk:
    """One walk of random hands through the interface."""

    def __init__(self, pilot: Pilot[Any], engine: Hands, store: Store, seed: int) -> None:
        app = pilot.app
        assert isinstance(app, ChatApp)
        self.pilot, self.app, self.engine, self.store = pilot, app, engine, store
        self.chance = random.Random(seed)
        self.done: list[str] = []
        """What was done, for whoever has to understand a failure."""
        self.said: list[tuple[str, str]] = []
        """In which conversation what was said."""
        self.session = session = self.chat.session
        send = session.send

        def note(text: str) -> Any:
            self.said.append((session.conversation.id, text))
            return send(text)

        session.send = note  # type: ignore[method-assign]

    @property
    def chat(self) -> ChatScreen:
        return self.app.chat

    def command(self) -> str:
        found = self.chance.choice(
            [one for one in self.chat.actions.all if one.name not in NOT_TRIED]
        )
        values = [*found.values, "2", "red", "pirate", "nonsense", "4 0.6", "temperature 0.5"]
        argument = self.chance.choice(values)
        if not found.usage or (not found.needs_argument and self.chance.random() < 0.5):
            argument = ""
        return f"/{found.name} {argument}".rstrip()

    def key(self, name: str) -> None:
        character = name if len(name) == 1 else SIGNS.get(name)
        self.app.post_message(events.Key(name, character))

    def submit(self, text: str) -> None:
        self.chat.post_message(PromptInput.Submitted(text))

    def click(self) -> None:
        width, height = self.app.size
        x, y = self.chance.randrange(max(1, width)), self.chance.randrange(max(1, height))
        for kind in (events.MouseDown, events.MouseUp):
            self.app.post_message(
                kind(None, x, y, 0, 0, 1, False, False, False, screen_x=x, screen_y=y)
            )

    def resize(self) -> None:
        size = Size(*self.chance.choice(SIZES))
        self.app.post_message(events.Resize(size, size))

    def step(self) -> None:
        """Do one thing."""
        pick = self.chance.random()
        what: tuple[str, Callable[[], object]]
        if 0.25 <= pick < 0.65 and len(self.app.screen_stack) > 1:
            pick = 0.8  # nobody writes into the prompt below a dialog
        if pick < 0.25:
            tokens = self.chance.randrange(1, 12)
            what = f"{tokens} tokens", lambda: self.engine.allow(tokens)
        elif pick < 0.37:
            text = f"message {len(self.done)}"
            what = text, lambda: self.submit(text)
        elif pick < 0.65:
            text = self.command()
            what = text, lambda: self.submit(text)
        elif pick < 0.93:
            name = self.chance.choice(KEYS)
            what = name, lambda: self.key(name)
        elif pick < 0.95:
            what = "click", self.click
        elif pick < 0.97:
            what = "resize", self.resize
        elif pick < 0.98:
            what = "death", self.engine.die
        else:
            what = "back to the chat", self.back
        self.done.append(what[0])
        what[1]()

    def back(self) -> None:
        """Close what stands over the chat, as Esc does."""
        for _ in self.app.screen_stack[1:]:
            self.key("escape")

    async def settle(self) -> None:
        """Close all dialogs, let the reply come to its end, and wait until nothing is under way."""
        loop = asyncio.get_running_loop()
        end = loop.time() + SECONDS
        while len(self.app.screen_stack) > 1 or self.chat.turns.busy:
            state = (self.app.screen_stack, self.app.focused, list(self.app.workers))
            assert loop.time() < end, f"it does not come to rest: {state}"
            self.engine.allow(20)
            if len(self.app.screen_stack) > 1:
                self.key("escape")
            elif self.chat.hold.paused is not None:
                self.submit("/stop")
            await self.pilot.pause(0.01)
        if self.chat.what_if.on:
            self.key("escape")
        await self.pilot.pause()

    async def check(self) -> None:
        """Check when nothing is under way, and again where something began meanwhile."""
        for _ in range(20):
            await self.settle()
            if self.chat.turns.busy:
                continue
            current = self.session.conversation
            try:
                await self.check_all()
            except AssertionError:
                if current is self.session.conversation and not self.chat.turns.busy:
                    raise
            else:
                return
        raise AssertionError("it does not come to rest")

    async def check_all(self) -> None:
        """The screen shows the current chat, and what was said and written is on disk."""
        chat = self.chat
        conversation = chat.session.conversation
        path = conversation.path()
        assert [(one.id, one.text) for one in chat.transcript.messages] == [
            (one.id, one.text) for one in path
        ]
        for message in path:
            block = chat.transcript.block_of(message.id)
            assert block is not None
            assert not block.live
        assert chat.transcript.system_text.strip() == conversation.system.strip()
        await self.check_store()

    async def check_store(self) -> None:
        session = self.session
        while True:
            current = session.conversation
            await self.store.list_conversations()  # behind all that is being written
            if current is session.conversation:
                break  # else a title came
        kept = {one.id: one for one in await self.store.list_conversations()}
        deleted = {one.id for one in await self.store.list_conversations(deleted=True)}
        if current.messages and current.id not in deleted:
            assert current.id in kept
            on_disk = await self.store.load(current.id)
            assert {m.id: m.text for m in on_disk.messages.values()} == {
                m.id: m.text for m in current.messages.values()
            }
            assert on_disk.leaf == current.leaf
            assert on_disk.title == current.title
        owners: dict[str, float] = {}
        for id_ in kept:
            conversation = await self.store.load(id_)
            for message in conversation.messages.values():
                # A message belongs to one chat, or to its copy, which keeps the time it was made.
                made = kept[id_].created
                assert owners.setdefault(message.id, made) == made
                assert message.parent is None or message.parent in conversation.messages
                if message.reply is not None:
                    assert message.text == "".join(one.text for one in message.reply.records)
                    assert message.reply.finish_reason is not None
        for id_, text in self.said:
            if id_ in kept:
                texts = [m.text for m in (await self.store.load(id_)).messages.values()]
                assert text in texts


async def walk(folder: Path, seed: int, steps: int) -> None:
    """Walk so many steps. Fails with what was done."""
    engine = Hands(random.Random(seed))
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    done: list[str] = []
    async with open_store(folder) as store:
        services = make_services(
            engine,
            store=store,
            models=HandModels(),
            score_prompt_tokens=50,
            watch_engine=lambda told: setattr(engine, "on_death", told),
        )
        services = replace(
            services,
            titles=TitleWriter(services.session, lambda name: services.session._formats(name)),
        )
        app = ChatApp(services)
        try:
            async with app.run_test(size=(100, 30)) as pilot:
                hands = Walk(pilot, engine, store, seed)
                done, chance = hands.done, hands.chance
                for number in range(steps):
                    hands.step()
                    for _ in range(chance.choice((0, 0, 1, 3, 10))):
                        await asyncio.sleep(0)
                    if chance.random() < 0.3:
                        await pilot.pause(chance.random() * 0.05)
                    assert app.is_running
                    if number % 40 == 39:
                        await hands.check()
                # It ends in the middle of whatever it does.
                hands.submit("last words")
                engine.allow(chance.randrange(5))
                await pilot.pause(chance.random() * 0.1)
                await app.action_quit()
            engine.allow_all()
            await hands.check_store()
            assert not faults
        except BaseException as error:
            error.add_note(f"seed {seed}, last: {done[-30:]}, {faults}")
            raise


@pytest.mark.parametrize("seed", range(3))
async def test_random_hands(tmp_path: Path, seed: int) -> None:
    await walk(tmp_path, seed, 80)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(100, 200))
async def test_random_hands_for_long(tmp_path: Path, seed: int) -> None:
    """Some ten minutes."""
    await walk(tmp_path, seed, 600)
