"""What a conversation has that is not on disk yet, and putting it there.

A failed write loses nothing: what could not be written stays here, for the next save.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from chatapp.chat.conversation import Conversation, Message
from chatapp.chat.errors import StoreError
from chatapp.session.protocols import ChatStore


@dataclass(frozen=True, slots=True)
class SaveFailed:
    """Something could not be written; the conversation goes on in memory."""

    message: str


class Saving:
    """The messages of the current conversation that are to be written; one save at a time."""

    def __init__(self, store: ChatStore | None) -> None:
        """None keeps conversations in memory only."""
        self._store = store
        self._unsaved: dict[str, Message] = {}
        self._one_at_a_time = asyncio.Lock()

    def begin(self) -> None:
        """Another conversation is current from here on; a save under way ends with its own."""
        self._unsaved = {}

    def add(self, message: Message) -> None:
        """Write this message with the next save, in place of an older version of it."""
        self._unsaved[message.id] = message

    async def save(self, conversation: Conversation) -> SaveFailed | None:
        """Write the conversation's settings, then its messages that are not on disk yet."""
        if self._store is None:
            return None
        unsaved = self._unsaved
        try:
            async with self._one_at_a_time:
                await self._store.save_conversation(conversation)
                for message_id in tuple(unsaved):
                    message = unsaved[message_id]
                    await self._store.save_message(conversation.id, message)
                    if unsaved[message_id] is message:  # else it changed while it was written
                        del unsaved[message_id]
        except StoreError as error:
            return SaveFailed(str(error))
        return None
