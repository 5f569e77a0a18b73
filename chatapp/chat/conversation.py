"""A conversation: a tree of messages, one path of it current.

Nothing is ever overwritten. An edit, another reply or a branch at a token is a new message beside
the old one (a sibling); the conversation remembers which leaf is current. Deleting hides a message
and all below it until it is restored. Values are immutable: every change returns a new
`Conversation`.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from chatapp.chat.errors import ChatappError
from chatapp.chat.prompt import Role
from chatapp.chat.record import FinishReason, SamplingSpan, TokenRecord
from chatapp.chat.thinking import Thinking

_NO_MESSAGES: Mapping[str, Message] = MappingProxyType({})


class ConversationError(ChatappError, ValueError):
    """A change that the tree cannot take; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How an assistant's message came to be."""

    model: str
    """The model's name; with `model_sha256` it says whose ids these are."""
    model_sha256: str = ""
    runtime: str = ""
    """What ran the model, llama.cpp or transformers; empty where that isn't known."""
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
    thinking: Thinking | None = None
    """How far the thinking at its start goes; None where there is none."""

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids the model wrote, end token included."""
        return tuple(record.id for record in self.records)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """ln p of each token under the model alone."""
        return tuple(record.logprob for record in self.records)

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
    """For what a model wrote; None for what a user wrote or edited."""
    deleted: float | None = None
    """When it was deleted, and all below it with it; None while it stands."""


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
    think: bool | None = None
    """Whether the model is to think before it answers; None leaves it to its template."""
    messages: Mapping[str, Message] = field(default_factory=lambda: _NO_MESSAGES)
    """By id, in the order they were made."""
    leaf: str | None = None
    """The last message of the current path; None before the first message."""

    def path(self) -> tuple[Message, ...]:
        return self.path_to(self.leaf)

    def path_to(self, message_id: str | None) -> tuple[Message, ...]:
        found: list[Message] = []
        while message_id is not None:
            message = self._find(message_id)
            found.append(message)
            message_id = message.parent
        return tuple(reversed(found))

    def children(self, message_id: str | None) -> tuple[Message, ...]:
        """What follows a message (or stands first, for None), oldest first, without the deleted."""
        return tuple(_children(self.messages).get(message_id, ()))

    def siblings(self, message_id: str) -> tuple[Message, ...]:
        """The message and what stands beside it, oldest first, without the deleted."""
        return self.children(self._find(message_id).parent)

    def beside(self, message_id: str, steps: int) -> str | None:
        """The sibling that many steps away (−1 the one before); None past either end."""
        ids = [message.id for message in self.siblings(message_id)]
        if message_id not in ids:
            return None
        place = ids.index(message_id) + steps
        return ids[place] if 0 <= place < len(ids) else None

    def visible(self, message_id: str | None) -> bool:
        """Whether neither the message nor one above it is deleted."""
        return all(message.deleted is None for message in self.path_to(message_id))

    def branch_points(self) -> tuple[Message, ...]:
        """The messages of the current path that have siblings, first one first."""
        below = _children(self.messages)
        return tuple(message for message in self.path() if len(below[message.parent]) > 1)

    def leaves(self) -> tuple[str, ...]:
        """The last message of every path that is not deleted, oldest first."""
        below = _children(self.messages)
        found: set[str] = set()
        waiting = list(below.get(None, ()))
        while waiting:
            message = waiting.pop()
            if following := below.get(message.id):
                waiting.extend(following)
            else:
                found.add(message.id)
        return tuple(message_id for message_id in self.messages if message_id in found)

    def with_message(self, message: Message) -> Conversation:
        """Add a message (or replace the one of its id) and make it the current leaf.

        A message that was deleted meanwhile stays deleted, and the leaf stays where it is. Raises
        ConversationError: its parent is not here, or is deleted.
        """
        if message.parent is not None and message.parent not in self.messages:
            raise ConversationError(f"message {message.id} follows {message.parent}, not here")
        before = self.messages.get(message.id)
        if before is not None:
            if before.parent != message.parent:
                raise ConversationError(f"message {message.id} cannot move below another one")
            if before.deleted is not None and message.deleted is None:
                message = replace(message, deleted=before.deleted)
        hidden = message.deleted is not None or not self.visible(message.parent)
        if before is None and hidden:
            raise ConversationError(f"message {message.id} would follow a deleted one")
        changed = self._changed(message)
        return changed if hidden else replace(changed, leaf=message.id)

    def at(self, message_id: str | None) -> Conversation:
        """Make that message the current leaf. Raises ConversationError."""
        if message_id is not None:
            self._find(message_id)
            if not self.visible(message_id):
                raise ConversationError(f"message {message_id} is deleted; restore it first")
        return replace(self, leaf=message_id)

    def deepest(self, message_id: str) -> str:
        """The newest leaf below a message: where moving to a sibling leads."""
        below = _children(self.messages)
        while following := below.get(message_id):
            message_id = following[-1].id
        return message_id

    def edit(self, message_id: str, text: str, *, created: float) -> Conversation:
        """Put another wording beside a message and stand on it; what followed stays below the old.

        `text`: the new wording. It has no token records: no model wrote it. Raises
        ConversationError: there is no such message, or it is deleted.
        """
        old = self._find(message_id)
        edited = Message(id=new_id(), parent=old.parent, role=old.role, text=text, created=created)
        return self.with_message(edited)

    def delete(self, message_id: str, *, when: float) -> Conversation:
        """Hide a message and all below it, until it is restored.

        Where the current path went through it, the path goes on through the sibling before it (or
        else after it), or ends at its parent. Raises ConversationError: there is no such message,
        or it is deleted already.
        """
        message = self._find(message_id)
        if message.deleted is not None:
            raise ConversationError(f"message {message_id} is deleted already")
        on_path = any(passed.id == message_id for passed in self.path())
        neighbour = self.beside(message_id, -1) or self.beside(message_id, 1)
        changed = self._changed(replace(message, deleted=when))
        if not on_path:
            return changed
        leaf = changed.deepest(neighbour) if neighbour else message.parent
        return replace(changed, leaf=leaf)

    def restore(self, message_id: str) -> Conversation:
        """Bring a deleted message back, with what hid it above, and stand on its newest leaf.

        Raises ConversationError: there is no such message, or nothing hides it.
        """
        self._find(message_id)
        hiding = [message for message in self.path_to(message_id) if message.deleted is not None]
        if not hiding:
            raise ConversationError(f"message {message_id} is not deleted")
        changed = self
        for message in hiding:
            changed = changed._changed(replace(message, deleted=None))
        return replace(changed, leaf=changed.deepest(message_id))

    def last_deleted(self) -> str | None:
        """The message whose deletion an undo takes back first; None when none is deleted."""
        deleted = [
            (message.deleted, place, message.id)
            for place, message in enumerate(self.messages.values())
            if message.deleted is not None
        ]
        return max(deleted)[2] if deleted else None

    def most_likely(self) -> str | None:
        """The leaf of the path with the highest mean logprob over its replies' tokens.

        None when no reply has tokens. The newest one wins among equals.
        """
        means = self.mean_logprobs()
        return max(reversed(means), key=means.__getitem__, default=None)

    def least_likely(self) -> str | None:
        """The leaf of the path with the lowest mean logprob over its replies' tokens."""
        means = self.mean_logprobs()
        return min(reversed(means), key=means.__getitem__, default=None)

    def mean_logprobs(self) -> dict[str, float]:
        """For each leaf, the mean of ln p over all tokens that models wrote on its path.

        Paths without such tokens are left out.
        """
        totals: dict[str | None, tuple[float, int]] = {None: (0.0, 0)}
        for message in self.messages.values():  # parents come before their children
            total, count = totals[message.parent]
            logprobs = message.reply.logprobs if message.reply else ()
            totals[message.id] = (total + math.fsum(logprobs), count + len(logprobs))
        return {
            leaf: totals[leaf][0] / totals[leaf][1] for leaf in self.leaves() if totals[leaf][1]
        }

    def check(self) -> None:
        """Make sure that the tree is one, and that the current path can be shown.

        Raises ConversationError: a message stands under another's id or before its parent, or the
        leaf is missing or deleted.
        """
        seen: set[str] = set()
        for message_id, message in self.messages.items():
            if message.id != message_id:
                raise ConversationError(f"message {message.id} stands under the id {message_id}")
            if message.parent is not None and message.parent not in seen:
                raise ConversationError(f"message {message_id} comes before its parent")
            seen.add(message_id)
        if self.leaf is not None and self.leaf not in seen:
            raise ConversationError(f"the current message {self.leaf} is missing")
        if not self.visible(self.leaf):
            raise ConversationError(f"the current message {self.leaf} is deleted")

    def _find(self, message_id: str) -> Message:
        if message_id not in self.messages:
            raise ConversationError(f"there is no message {message_id} in this chat any more")
        return self.messages[message_id]

    def _changed(self, message: Message) -> Conversation:
        """A copy with that message in place of the one of its id; the leaf stays."""
        messages = MappingProxyType({**self.messages, message.id: message})
        return replace(self, messages=messages)


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


@dataclass(frozen=True, slots=True)
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


def _children(messages: Mapping[str, Message]) -> dict[str | None, list[Message]]:
    """By parent, what follows and is not deleted, oldest first."""
    below: dict[str | None, list[Message]] = {}
    for message in messages.values():
        if message.deleted is None:
            below.setdefault(message.parent, []).append(message)
    return below


def new_id() -> str:
    """An id no other message or conversation has."""
    return uuid.uuid4().hex


def title_from(text: str, length: int = 48) -> str:
    """A title out of the first words of the first message, on one line."""
    words = " ".join(text.split())
    if len(words) <= length:
        return words
    return words[:length].rsplit(" ", 1)[0].rstrip(",.;:") + "…"
