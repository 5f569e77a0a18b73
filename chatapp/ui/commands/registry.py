"""What a command is, and how a line of the prompt is read as one."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chatapp.chat.errors import ChatappError

if TYPE_CHECKING:
    from chatapp.ui.screens.chat import ChatScreen


class CommandError(ChatappError):
    """A command that cannot be done as written; the message says what is allowed."""


def _nothing(_screen: ChatScreen) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Command:
    """One command."""

    name: str
    """Without the slash."""
    usage: str
    """Its arguments, as help prints them; empty for none. Optional ones stand in brackets."""
    text: str
    """One sentence for help."""
    run: Callable[[ChatScreen, str], Awaitable[None]]
    """Does it, given what stands behind the name. Raises ChatappError and changes nothing."""
    values: Callable[[ChatScreen], Sequence[str]] = _nothing
    """What its argument may be, for completion."""

    @property
    def needs_argument(self) -> bool:
        """Whether it cannot be done without one."""
        return bool(self.usage) and not self.usage.startswith("[")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the prompt that is a command."""

    name: str
    argument: str


class Commands:
    """A table of commands."""

    def __init__(self, commands: Iterable[Command]) -> None:
        self.all = tuple(commands)
        self._by_name = {command.name: command for command in self.all}

    def find(self, name: str) -> Command:
        """The command of that name.

        Raises:
            CommandError: there is none; the message says which come near.
        """
        if (command := self._by_name.get(name.lower())) is not None:
            return command
        near = difflib.get_close_matches(name.lower(), self._by_name, n=2, cutoff=0.5)
        guess = f"; did you mean {' or '.join('/' + n for n in near)}?" if near else ""
        raise CommandError(
            f"there is no command /{name}{guess} /help lists them; begin with // to send it as text"
            if guess
            else f"there is no command /{name}; /help lists them; begin with // to send it as text"
        )

    async def run(self, line: Line, screen: ChatScreen) -> None:
        """Do what a line says. Raises ChatappError."""
        command = self.find(line.name)
        if command.needs_argument and not line.argument:
            raise CommandError(f"/{command.name} needs {command.usage}: {command.text}")
        if line.argument and not command.usage:
            raise CommandError(f"/{command.name} takes nothing behind it: {command.text}")
        await command.run(screen, line.argument)

    def completions(self, text: str, screen: ChatScreen) -> list[str]:
        """Whole lines that what is written may become."""
        if not text.startswith("/") or text.startswith("//") or "\n" in text:
            return []
        name, space, argument = text[1:].partition(" ")
        if not space:
            return [
                f"/{command.name}" + (" " if command.usage else "")
                for command in self.all
                if command.name.startswith(name.lower())
            ]
        command = self._by_name.get(name.lower())
        if command is None:
            return []
        wanted = argument.casefold()
        values = command.values(screen)
        return [f"/{name} {value}" for value in values if value.casefold().startswith(wanted)]


def read_line(text: str) -> Line | None:
    """A command, when the text is one: it begins with a single slash and has one row."""
    if not text.startswith("/") or text.startswith("//") or "\n" in text.strip():
        return None
    name, _, argument = text[1:].strip().partition(" ")
    return Line(name, argument.strip())


def message_of(text: str) -> str:
    """What is sent: a doubled slash at the start stands for one."""
    return text[1:] if text.startswith("//") else text
