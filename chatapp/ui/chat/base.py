"""What the chat screen is to its features: its widgets, a voice, and what they may ask it to draw.

A feature (what-if, scores, …) is an object that the screen has. It is given this, and whatever
other features it needs, by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from textual.message import Message as Notice
from textual.screen import Screen
from textual.worker import WorkType

from chatapp.chat.conversation import Message
from chatapp.chat.errors import ChatappError
from chatapp.chat.sampling import SamplingParams
from chatapp.session.inspector import Inspector
from chatapp.session.saving import SaveFailed
from chatapp.session.session import Session
from chatapp.ui.actions import Actions
from chatapp.ui.chat.turns import Turns
from chatapp.ui.services import Services
from chatapp.ui.widgets.header import Header
from chatapp.ui.widgets.notices import Level, Notices
from chatapp.ui.widgets.prompt import PromptInput
from chatapp.ui.widgets.token_panel import TokenPanel
from chatapp.ui.widgets.transcript import Transcript

PANEL_FROM_WIDTH, PANEL_FROM_HEIGHT = 80, 20
"""The smallest screen on which the side panel unfolds by itself."""
PANEL_AT_ALL_FROM_WIDTH = 60
"""Below it there is no room for a panel and a transcript at once."""
SHORT_BELOW = 30
"""Below this height the sampling panel gives its rows to the candidates, but for one."""


class ChatBase(Screen[None]):
    """Widgets and a voice; the screen itself says how the rest is drawn."""

    services: Services
    session: Session
    turns: Turns
    actions: Actions
    # What features ask of the screen itself
    set_sampling: Callable[[SamplingParams], None]
    """Draw with these from the next token on, or try them where settings are being tried."""
    show_sampling: Callable[[], None]
    """Bring every display of the sampling numbers up to date."""
    show_token: Callable[[], None]
    """Show the token pointed at, or the newest one."""
    show_legend: Callable[[], None]
    """Say what the colours mean."""
    show_status: Callable[[], None]
    """Bring the header up to date."""
    show_hints: Callable[[], None]
    """Show the keys of what is focused."""
    conversation_changed: Callable[[], None]
    """Another path, another conversation, or another wording is current: show it."""
    _leaving = False
    _panel_wanted: bool | None = None  # as the user said; None leaves it to the size

    @property
    def sampling(self) -> SamplingParams:
        """What the controls show and turn."""
        raise NotImplementedError

    @dataclass
    class CopyAsked(Notice):
        """A text is to go to the clipboard."""

        text: str
        what: str
        """What it is, in words: "the message"."""

    @property
    def transcript(self) -> Transcript:
        return self.query_one(Transcript)

    @property
    def prompt(self) -> PromptInput:
        return self.query_one("#prompt", PromptInput)

    @property
    def panel(self) -> TokenPanel:
        """What is known about the token pointed at."""
        return self.query_one(TokenPanel)

    @property
    def header(self) -> Header:
        return self.query_one(Header)

    @property
    def inspector(self) -> Inspector:
        return Inspector(self.session)

    @property
    def gone(self) -> bool:
        """Whether nothing is shown any more: the program ends, its widgets go before the screen."""
        return self._leaving or not self.app.is_running

    def say(self, words: str, level: Level = "note") -> None:
        """Tell the user something."""
        if not self.gone:
            self.query_one(Notices).say(words, level)

    def say_error(self, words: str) -> None:
        """Tell the user what failed."""
        self.say(words, "error")

    def say_unsaved(self, failed: SaveFailed | None) -> None:
        """Tell what could not be saved, if anything."""
        if failed is not None:
            self.say_error(f"not saved: {failed.message}; the chat goes on in memory")

    def fault(self, error: BaseException) -> None:
        """End the program by its own fault, with the terminal put right first."""

        def raise_it() -> None:
            raise error

        self.call_next(raise_it)

    def begin_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task for some work; its fault ends the program, and doesn't vanish with the task."""

        def surface(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self.fault(error)

        task = asyncio.create_task(work)
        task.add_done_callback(surface)
        return task

    def work(
        self, doing: Callable[[], Awaitable[None]], group: str, level: Level = "warning"
    ) -> None:
        """Do something beside the keys, in place of what its group does; what fails is said."""

        async def run() -> None:
            try:
                await doing()
            except ChatappError as error:
                self.say(str(error), level)

        called: WorkType[None] = run  # when its turn comes: what is withdrawn was never begun
        self.run_worker(called, group=group, exclusive=True)

    def copy(self, text: str, what: str) -> None:
        """Put a text on the clipboard; `what` it is, in words."""
        self.post_message(self.CopyAsked(text, what))

    def point_at(self, message_id: str, words: str = "") -> None:
        """Point at a message of the path, at the token with which some words begin in it."""
        block = self.transcript.block_of(message_id)
        if block is not None:
            self.transcript.point(message_id, token_of_words(block.message, words))
            self.transcript.focus()

    def unfold_panel(self) -> None:
        """Show the side panel, hidden or not."""
        if not self.query_one("#side").display:
            self.toggle_panel()

    def toggle_panel(self) -> None:
        """Show or hide the side panel from now on, whatever the size."""
        self._panel_wanted = not self.query_one("#side").display
        self.on_resize()

    def on_resize(self) -> None:
        """Show the side panel when it is wanted, or when there is room for it."""
        width, height = self.size
        room = width >= PANEL_FROM_WIDTH and height >= PANEL_FROM_HEIGHT
        wanted = room if self._panel_wanted is None else self._panel_wanted
        side = self.query_one("#side")
        folded = not side.display
        side.display = wanted and width >= PANEL_AT_ALL_FROM_WIDTH
        if folded != (not side.display):
            self.show_token()
        self.show_sampling()


def token_of_words(message: Message, words: str) -> int | None:
    """The token with which some words begin in a reply; its first token where they don't.

    None for a message without tokens.
    """
    if message.reply is None or not message.reply.records:
        return None
    start = message.text.casefold().find(words.casefold()) if words else 0
    end = 0
    for index, record in enumerate(message.reply.records):
        end += len(record.text)
        if end > start:
            return index
    return 0
