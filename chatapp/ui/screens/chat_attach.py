"""Files that go with the next message: what they cost is shown above the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from textual import on
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static, TextArea

from chatapp.chat.attachment import AttachmentError
from chatapp.chat.text import sanitise
from chatapp.ui import numbers
from chatapp.ui.control.attachments import Attached, Attachments, Room
from chatapp.ui.drawing import MUTED, renew
from chatapp.ui.screens.chat_messages import ChatMessages
from chatapp.ui.widgets.prompt import COUNT_AFTER_SECONDS


class ChatAttach(ChatMessages):
    """Shows and takes what goes with the next message."""

    _attachments: Attachments | None = None
    _look_soon: Timer | None = None

    @property
    def attachments(self) -> Attachments:
        """The files of the next message."""
        if self._attachments is None:
            self._attachments = Attachments(self._count_tokens, self._room)
        return self._attachments

    async def attach(self, path: Path) -> None:
        """Put a file to the next message. Raises AttachmentError."""
        attached = await self.attachments.attach(path)
        self.show_attachments()
        self.say(f"{_words(attached)} goes with your next message; /attach none takes it away")

    def detach(self) -> None:
        """Take away what was put to the next message."""
        self.attachments.clear()
        self.show_attachments()
        self.say("no file goes with your next message, but for those it names with @")

    async def with_attachments(self, text: str) -> str | None:
        """The message with its files; None where one can't be sent, which was said."""
        try:
            whole = await self.attachments.compose(text)
        except AttachmentError as error:
            self.say(f"not sent: {error}", "warning")
            return None
        self.attachments.clear()
        self._show_attached([])
        return whole

    @on(TextArea.Changed, "#prompt")
    def show_attachments(self) -> None:
        """Bring the line above the prompt up to date, once the person pauses."""
        if self._look_soon is not None:
            self._look_soon.stop()
        if not self.attachments.put and "@" not in self.prompt.text:
            self._show_attached([])
            return
        self._look_soon = self.set_timer(COUNT_AFTER_SECONDS, self._look)

    def _look(self) -> None:
        self.run_worker(self._look_at(self.prompt.text), group="attachments", exclusive=True)

    async def _look_at(self, text: str) -> None:
        found = await self.attachments.look(text)
        if text == self.prompt.text:
            self._show_attached(found)

    def _show_attached(self, found: Sequence[Attached]) -> None:
        rows = [
            Content.styled(f"✗ {sanitise(attached.problem)}", "$text-warning")
            if attached.problem
            else Content.styled(f"+ {_words(attached)}", MUTED)
            for attached in found
        ]
        line = self.query_one("#attachments", Static)
        line.display = bool(rows)
        renew(line, Content("\n").join(rows))

    def _room(self) -> Room:
        facts = self.session.facts
        return Room(facts.context_length if facts else 0, self.header.status.context_used)


def _words(attached: Attached) -> str:
    size = numbers.size(attached.size)
    if attached.tokens is None:
        return f"{sanitise(attached.name)} ({size})"
    return f"{sanitise(attached.name)} ({numbers.count(attached.tokens)} tokens, {size})"
