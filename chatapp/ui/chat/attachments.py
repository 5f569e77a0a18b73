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

    file: Attachment | None
    tokens: int | None = None
    """How many tokens its frame and text have; None while no model can tell."""
    problem: str = ""

    def words(self) -> str:
        if self.file is None:
            return sanitise(self.problem)
        size = numbers.size(self.file.size)
        told = size if self.tokens is None else f"{numbers.tokens(self.tokens)}, {size}"
        return f"{sanitise(self.file.name)} ({told})"


@dataclass(frozen=True, slots=True)
class Room:
    """How full the context is."""

    length: int
    """Tokens; 0 while no model is loaded."""
    used: int


class Attachments:
    """Finds, reads and counts the files of the next message; shows them above the prompt."""

    def __init__(
        self,
        chat: ChatBase,
        count: Callable[[str], Awaitable[int | None]],
        room: Callable[[], Room],
    ) -> None:
        """`count`: how many tokens a text has; None while that cannot be known."""
        self._chat = chat
        self._count = count
        self._room = room
        self._put: list[Path] = []
        """What /attach put there."""
        self._counted: dict[Attachment, int] = {}
        self._look_soon: Timer | None = None

    @action("attach", usage="FILE", files="")
    async def attach(self, argument: str) -> None:
        """Send a text file with the next message; none: don't."""
        if argument == "none":
            self._put.clear()
            words = "no file goes with your next message, but for those it names with @"
        else:
            path = path_of(argument)
            attached = await self._read(path, 0)
            if attached.problem:
                raise AttachmentError(attached.problem)
            if path not in self._put:
                self._put.append(path)
            words = f"{attached.words()} goes with your next message; /attach none takes it away"
        self.show_soon()
        self._chat.say(words)

    async def join(self, text: str) -> str | None:
        """The message with its files; None where one can't be sent, which was said."""
        attached = await self._read_all(text)
        if problem := next((one.problem for one in attached if one.problem), ""):
            self._chat.say(f"not sent: {problem}", "warning")
            return None
        self._counted.clear()
        self._put.clear()
        self._show([])
        files = [one.file for one in attached if one.file is not None]
        return compose(text, files) if files else text

    def show_soon(self) -> None:
        """Bring the line above the prompt up to date, once the user pauses."""
        if self._look_soon is not None:
            self._look_soon.stop()
        if not self._put and "@" not in self._chat.prompt.text:
            self._show([])
            return
        self._look_soon = self._chat.set_timer(
            COUNT_AFTER_SECONDS, lambda: self._chat.work(self._look, "attachments")
        )

    async def _look(self) -> None:
        text = self._chat.prompt.text
        found = await self._read_all(text)
        if text == self._chat.prompt.text:
            self._show(found)

    def _show(self, found: Sequence[Attached]) -> None:
        rows = [
            Content.styled(f"✗ {one.words()}", "$text-warning")
            if one.problem
            else Content.styled(f"+ {one.words()}", MUTED)
            for one in found
        ]
        line = self._chat.query_one("#attachments", Static)
        line.display = bool(rows)
        renew(line, Content("\n").join(rows))

    async def _read_all(self, text: str) -> list[Attached]:
        """What /attach put there, then the files that the text names."""
        paths = list(self._put)
        for name in find_mentions(text):
            path = _mentioned(name)
            if path is not None and not any(_is_same(path, one) for one in paths):
                paths.append(path)
        found: list[Attached] = []
        for path in paths:
            found.append(await self._read(path, sum(one.tokens or 0 for one in found)))
        return found

    async def _read(self, path: Path, taken: int) -> Attached:
        """A file, or why it can't be sent where others have taken some tokens of the room."""
        try:
            file = await asyncio.to_thread(read_file, path)
            tokens = self._counted.get(file)
            if tokens is None and (tokens := await self._count(file.framed())) is not None:
                self._counted[file] = tokens
            room = self._room()
            if tokens is not None and room.length:
                check_room(tokens, file.name, room.length, room.used + taken)
        except AttachmentError as error:
            return Attached(None, problem=str(error))
        return Attached(file, tokens)


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
