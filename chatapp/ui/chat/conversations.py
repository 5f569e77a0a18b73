"""Conversations: begun, opened, changed. Whatever streams is stopped and saved first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from chatapp.chat.conversation import Conversation, Message
from chatapp.chat.errors import ChatappError, StoreError
from chatapp.chat.template import Template, parse_template, template_text
from chatapp.store.store import Store
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.services import Services

_NOT_KEPT = "conversations are not kept in this session"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the user wants to go."""

    conversation_id: str
    message_id: str | None = None
    """The message in which something was found; None for the end of the chat."""
    words: str = ""
    """What was found there."""


class Conversations:
    """Changes which conversation, and which path of it, is current."""

    def __init__(self, services: Services, chat: ChatBase) -> None:
        self._services = services
        self._session = services.session
        self._chat = chat
        self.template = services.template
        self.templates = dict(services.templates)
        """By name; those that were saved since the start too."""

    @property
    def chats(self) -> Store:
        """All that are kept. Raises StoreError where none are."""
        if self._services.chats is None:
            raise StoreError(_NOT_KEPT)
        return self._services.chats

    async def begin(self, template: Template | None = None) -> None:
        """Begin an empty conversation from a template, the last one by default.

        Raises ChatappError: the template's settings cannot be had; nothing is changed.
        """
        sampling = self._services.sampling_for(template) if template is not None else None
        await self._chat.turns.stop()
        if template is not None and sampling is not None:
            self.template = template
            self._session.set_sampling(sampling)
        self._session.new_conversation(self.template)
        self._chat.conversation_changed()

    async def begin_alike(self) -> None:
        """Begin an empty conversation with the settings of the present one."""
        await self._chat.turns.stop()
        before = self._session.conversation
        self._session.new_conversation(self.template)
        self._session.conversation = replace(
            self._session.conversation,
            template=before.template,
            system=before.system,
            format=before.format,
            stop=before.stop,
            think=before.think,
        )
        self._chat.conversation_changed()

    async def open(self, conversation_id: str) -> None:
        """Make a kept conversation the current one. Raises StoreError."""
        while True:
            await self._chat.turns.stop()
            before = self._session.conversation
            loaded = await self._session.load(conversation_id)
            if not self._chat.turns.busy and self._session.conversation is before:
                break  # else something was said while it was read
        self._session.take(loaded)
        self._chat.conversation_changed()
        await self.say_model()

    async def say_model(self) -> None:
        """Say which model wrote the current path, where it is not the one that is loaded."""
        facts = self._session.facts
        replies = [message.reply for message in self._session.conversation.path()]
        written = next((reply for reply in reversed(replies) if reply is not None), None)
        if facts is None or written is None:
            return
        if (written.model_sha256 or written.model) in (facts.sha256, facts.name):
            return
        try:
            choices = await self._services.models.choices()
        except ChatappError:
            choices = ()
        refs = [choice.ref for choice in choices if choice.name == written.model]
        here = [choice.ref for choice in choices if choice.ref in refs and choice.installed]
        if here:
            what = f"/model {here[0]} loads it"
        elif refs:
            what = f"it is not on this machine, /model {refs[0]} fetches it"
        else:
            what = "it is not on this machine"
        self._chat.say(
            f"{written.model} wrote these replies; {what}. They can be read, and {facts.name}"
            " answers what you write"
        )

    async def go_to(self, place: Place) -> None:
        """Open a chat where something was found. Raises StoreError."""
        if place.conversation_id != self.current or place.message_id is None:
            await self.open(place.conversation_id)
        conversation = self._session.conversation
        message_id = place.message_id
        if message_id is None or message_id not in conversation.messages:
            return
        await self.move_to(message_id, ends_there=False)
        self._chat.point_at(message_id, place.words)

    async def change(self, changed: Callable[[Conversation], Conversation]) -> None:
        """Change the current conversation, when what streams has stopped and is in it."""
        await self._chat.turns.stop()
        await self.keep(changed)

    async def keep(self, changed: Callable[[Conversation], Conversation]) -> None:
        """Change the current conversation and save it; a reply under way goes on."""
        try:
            failed = await self._session.change(changed(self._session.conversation))
        finally:  # it is changed, though whoever wanted it may not be waiting any more
            self._chat.conversation_changed()
        self._chat.say_unsaved(failed)

    async def move_beside(self, message: Message, steps: int) -> str | None:
        """Go to the sibling before or after a message. Returns its id; None where there is none."""
        conversation = self._session.conversation
        target = conversation.beside(message.id, steps)
        if target is not None:
            await self.change(lambda now: now.at(now.deepest(target)))
        return target

    async def move_to(self, message_id: str, *, ends_there: bool) -> Message:
        """Make a path through a message current; its newest end, unless it ends right there.

        Raises ConversationError: there is no such message, or it is deleted.
        """
        conversation = self._session.conversation
        on_path = any(message.id == message_id for message in conversation.path())
        if ends_there:
            await self.change(lambda now: now.at(message_id))
        elif not on_path:
            await self.change(lambda now: now.at(now.deepest(message_id)))
        return conversation.messages[message_id]

    async def save_template(self, name: str) -> Path:
        """Keep the texts and the sampling of the present chat as a template. Raises ChatappError.

        What begins its chats (description, first message) is that of the chat's own template.
        """
        now, sampling = self._session.conversation, self._session.sampling
        origin = self.templates.get(now.template, Template(name))
        template = replace(origin, name=name, system=now.system, format=now.format, stop=now.stop)
        file = await asyncio.to_thread(self._services.save_template, template, sampling)
        self.templates[name] = parse_template(name, template_text(template, sampling))
        return file

    async def set_format(self, name: str) -> None:
        """Change the prompt format, from the next reply on. Raises ChatappError."""
        if name not in self._services.formats:
            allowed = ", ".join(self._services.formats)
            raise ChatappError(f"no format is called {name!r}; there are {allowed}")
        await self.keep(lambda now: replace(now, format=name))

    async def bring_in(self, path: Path) -> None:
        """Read a conversation from a file and open it. Raises ChatappError."""
        if self._services.import_chat is None:
            raise ChatappError(_NOT_KEPT)
        await self.open(await self._services.import_chat(path))

    # Any of the chats that are kept

    @property
    def current(self) -> str:
        return self._session.conversation.id

    async def rename_chat(self, conversation_id: str, title: str) -> None:
        """Give a chat another title. Raises StoreError."""
        if conversation_id == self.current:
            await self.keep(lambda now: replace(now, title=title))
        else:
            await self.chats.rename(conversation_id, title)

    async def export_chat(self, conversation_id: str, path: Path) -> None:
        """Write a chat to a file that is not there yet. Raises ChatappError."""
        open_now = conversation_id == self.current
        conversation = (
            self._session.conversation if open_now else await self.chats.load(conversation_id)
        )
        if self._services.export_chat is None:
            raise ChatappError("exporting is not available in this session")
        if await asyncio.to_thread(path.exists):
            raise ChatappError(f"{path} is there already; give the file another name")
        await self._services.export_chat(conversation, path)

    async def delete_chat(self, conversation_id: str) -> None:
        """Put a chat aside; where it is the open one, an empty one takes its place."""
        if conversation_id == self.current:
            await self.begin()  # first, since what still streams would bring it back
        await self.chats.delete(conversation_id)

    async def undelete_chat(self) -> str | None:
        """Bring back the chat that was deleted last. Returns its title; None where there is none.

        This holds for a chat that was deleted in another session too.
        """
        deleted = await self.chats.list_conversations(deleted=True)
        if not deleted:
            return None
        await self.chats.undelete(deleted[0].id)
        return deleted[0].title or deleted[0].first_words
