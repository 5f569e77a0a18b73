"""What could not be written is owed: it is kept in memory and written as soon as it can be.

A full disk must not end a chat, nor take what was said since. The session tries again with its next
message, but it holds one conversation only: another one may be opened, or the program be left,
before the disk has room. So the store holds on to every conversation that a save failed for, tries
again whenever something else is asked of it and once more when it is closed, and hands it out as
it stands in memory until then.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from types import MappingProxyType

from chatapp.chat.conversation import Conversation, Message
from chatapp.chat.errors import StoreError
from chatapp.store.chats import CannotBeKept, Chats
from chatapp.store.rows import Loaded


class Owed:
    """Saves as `Chats` does, and remembers what it could not save."""

    def __init__(self, chats: Chats) -> None:
        self._chats = chats
        self._last: Conversation | None = None
        """The one that was saved last: `save_message` names it by its id only."""
        self._owed: dict[str, Conversation] = {}
        """By id, as they stand in memory."""
        self._written: dict[str, dict[str, Message]] = {}
        """By conversation, the messages as they were loaded or saved last; all others are owed."""

    def __len__(self) -> int:
        """How many conversations are owed."""
        return len(self._owed)

    def save_conversation(self, conversation: Conversation) -> None:
        """Save everything but the messages. Raises StoreError."""
        if self._last is None or conversation.id != self._last.id:
            self.try_to_settle()
            self._let_go_of_others(conversation.id)
        self._see(conversation)
        try:
            self._chats.save_conversation(conversation)
        except StoreError:
            self._owed[conversation.id] = conversation
            raise

    def save_message(self, conversation_id: str, message: Message) -> None:
        """Save a message of the conversation that was saved last. Raises StoreError."""
        last = self._last if self._last and self._last.id == conversation_id else None
        if last is not None:
            messages = MappingProxyType({**last.messages, message.id: message})
            last = replace(last, messages=messages)
            self._see(last)
        try:
            self._chats.save_message(conversation_id, message)
        except CannotBeKept:
            raise
        except StoreError:
            if last is not None:
                self._owed[conversation_id] = last
            raise
        self._written.setdefault(conversation_id, {})[message.id] = message

    def load(self, conversation_id: str) -> Loaded:
        """A conversation from disk, or from memory where it is owed. Raises StoreError."""
        if conversation_id in self._owed:
            return Loaded(self._owed[conversation_id])
        loaded = self._chats.load(conversation_id)
        self._let_go_of_others(self._last.id if self._last else "")
        self._written[conversation_id] = dict(loaded.conversation.messages)
        return loaded

    def forget(self, conversation_id: str) -> None:
        """A conversation was deleted: writing what is owed of it would bring it back."""
        self._owed.pop(conversation_id, None)
        if self._last is not None and self._last.id == conversation_id:
            self._last = None

    def settle(self) -> None:
        """Write everything that is owed. Raises StoreError: not all of it could be."""
        for conversation_id, conversation in tuple(self._owed.items()):
            self._chats.save_conversation(conversation)
            written = self._written.setdefault(conversation_id, {})
            for message in conversation.messages.values():
                if written.get(message.id) is not message:
                    with contextlib.suppress(CannotBeKept):  # that was said when it was saved
                        self._chats.save_message(conversation_id, message)
                    written[message.id] = message
            del self._owed[conversation_id]

    def try_to_settle(self) -> None:
        """Write what is owed, if that is possible now."""
        with contextlib.suppress(StoreError):
            self.settle()

    def _see(self, conversation: Conversation) -> None:
        self._last = conversation
        if conversation.id in self._owed:
            self._owed[conversation.id] = conversation

    def _let_go_of_others(self, conversation_id: str) -> None:
        """Keep what is known of that conversation and of those that are owed."""
        wanted = {conversation_id, *self._owed}
        self._written = {id_: known for id_, known in self._written.items() if id_ in wanted}
