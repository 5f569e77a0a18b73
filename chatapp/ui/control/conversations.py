"""Conversations: begun, opened, changed. Whatever streams is stopped and saved first."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from chatapp.chat.conversation import Conversation, Message
from chatapp.chat.errors import ChatappError, StoreError
from chatapp.chat.template import Template
from chatapp.ui.control.turns import Turns
from chatapp.ui.services import Chats, Services

_NOT_KEPT = "conversations are not kept in this session"


class ConversationView(Protocol):
    """Where the conversation is shown."""

    def conversation_changed(self) -> None:
        """Another path, another conversation, or another wording is current."""

    def say_error(self, words: str) -> None:
        """Something failed."""


class ConversationControl:
    """Changes which conversation, and which path of it, is current."""

    def __init__(self, services: Services, turns: Turns, view: ConversationView) -> None:
        self._services = services
        self._session = services.session
        self._turns = turns
        self._view = view
        self.template = services.template

    @property
    def chats(self) -> Chats:
        """All that are kept. Raises StoreError where none are."""
        if self._services.chats is None:
            raise StoreError(_NOT_KEPT)
        return self._services.chats

    async def begin(self, template: Template | None = None) -> None:
        """Begin an empty conversation from a template, the last one by default."""
        await self._turns.stop()
        if template is not None:
            self.template = template
            self._session.set_sampling(self._session.sampling.with_values(template.sampling))
        self._session.new_conversation(self.template)
        self._view.conversation_changed()

    async def begin_alike(self) -> None:
        """Begin an empty conversation with the settings of the present one."""
        await self._turns.stop()
        before = self._session.conversation
        self._session.new_conversation(self.template)
        self._session.conversation = replace(
            self._session.conversation,
            template=before.template,
            system=before.system,
            format=before.format,
            stop=before.stop,
        )
        self._view.conversation_changed()

    async def open(self, conversation_id: str) -> None:
        """Make a kept conversation the current one. Raises StoreError."""
        await self._turns.stop()
        await self._session.open(conversation_id)
        self._view.conversation_changed()

    async def change(self, conversation: Conversation) -> None:
        """Take a changed version of the current conversation."""
        await self._turns.stop()
        if failed := await self._session.change(conversation):
            self._view.say_error(f"not saved: {failed.message}; the chat goes on in memory")
        self._view.conversation_changed()

    async def move_beside(self, message: Message, steps: int) -> bool:
        """Go to the sibling before or after a message. Returns whether there is one."""
        conversation = self._session.conversation
        target = conversation.beside(message.id, steps)
        if target is None:
            return False
        await self.change(conversation.at(conversation.deepest(target)))
        return True

    async def edit(self, message: Message, text: str) -> None:
        """Put another wording beside a message; what followed stays below the old one."""
        await self._turns.stop()
        await self.change(self._session.conversation.edit(message.id, text, created=time.time()))

    async def delete(self, message: Message) -> None:
        """Hide a message and what follows it."""
        await self._turns.stop()
        await self.change(self._session.conversation.delete(message.id, when=time.time()))

    async def undelete(self) -> bool:
        """Bring back what was deleted last. Returns whether there was anything."""
        deleted = self._session.conversation.last_deleted()
        if deleted is None:
            return False
        await self.change(self._session.conversation.restore(deleted))
        return True

    async def rename(self, title: str) -> None:
        """Give the conversation another title."""
        await self.change(replace(self._session.conversation, title=title))

    async def set_system(self, text: str) -> None:
        """Change the system text, from the next reply on."""
        await self.change(replace(self._session.conversation, system=text))

    async def export(self, path: Path) -> None:
        """Write the conversation to a file. Raises ChatappError."""
        if self._services.export_chat is None:
            raise ChatappError("exporting is not available in this session")
        await self._services.export_chat(self._session.conversation, path)

    async def bring_in(self, path: Path) -> None:
        """Read a conversation from a file and open it. Raises ChatappError."""
        if self._services.import_chat is None:
            raise ChatappError(_NOT_KEPT)
        await self.open(await self._services.import_chat(path))
