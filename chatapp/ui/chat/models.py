"""The model: fetched where it is missing, loaded behind the screen, loaded again when it died."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from chatapp.chat.errors import ChatappError, EngineError
from chatapp.chat.facts import Progress
from chatapp.ui.actions import action
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.dialogs.download import DownloadScreen
from chatapp.ui.dialogs.picker import Choice, PickerScreen
from chatapp.ui.services import ModelChoice, ModelState


class Models:
    """Loads one model at a time; replies wait for it."""

    def __init__(self, chat: ChatBase, on_ready: Callable[[], None]) -> None:
        """`on_ready` is called whenever replies can be asked for."""
        self._chat = chat
        self._services = chat.services
        self._session = chat.services.session
        self._on_ready = on_ready
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._closed = False
        self.ref = self._services.model
        self._before = self.ref
        """The model that was meant before this one; it is meant again when this one fails."""
        self.state = ModelState.NONE
        self.progress: Progress | None = None
        self.problem = ""
        """Why there is none, in words."""
        self._services.watch_engine(self._died)

    def load(self, ref: str | None = None) -> None:
        """Begin to load a model (the same one again by default), in place of any other."""
        self._before = self.ref
        self.ref = ref if ref is not None else self.ref
        if self._task is not None:
            self._task.cancel()
        self._settled.clear()
        self._set(ModelState.LOADING)
        self._task = self._chat.begin_task(self._load(self.ref))

    @action("model", usage="[REF]", keys="ctrl+l", key_id="chat.models", files=".gguf")
    def choose(self, ref: str = "") -> None:
        """Choose a model: catalog id, repo id, folder, .gguf file, or a server's address."""
        if ref:
            self._chat.work(lambda: self._replace(ref), "model")
        else:
            self._chat.work(self._pick, "model", "error")

    async def _pick(self) -> None:
        models, repos, ask = self._services.models, set[str](), self._chat.app.push_screen_wait

        def rows_of(choices: Sequence[ModelChoice]) -> list[Choice[str]]:
            repos.update(choice.ref for choice in choices if choice.is_repo)
            return [
                Choice(
                    choice.ref,
                    choice.name if choice.installed else f"{choice.name} (not downloaded)",
                    choice.problem or choice.detail,
                    current=choice.ref == self.ref,
                    enabled=not choice.problem,
                )
                for choice in choices
            ]

        async def search(text: str) -> list[Choice[str]]:
            return rows_of(await models.search(text))

        rows = rows_of(await models.choices())
        if self.ref not in {row.key for row in rows}:
            facts = self._session.facts
            rows.insert(0, Choice(self.ref, facts.name if facts else self.ref, self.ref, True))
        empty = "no model here is called so; /model REF loads any other"
        picked = await ask(PickerScreen("Models", rows, empty=empty, more=search))
        if picked in repos:
            rows = rows_of(await models.files(picked))
            empty = "this repository holds no whole GGUF file"
            picked = await ask(PickerScreen(picked, rows, empty=empty))
        if picked is not None:
            await self._replace(picked)

    async def _replace(self, ref: str) -> None:
        try:
            await self._services.models.missing(ref)
        except ChatappError as error:
            self._chat.say(f"{error}; nothing is changed", "warning")
            return
        await self._chat.turns.stop()
        self.load(ref)

    @action("reload", keys="f5", key_id="chat.restart")
    def reload(self, _: str = "") -> None:
        """Load the model again."""
        if self.state in (ModelState.NONE, ModelState.DEAD):
            self.load()
        else:
            self._chat.say("the model is there already")

    def cancel_fetch(self) -> None:
        """Stop fetching; what came is kept for the next time."""
        if self.state is ModelState.FETCHING and self._task is not None:
            self._task.cancel()

    async def ready(self) -> None:
        """Wait until a model can reply; one that died is started again.

        Raises EngineError: there is none; the message says why and what to do.
        """
        if self.state is ModelState.DEAD:
            self.load()
        if self.state is not ModelState.READY:
            await self._settled.wait()
        if self.state is not ModelState.READY:
            raise EngineError(self.problem or "no model is loaded; choose one with Ctrl+L")

    def when_ready(self, do: Callable[[], Awaitable[None]]) -> None:
        """Do something once a model can reply; keys are obeyed meanwhile."""

        async def wait() -> None:
            await self.ready()
            await do()

        self._chat.work(wait, "when-ready")

    async def close(self) -> None:
        """Give up whatever is under way, and show nothing any more."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _load(self, ref: str) -> None:
        try:
            await self._fetch_and_load(ref)
        except ChatappError as error:
            self._fail(str(error))
        except asyncio.CancelledError:
            if self._task is asyncio.current_task():
                self._fail("stopped; choose a model with Ctrl+L, or fetch again with F5")
            raise

    async def _fetch_and_load(self, ref: str) -> None:
        models = self._services.models
        offer = await models.missing(ref)
        if offer is not None:
            self._set(ModelState.FETCHING)
            self._chat.app.push_screen(
                DownloadScreen(
                    offer, lambda: self.progress, self.cancel_fetch, self._services.clock
                )
            )
        try:
            source = await models.obtain(ref, self._tell)
        finally:
            if offer is not None and not self._closed:
                for screen in self._chat.app.screen_stack:
                    if isinstance(screen, DownloadScreen):
                        screen.close()
        self._set(ModelState.LOADING)
        facts = await self._session.load_model(source, self._services.load_options, self._tell)
        self.problem = ""
        self._set(ModelState.READY)
        self._settled.set()
        self._on_ready()
        if facts.note:
            self._chat.say(facts.note)

    def _fail(self, words: str) -> None:
        if self._closed:
            return
        self.ref = self._before
        if self._session.facts is not None:  # the engine was not asked: the old one still stands
            self._set(ModelState.READY)
            self._settled.set()
            self._chat.say_error(f"{words}; {self._session.facts.name} stays")
            return
        self.problem = words
        self._set(ModelState.NONE)
        self._settled.set()
        self._chat.say_error(words)

    def _died(self, words: str) -> None:
        if self._closed or self.state is not ModelState.READY:
            return  # whoever waits for the load is told by its failure
        self._set(ModelState.DEAD)
        self._chat.say_error(f"{words}. F5 starts it again; the conversation stands")

    def _set(self, state: ModelState) -> None:
        self.state = state
        self.progress = None
        if self._chat.is_mounted:
            self._chat.show_status()

    def _tell(self, progress: Progress) -> None:
        # May be called from any thread: only a value is kept, the screen's timer reads it.
        self.progress = progress
