"""The chats that are kept: by time, or found by what was said in them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from textual.widgets import Input

from chatapp.chat.errors import ChatappError
from chatapp.chat.summary import ConversationSummary, SearchHit
from chatapp.ui.screens.picker import Choice, PickerScreen
from chatapp.ui.services import Chats


class ChatsScreen(PickerScreen):
    """Choose a chat; gives back its id."""

    def __init__(
        self, chats: Chats, summaries: Sequence[ConversationSummary], current: str, text: str = ""
    ) -> None:
        """Show some chats; `text` is searched for at once."""
        super().__init__(
            "Chats",
            [chat_choice(summary, current) for summary in summaries],
            empty="no chat is kept yet" if not summaries else "no message or title has these words",
        )
        self._chats = chats
        self._text = text

    def on_mount(self) -> None:
        """Begin with what was asked for."""
        if self._text:
            self.query_one(Input).value = self._text

    async def matching(self, text: str) -> list[Choice]:
        """All chats, or those in which something was said."""
        if not text.strip():
            return self._choices
        try:
            return [hit_choice(hit) for hit in await self._chats.search(text)]
        except ChatappError as error:
            return [Choice("", str(error), enabled=False)]


def chat_choice(summary: ConversationSummary, current: str) -> Choice:
    """A chat as a line of the list."""
    messages = "1 message" if summary.messages == 1 else f"{summary.messages} messages"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(summary.changed))
    pinned = "pinned · " if summary.pinned else ""
    return Choice(
        summary.id,
        summary.title or summary.first_words or "untitled",
        f"{pinned}{when} · {messages} · {summary.model}",
        current=summary.id == current,
    )


def hit_choice(hit: SearchHit) -> Choice:
    """Something that was found, as a line of the list."""
    return Choice(hit.conversation_id, hit.title or "untitled", hit.snippet)
