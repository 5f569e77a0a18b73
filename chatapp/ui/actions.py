"""What the user can do: one table, which keys, slash commands, completion, palette and help read.

An action is a method of one of the chat's features, marked by `@action`: its name (the word behind
the slash) and its keys. Its docstring is what help says. Nothing else has to be told anywhere.
"""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from textual.binding import Binding
from textual.dom import DOMNode

from chatapp.chat.errors import ChatappError
from chatapp.chat.text import sanitise

_Function = TypeVar("_Function", bound=Callable[..., Any])

_VIM = {
    "token.left": "left,h",
    "token.right": "right,l",
    "token.up": "up,k",
    "token.down": "down,j",
    "token.journey": "J",
    "transcript.end": "end,G",
    "candidate.up": "up,k",
    "candidate.down": "down,j",
    "list.up": "up,k",
    "list.down": "down,j",
    "list.end": "end,G",
}
"""Keys besides those of the bindings while texts are edited as in Vim, by the action's id."""
_MOST_FILES = 2000
"""How many names of a folder are looked at while somebody types."""


class CommandError(ChatappError):
    """A command that cannot be done as written; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something the user can do: what `@action` says of a method, and whose method it is."""

    method: Callable[..., Awaitable[None] | None]
    name: str
    """The word behind the slash."""
    text: str
    """One sentence, for help and palette."""
    usage: str
    """Its argument, as help prints it; empty for none."""
    keys: str
    key_id: str
    takes: Sequence[str]
    choices: Callable[[Any], Iterable[str]]
    files: str | None
    feature: object = None

    @property
    def needs_argument(self) -> bool:
        """Whether it cannot be done without one."""
        return bool(self.usage) and not self.usage.startswith("[")

    @property
    def values(self) -> list[str]:
        return [*self.takes, *self.choices(self.feature)]


def action(
    name: str,
    text: str = "",
    *,
    usage: str = "",
    keys: str = "",
    key_id: str = "",
    takes: Sequence[str] = (),
    values: Callable[[Any], Iterable[str]] = lambda _feature: (),
    files: str | None = None,
) -> Callable[[_Function], _Function]:
    """Mark a method as an action. It takes the text behind its name, and may be a coroutine.

    It raises ChatappError, in words for the user, where it cannot be done; nothing is changed then.

    Args:
        name: the word behind the slash.
        text: one sentence for help and palette; the first of the method's docstring by default.
        usage: its argument, as help prints it; optional ones stand in brackets. Empty for none.
        keys: which keys do it without an argument, as Textual names them, separated by commas.
        key_id: what the settings file calls those keys: "reply.pause".
        takes: all that the argument may be.
        values: what else it may be, for completion; given the feature.
        files: the argument may be a folder, or a file whose name ends so.
    """

    def mark(method: _Function) -> _Function:
        said = text or " ".join((method.__doc__ or "").partition("\n\n")[0].split())
        one = Action(method, name, said, usage, keys, key_id, takes, values, files)
        method.__dict__["action"] = one
        return method

    return mark


def actions_of(features: Iterable[type]) -> list[Action]:
    """What some features can do, in the order in which it is written there."""
    return [
        value.action
        for feature in features
        for value in vars(feature).values()
        if isinstance(getattr(value, "action", None), Action)
    ]


def bindings_of(features: Iterable[type]) -> list[Binding]:
    """The keys of all actions of some features; the screen's `act` does them."""
    return [
        Binding(one.keys, f"act({one.name!r})", one.text, id=one.key_id, priority=True)
        for one in actions_of(features)
        if one.keys
    ]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the prompt that is a command."""

    name: str
    argument: str


class Actions:
    """All of them, by name."""

    def __init__(self, features: Iterable[object]) -> None:
        found = [
            replace(one, feature=feature)
            for feature in features
            for one in actions_of([type(feature)])
        ]
        self.all = tuple(sorted(found, key=lambda one: one.name))
        self._by_name = {one.name: one for one in self.all}

    def find(self, name: str) -> Action:
        """The action of that name.

        Raises CommandError: there is none; the message says which come near.
        """
        if (found := self._by_name.get(name.lower())) is not None:
            return found
        near = difflib.get_close_matches(name.lower(), self._by_name, n=2, cutoff=0.5)
        guess = f"; did you mean {' or '.join('/' + n for n in near)}?" if near else ";"
        raise CommandError(
            f"there is no command /{name}{guess} /help lists them; begin with // to send it as text"
        )

    async def run(self, line: Line) -> None:
        """Do what a line says. Raises ChatappError."""
        found = self.find(line.name)
        if found.needs_argument and not line.argument:
            raise CommandError(f"/{found.name} needs {found.usage}: {found.text}")
        if line.argument and not found.usage:
            raise CommandError(f"/{found.name} takes nothing behind it: {found.text}")
        if line.argument and found.takes and line.argument not in found.takes:
            raise CommandError(f"/{found.name} takes {one_of(found.takes)}, not {line.argument!r}")
        if (waiting := found.method(found.feature, line.argument)) is not None:
            await waiting

    def completions(self, text: str) -> list[tuple[str, str]]:
        """Whole lines that what is written may become, each with what it does."""
        if not text.startswith("/") or text.startswith("//") or "\n" in text:
            return []
        name, space, argument = text[1:].partition(" ")
        if not space:
            return [
                (f"/{one.name}" + (" " if one.usage else ""), one.text)
                for one in self.all
                if one.name.startswith(name.lower())
            ]
        found = self._by_name.get(name.lower())
        if found is None:
            return []
        wanted = argument.casefold()
        values = [value for value in found.values if value.casefold().startswith(wanted)]
        if found.files is not None:
            values += _paths(argument, found.files)
        return [(f"/{name} {value}", "") for value in values]


def _paths(argument: str, ending: str) -> list[str]:
    """The folders and files that the beginning of a path may become, as it is written."""
    folder, slash, name = argument.rpartition("/")
    try:
        with os.scandir(path_of(folder + slash) if slash else ".") as entries:
            found = [
                f"{folder}{slash}{entry.name}" + ("/" if entry.is_dir() else "")
                for entry in itertools.islice(entries, _MOST_FILES)
                if entry.name.startswith(name)
                and (name or not entry.name.startswith("."))
                and (entry.is_dir() or entry.name.endswith(ending))
            ]
    except (OSError, ValueError, RuntimeError):  # a NUL in it; ~somebody who is not known here
        return []
    return sorted(one for one in found if sanitise(one) == one)


def one_of(words: Sequence[str]) -> str:
    """A few of them as a sentence has them, many as a list."""
    return ", ".join(words) if len(words) > 3 else " or ".join([", ".join(words[:-1]), words[-1]])


def path_of(argument: str) -> Path:
    """The file that an argument names; ~ is the user's own folder."""
    return Path(argument).expanduser()


def read_line(text: str) -> Line | None:
    """A command, when the text is one: it begins with a single slash and has one row."""
    if not text.startswith("/") or text.startswith("//") or "\n" in text.strip():
        return None
    name, _, argument = text[1:].strip().partition(" ")
    return Line(name, argument.strip())


def message_of(text: str) -> str:
    """What is sent: a doubled slash at the start stands for one."""
    return text[1:] if text.startswith("//") else text


def keymap(keys: Mapping[str, str], *, vim: bool) -> dict[str, str]:
    """The keys that are not those of the bindings: Vim's where wanted, over them the user's own."""
    return {**(_VIM if vim else {}), **keys}


def unknown_actions(keys: Mapping[str, str]) -> list[str]:
    """What the settings give keys to although no class of this interface binds any to it."""
    known = {
        binding.id
        for owner in key_owners()
        for binding in owner.BINDINGS
        if isinstance(binding, Binding)
    }
    return sorted(key for key in keys if key not in known)


def key_owners(base: type[DOMNode] = DOMNode) -> Iterator[type[DOMNode]]:
    """The widgets and screens of this interface, and the application."""
    for owner in base.__subclasses__():
        if owner.__module__.startswith("chatapp.ui"):
            yield owner
        yield from key_owners(owner)
