"""The files that go with the next message: named with @ in it, or put there by /attach.

What they cost is told while the user writes, and what cannot be sent is refused before anything
is: the message stays in the prompt.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from chatapp.chat import numbers
from chatapp.chat.attachment import (
    Attachment,
    AttachmentError,
    check_room,
    compose,
    find_mentions,
    read_file,
)
from chatapp.chat.text import sanitise
from chatapp.ui.actions import action, path_of
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.drawing import MUTED, renew
from chatapp.ui.widgets.prompt import COUNT_AFTER_SECONDS


@dataclass(frozen=True, slots=True)
class Attached:
    """A file that goes with the message, or why it can't."""

    name: str
    tokens: int | None = None
    """How many tokens its frame and text have; None while no model can tell."""
    size: int = 0
    """Bytes."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """How full the context is."""

    length: int
    """Tokens; 0 while no model is loaded."""
    used: int


class AttachedFiles:
    """Finds, reads and counts the files of the next message."""

    def __init__(
        self, count: Callable[[str], Awaitable[int | None]], room: Callable[[], Room]
    ) -> None:
        """Begin with none.

        Args:
            count: how many tokens a text has; None while that cannot be known.
            room: how full the context is.
        """
        self._count = count
        self._room = room
        self._paths: list[Path] = []
        self._counted: dict[Attachment, int] = {}

    @property
    def put(self) -> Sequence[Path]:
        """What /attach put there."""
        return tuple(self._paths)

    async def attach(self, path: Path) -> Attached:
        """Put a file to the next message. Raises AttachmentError."""
        attachment = await asyncio.to_thread(read_file, path)
        attached = await self._check(attachment, 0)
        if path not in self._paths:
            self._paths.append(path)
        return attached

    def clear(self) -> None:
        """Take away what /attach put there."""
        self._paths.clear()

    async def look(self, text: str) -> list[Attached]:
        """What goes with a message as it is written now; problems are told, not raised."""
        found: list[Attached] = []
        taken = 0
        for path in self._all(text):
            try:
                attachment = await asyncio.to_thread(read_file, path)
                attached = await self._check(attachment, taken)
            except AttachmentError as error:
                attached = Attached(path.name, problem=str(error))
            taken += attached.tokens or 0
            found.append(attached)
        return found

    async def compose(self, text: str) -> str:
        """The message with its files.

        Raises:
            AttachmentError: one of them can't be read or has no room; nothing is changed.
        """
        attachments: list[Attachment] = []
        taken = 0
        for path in self._all(text):
            attachment = await asyncio.to_thread(read_file, path)
            taken += (await self._check(attachment, taken)).tokens or 0
            attachments.append(attachment)
        self._counted.clear()
        return compose(text, attachments) if attachments else text

    def _all(self, text: str) -> list[Path]:
        """What /attach put there, then the files that the text names."""
        paths = list(self._paths)
        for name in find_mentions(text):
            path = _mentioned(name)
            if path is not None and not any(_is_same(path, one) for one in paths):
                paths.append(path)
        return paths

    async def _check(self, attachment: Attachment, taken: int) -> Attached:
        tokens = self._counted.get(attachment)
        if tokens is None:
            tokens = await self._count(attachment.framed())
            if tokens is not None:
                self._counted[attachment] = tokens
        room = self._room()
        if tokens is not None and room.length:
            check_room(tokens, attachment.name, room.length, room.used + taken)
        return Attached(attachment.name, tokens, attachment.size)


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _mentioned(text: str) -> Path | None:
    """The file that an @ names; None where there is none, since then it is only a word.

    A comma or full stop behind a name belongs to the sentence, unless there is such a file.
    """
    for name in (text, text.rstrip(".,;:!?)")):
        path = Path(os.path.expanduser(name))
        try:
            if name and path.is_file():
                return path
        except (OSError, ValueError):  # too long for a name, or with a zero in it
            continue
    return None


class Attachments:
    """Takes the files of the next message, and shows what they cost above the prompt."""

    def __init__(
        self,
        chat: ChatBase,
        count: Callable[[str], Awaitable[int | None]],
        room: Callable[[], Room],
    ) -> None:
        self._chat = chat
        self._files = AttachedFiles(count, room)
        self._look_soon: Timer | None = None

    @action("attach", usage="FILE", files="")
    async def attach(self, argument: str) -> None:
        """Send a text file with the next message; none: don't."""
        if argument == "none":
            self._files.clear()
            words = "no file goes with your next message, but for those it names with @"
        else:
            attached = await self._files.attach(path_of(argument))
            words = f"{_words(attached)} goes with your next message; /attach none takes it away"
        self.show_soon()
        self._chat.say(words)

    async def join(self, text: str) -> str | None:
        """The message with its files; None where one can't be sent, which was said."""
        try:
            whole = await self._files.compose(text)
        except AttachmentError as error:
            self._chat.say(f"not sent: {error}", "warning")
            return None
        self._files.clear()
        self._show([])
        return whole

    def show_soon(self) -> None:
        """Bring the line above the prompt up to date, once the user pauses."""
        if self._look_soon is not None:
            self._look_soon.stop()
        if not self._files.put and "@" not in self._chat.prompt.text:
            self._show([])
            return
        self._look_soon = self._chat.set_timer(COUNT_AFTER_SECONDS, self._look)

    def _look(self) -> None:
        text = self._chat.prompt.text
        self._chat.run_worker(self._look_at(text), group="attachments", exclusive=True)

    async def _look_at(self, text: str) -> None:
        found = await self._files.look(text)
        if text == self._chat.prompt.text:
            self._show(found)

    def _show(self, found: Sequence[Attached]) -> None:
        rows = [
            Content.styled(f"✗ {sanitise(attached.problem)}", "$text-warning")
            if attached.problem
            else Content.styled(f"+ {_words(attached)}", MUTED)
            for attached in found
        ]
        line = self._chat.query_one("#attachments", Static)
        line.display = bool(rows)
        renew(line, Content("\n").join(rows))


def _words(attached: Attached) -> str:
    size = numbers.size(attached.size)
    if attached.tokens is None:
        return f"{sanitise(attached.name)} ({size})"
    return f"{sanitise(attached.name)} ({numbers.tokens(attached.tokens)}, {size})"
