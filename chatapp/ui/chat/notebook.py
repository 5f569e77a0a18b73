"""The chat as one text."""

from __future__ import annotations

import time

from chatapp.chat.notebook import parts_of, rewritten, text_of
from chatapp.ui.actions import CommandError, action
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.chat.conversations import Conversations
from chatapp.ui.dialogs.notebook import NotebookScreen
from chatapp.ui.widgets.notices import Notices


class Notebook:
    """Changes the conversation through its text, and has the model go on from there."""

    def __init__(self, chat: ChatBase, conversations: Conversations) -> None:
        self._chat = chat
        self._conversations = conversations

    @action("notebook")
    def open(self, _: str = "") -> None:
        """The whole chat as one text: edit it anywhere, and go on from there."""
        screen = NotebookScreen(
            lambda: text_of(self._chat.session.conversation),
            lambda: self._chat.turns.busy,
            self._keep,
            self._go_on,
            self._chat.turns.cancel,
            lambda: self._chat.query_one(Notices).words,
            vim=self._chat.prompt.vim,
        )
        self._chat.app.push_screen(screen)

    async def _keep(self, text: str) -> None:
        parts = parts_of(text)
        await self._conversations.change(lambda now: rewritten(now, parts, time.time()))

    async def _go_on(self, text: str) -> None:
        """Answer the last turn where it is the user's; else write it on."""
        session, parts = self._chat.session, parts_of(text)
        if not any(part.role != "system" for part in parts):
            raise CommandError("there is nothing to go on from; write under a line === user")
        open_reply = parts[-1].text if parts[-1].role == "assistant" else ""
        before, said = session.conversation, parts[:-1] if open_reply else parts
        after = rewritten(before, said, time.time())
        # Where the path is only shorter, it stays as it is until there is something to follow.
        if after.messages is not before.messages or after.system != before.system:
            await self._conversations.change(lambda _: after)
        self._chat.query_one(Notices).clear()
        self._chat.turns.start(session.reply_from(after.leaf, open_reply))
