"""A conversation: a tree of messages, one path of it current.

Nothing is ever overwritten. An edit, another reply or a branch at a token is a new message beside
the old one (a sibling); the conversation remembers which leaf is current. Values are immutable:
every change returns a new `Conversation`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from chatapp.chat.errors import ChatappError
from chatapp.chat.prompt import Role
from chatapp.chat.record import FinishReason, SamplingSpan, TokenRecord

_NO_MESSAGES: Mapping[str, Message] = MappingProxyType({})


class ConversationError(ChatappError, ValueError):
    """A change that the tree cannot take; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How an assistant's message came to be."""

    model: str
    """The model's name; with `model_sha256` it says whose ids these are."""
    model_sha256: str = ""
    seed: int
    prompt_ids: tuple[int, ...] = ()
    """Exactly what the model read before this reply."""
    cached_tokens: int = 0
    """How many of them the KV cache held already."""
    records: tuple[TokenRecord, ...] = ()
    sampling: tuple[SamplingSpan, ...] = ()
    finish_reason: FinishReason | None = None
    """None while it streams, or when the program died in the middle of it."""
    error: str = ""
    seconds: float = 0.0
    """Decoding alone, from the first token to the last."""
    time_to_first_token: float = 0.0

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids the model wrote, end token included."""
        return tuple(record.id for record in self.records)

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed over the tokens after the first; 0 when there were fewer than two."""
        steps = len(self.records) - 1
        return steps / self.seconds if steps > 0 and self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of the tree."""

    id: str
    parent: str | None
    """The message before it; None for the first ones."""
    role: Role
    text: str
    created: float
    """Seconds since the epoch, UTC."""
    reply: Reply | None = None
    """For what a model wrote; None for what a person wrote or edited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The tree, its settings, and which path through it is current."""

    id: str
    created: float
    title: str = ""
    template: str = "none"
    system: str = ""
    format: str = "auto"
    stop: tuple[str, ...] = ()
    model: str = ""
    messages: Mapping[str, Message] = field(default_factory=lambda: _NO_MESSAGES)
    """By id, in the order they were made."""
    leaf: str | None = None
    """The last message of the current path; None before the first message."""

    def path(self) -> tuple[Message, ...]:
        """The current path, first message first."""
        return self.path_to(self.leaf)

    def path_to(self, message_id: str | None) -> tuple[Message, ...]:
        """The messages from the first one to that one."""
        found: list[Message] = []
        while message_id is not None:
            message = self.messages[message_id]
            found.append(message)
            message_id = message.parent
        return tuple(reversed(found))

    def children(self, message_id: str | None) -> tuple[Message, ...]:
        """What follows a message (or stands first, for None), oldest first."""
        return tuple(m for m in self.messages.values() if m.parent == message_id)

    def siblings(self, message_id: str) -> tuple[Message, ...]:
        """The message and what stands beside it, oldest first."""
        return self.children(self.messages[message_id].parent)

    def with_message(self, message: Message) -> Conversation:
        """Add a message (or replace the one of its id) and make it the current leaf.

        Raises:
            ConversationError: its parent is not here.
        """
        if message.parent is not None and message.parent not in self.messages:
            raise ConversationError(f"message {message.id} follows {message.parent}, not here")
        messages = MappingProxyType({**self.messages, message.id: message})
        return replace(self, messages=messages, leaf=message.id)

    def at(self, message_id: str | None) -> Conversation:
        """Make that message the current leaf.

        Raises:
            ConversationError: it is not here.
        """
        if message_id is not None and message_id not in self.messages:
            raise ConversationError(f"there is no message {message_id} in this conversation")
        return replace(self, leaf=message_id)

    def deepest(self, message_id: str) -> str:
        """The newest leaf below a message: where moving to a sibling leads."""
        while below := self.children(message_id):
            message_id = below[-1].id
        return message_id


def new_id() -> str:
    """An id no other message or conversation has."""
    return uuid.uuid4().hex


def title_from(text: str, length: int = 48) -> str:
    """A title out of the first words of the first message, on one line."""
    words = " ".join(text.split())
    if len(words) <= length:
        return words
    return words[:length].rsplit(" ", 1)[0].rstrip(",.;:") + "…"
