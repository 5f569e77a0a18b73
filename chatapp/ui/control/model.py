"""The model: fetched where it is missing, loaded behind the screen, loaded again when it died."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Protocol

from chatapp.chat.errors import ChatappError, EngineError
from chatapp.chat.facts import ModelFacts, Progress
from chatapp.ui.services import ModelOffer, Services


class ModelState(Enum):
    """How far the model is."""

    NONE = auto()
    """None is loaded, and none will be unless the person asks."""
    FETCHING = auto()
    LOADING = auto()
    READY = auto()
    DEAD = auto()
    """It was loaded; its process ended."""


class ModelView(Protocol):
    """Where the model's state is shown."""

    def offer_made(self, offer: ModelOffer) -> None:
        """A model is about to be fetched."""

    def offer_closed(self) -> None:
        """The fetch is over, one way or the other."""

    def model_progressed(self) -> None:
        """`state` or `progress` changed."""

    def model_ready(self, facts: ModelFacts) -> None:
        """Replies can be asked for."""

    def say(self, words: str) -> None:
        """Something that is good to know."""

    def say_error(self, words: str) -> None:
        """Something failed."""

    def fault(self, error: BaseException) -> None:
        """The program itself is wrong."""


class ModelControl:
    """Loads one model at a time; replies wait for it."""

    def __init__(self, services: Services, view: ModelView) -> None:
        self._services = services
        self._session = services.session
        self._view = view
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._closed = False
        self.ref = services.model
        self._before = self.ref
        """The model that was meant before this one; it is meant again when this one fails."""
        self.state = ModelState.NONE
        self.progress: Progress | None = None
        self.problem = ""
        """Why there is none, in words."""
        services.watch_engine(self._died)

    def load(self, ref: str | None = None) -> None:
        """Begin to load a model (the same one again by default), in place of any other."""
        self._before = self.ref
        self.ref = ref if ref is not None else self.ref
        if self._task is not None:
            self._task.cancel()
        self._settled.clear()
        self._set(ModelState.LOADING)
        self._task = asyncio.create_task(self._load(self.ref))
        self._task.add_done_callback(self._surface)

    def cancel_fetch(self) -> None:
        """Stop fetching; what came is kept for the next time."""
        if self.state is ModelState.FETCHING and self._task is not None:
            self._task.cancel()

    async def ready(self) -> None:
        """Wait until a model can reply; one that died is started again.

        Raises:
            EngineError: there is none; the message says why and what to do.
        """
        if self.state is ModelState.DEAD:
            self.load()
        if self.state is not ModelState.READY:
            await self._settled.wait()
        if self.state is not ModelState.READY:
            raise EngineError(self.problem or "no model is loaded; choose one with Ctrl+L")

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

    def _surface(self, task: asyncio.Task[None]) -> None:
        """A fault of the program must not vanish in a task nobody waits for."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._view.fault(error)

    async def _fetch_and_load(self, ref: str) -> None:
        models = self._services.models
        offer = await models.missing(ref)
        if offer is not None:
            self._set(ModelState.FETCHING)
            self._view.offer_made(offer)
        try:
            source = await models.obtain(ref, self._tell)
        finally:
            if offer is not None and not self._closed:
                self._view.offer_closed()
        self._set(ModelState.LOADING)
        facts = await self._session.load_model(source, self._services.load_options, self._tell)
        self.problem = ""
        self._set(ModelState.READY)
        self._settled.set()
        self._view.model_ready(facts)
        if facts.note:
            self._view.say(facts.note)

    def _fail(self, words: str) -> None:
        if self._closed:
            return
        self.ref = self._before
        if self._session.facts is not None:  # the engine was not asked: the old one still stands
            self._set(ModelState.READY)
            self._settled.set()
            self._view.say_error(f"{words}; {self._session.facts.name} stays")
            return
        self.problem = words
        self._set(ModelState.NONE)
        self._settled.set()
        self._view.say_error(words)

    def _died(self, words: str) -> None:
        if self._closed or self.state is not ModelState.READY:
            return  # whoever waits for the load is told by its failure
        self._set(ModelState.DEAD)
        self._view.say_error(f"{words}. F5 starts it again; the conversation stands")

    def _set(self, state: ModelState) -> None:
        self.state = state
        self.progress = None
        self._view.model_progressed()

    def _tell(self, progress: Progress) -> None:
        # May be called from any thread: only a value is kept, the screen's timer reads it.
        self.progress = progress
