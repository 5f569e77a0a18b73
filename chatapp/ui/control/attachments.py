"""The files that go with the next message: named with @ in it, or put there by /attach.

What they cost is told while the person writes, and what cannot be sent is refused before anything
is: the message stays in the prompt.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from chatapp.chat.attachment import (
    Attachment,
    AttachmentError,
    check_room,
    compose,
    find_mentions,
)
from chatapp.chat.text_file import read_file


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


class Attachments:
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
        for mention in find_mentions(text):
            path = _mentioned(mention.path)
            if path is not None and path not in paths:
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
