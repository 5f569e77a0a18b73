"""The model titles a chat while nothing is asked of it, and gives way to whatever is."""

from __future__ import annotations

from textual import on
from textual.timer import Timer
from textual.widgets import TextArea

from chatapp.chat.conversation import Message
from chatapp.ui.screens.chat_compare import ChatCompare

IDLE_SECONDS = 3.0
"""How long nothing is written, by the person or the model, before the model is idle."""


class ChatTitles(ChatCompare):
    """Sees when the model is idle."""

    _title_soon: Timer | None = None

    def message_added(self, message: Message) -> None:
        """A turn begins: the title gives way, before the engine is asked for the reply."""
        self._put_title_off()
        super().message_added(message)

    def turn_ended(self) -> None:
        """Think of a title once it stays quiet."""
        super().turn_ended()
        self.title_later()

    @on(TextArea.Changed, "#prompt")
    def title_later(self) -> None:
        """The person writes: begin to wait anew."""
        self._put_title_off()
        if self.services.titles is not None and self.services.titles.is_wanted:
            self._title_soon = self.set_timer(IDLE_SECONDS, self._write_title)

    def _put_title_off(self) -> None:
        if self._title_soon is not None:
            self._title_soon.stop()
        if self.services.titles is not None:
            self.services.titles.cancel()

    def _write_title(self) -> None:
        if not self.turns.busy:
            self.run_worker(self._written_title(), group="title", exclusive=True)

    async def _written_title(self) -> None:
        titles = self.services.titles
        if titles is not None and (failed := await titles.write()):
            self.say_error(f"not saved: {failed.message}; the chat goes on in memory")
