"""A conversation as one text that can be edited anywhere, and back.

    === system
    Be brief.

    === user
    Name three colours.

    === assistant
    Red, blue

A line `=== ROLE` begins a turn, whose text is exactly what stands between the lines, without one
empty line before the next turn. A line of a turn that looks so itself has a backslash before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from chatapp.chat.conversation import Conversation, Message, new_id, title_from
from chatapp.chat.errors import ChatappError
from chatapp.chat.prompt import Role, Turn
from chatapp.chat.text import sanitise

_MARK = re.compile(r"(\\*)=== *(system|user|assistant) *")


class NotebookError(ChatappError, ValueError):
    """A text that is no conversation; the message says in which line, and what is wanted."""


def text_of(conversation: Conversation) -> str:
    """The current path as one text, made visible as the screen shows it."""
    turns: list[tuple[str, str]] = [(m.role, m.text) for m in _said(conversation)]
    if conversation.system:
        turns.insert(0, ("system", conversation.system))
    return "\n\n".join(
        f"=== {role}\n" + "\n".join(_escaped(line) for line in sanitise(text).split("\n"))
        for role, text in turns or [("user", "")]
    )


def parts_of(text: str) -> tuple[Turn, ...]:
    """The turns of a text; those without a word are left out.

    Raises NotebookError: it does not begin with a turn, or the system's is not the first.
    """
    turns: list[tuple[Role, list[str]]] = []
    for number, line in enumerate(text.split("\n"), 1):
        mark = _MARK.fullmatch(line)
        if mark and not mark[1]:
            if mark[2] == "system" and turns:
                raise NotebookError(f"line {number}: the system text stands before all turns")
            if turns and turns[-1][1][-1:] == [""]:
                turns[-1][1].pop()
            turns.append((cast("Role", mark[2]), []))
        elif turns:
            turns[-1][1].append(line.removeprefix("\\") if mark else line)
        elif line.strip():
            raise NotebookError(
                f"line {number}: a turn begins with a line === user, === assistant or === system"
            )
    parts = (Turn(role, "\n".join(lines)) for role, lines in turns)
    return tuple(part for part in parts if part.text.strip())


def rewritten(conversation: Conversation, parts: Sequence[Turn], created: float) -> Conversation:
    """The conversation with a path that says these turns, and that path current.

    What the current path says already stays as it is, with its tokens and numbers, up to the first
    turn that differs; the turns from there on are new messages, and the old ones stand beside them.
    """
    first = parts[0].text if parts and parts[0].role == "system" else ""
    system = conversation.system if sanitise(conversation.system) == first else first
    turns = [part for part in parts if part.role != "system"]
    path = _said(conversation)
    same = 0
    for part, message in zip(turns, path, strict=False):
        if (part.role, part.text) != (message.role, sanitise(message.text)):
            break
        same += 1
    leaf = path[same - 1].id if same else None
    now = replace(conversation, system=system).at(leaf)
    if turns[same:] and not now.title:
        now = replace(now, title=title_from(turns[0].text))
    for part in turns[same:]:
        now = now.with_message(
            Message(id=new_id(), parent=now.leaf, role=part.role, text=part.text, created=created)
        )
    return now


def _said(conversation: Conversation) -> list[Message]:
    """The path without what says nothing: replies that were stopped before their first token."""
    return [m for m in conversation.path() if m.text.strip()]


def _escaped(line: str) -> str:
    return "\\" + line if _MARK.fullmatch(line) else line
