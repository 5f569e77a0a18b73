"""The model titles a chat while nothing is asked of it, and gives way to whatever is."""

from __future__ import annotations

from textual.timer import Timer

from chatapp.ui.chat.base import ChatBase

IDLE_SECONDS = 3.0
"""How long nothing is written, by the user or the model, before the model is idle."""


class Titles:
    """Sees when the model is idle."""

    def __init__(self, chat: ChatBase) -> None:
        self._chat = chat
        self._writer = chat.services.titles
        self._soon: Timer | None = None

    def later(self) -> None:
        """Write a title once it stays quiet; called anew for whatever is written."""
        self.put_off()
        if self._writer is not None and self._writer.is_wanted:
            self._soon = self._chat.set_timer(IDLE_SECONDS, self._start)

    def put_off(self) -> None:
        """Give way: the engine is asked for something else."""
        if self._soon is not None:
            self._soon.stop()
        if self._writer is not None:
            self._writer.cancel()

    def _start(self) -> None:
        if not self._chat.turns.busy:
            self._chat.work(self._write, "title")

    async def _write(self) -> None:
        if self._writer is not None:
            self._chat.say_unsaved(await self._writer.write())
