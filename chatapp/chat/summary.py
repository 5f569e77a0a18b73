"""Conversations as a list shows them, without their messages."""

from __future__ import annotations

from dataclasses import dataclass

from chatapp.chat.prompt import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationSummary:
    """One line of the list of chats."""

    id: str
    title: str
    created: float
    """Seconds since the epoch, UTC, as all times here."""
    changed: float
    model: str
    messages: int
    """How many there are in the whole tree."""
    pinned: bool
    first_words: str
    """The beginning of the user's first message, on one line."""
    deleted: float | None = None
    """When it was deleted; None while it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHit:
    """A message, or a title, that holds what was searched for."""

    conversation_id: str
    title: str
    message_id: str | None
    """None where the title was found."""
    role: Role | None
    created: float
    snippet: str
    """The surroundings of the hit, on one line."""
    marks: tuple[tuple[int, int], ...]
    """Which stretches of the snippet were found: first and past-the-last character of each."""
