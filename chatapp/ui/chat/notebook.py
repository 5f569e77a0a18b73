"""The whole text of a chat as one page: edited anywhere, and the model goes on from there.

A page is a chat in the format `raw`, which writes its messages one after the other and nothing
between them. What the model wrote and nobody changed keeps its tokens; what is edited becomes a
branch, so that the page before it is still in the tree.
"""

from __future__ import annotations

from dataclasses import replace

from chatapp.chat.conversation import Message
from chatapp.chat.template import NO_TEMPLATE
from chatapp.ui.actions import action
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.chat.conversations import Conversations
from chatapp.ui.chat.models import Models
from chatapp.ui.chat.turns import BUSY, Turns
from chatapp.ui.dialogs.write import WriteScreen

_RAW, _TRANSCRIPT = "raw", "transcript"
_STOP = ("\n\nUser:", "\nUser:")
"""What ends a reply on a page that began as a chat: the user's next line."""


class Notebook:
    """Shows the page, and has the model go on."""

    def __init__(
        self, chat: ChatBase, turns: Turns, models: Models, conversations: Conversations
    ) -> None:
        self._chat = chat
        self._session = chat.session
        self._turns = turns
        self._models = models
        self._conversations = conversations

    @action(
        "notebook",
        "The whole text as one page: edit it anywhere, and the model goes on.",
    )
    def notebook(self, _: str = "") -> None:
        """Of a chat that is no page yet, its plain transcript, on a new page."""
        if self._turns.busy:
            self._chat.say(BUSY, "warning")
        else:
            self._models.when_ready(self._open)

    async def _open(self) -> None:
        conversation = self._session.conversation
        page = conversation.format == _RAW
        if page or not conversation.path():
            text = "".join(message.text for message in conversation.path())
        else:
            asked = replace(conversation, format=_TRANSCRIPT)
            prompt = self._session.prompt_for(conversation.leaf, of=asked)
            turns = tuple(replace(turn, ids=None) for turn in prompt.turns)
            text = (await self._session.engine.render(replace(prompt, turns=turns))).text
        screen = WriteScreen("The whole text", text, "the model goes on", unchanged=True)
        written = await self._chat.app.push_screen_wait(screen)
        if written is not None and self._session.conversation.id == conversation.id:
            await self._go_on(written, page=page)

    async def _go_on(self, text: str, *, page: bool) -> None:
        if not page:
            await self._conversations.begin_alike()
            now = replace(self._session.conversation, template=NO_TEMPLATE.name, system="")
            self._session.conversation = replace(now, format=_RAW, stop=_STOP)
            self._chat.conversation_changed()
            self._turns.start(self._session.send(text), sends=True)
            return
        kept: list[Message] = []
        rest = text
        for message in self._session.conversation.path():
            if not rest.startswith(message.text):
                break
            kept.append(message)
            rest = rest.removeprefix(message.text)
        leaf = kept[-1] if kept else None
        await self._conversations.change(lambda now: now.at(leaf.id if leaf else None))
        if rest:
            self._turns.start(self._session.send(rest), sends=True)
        elif leaf is not None and leaf.role == "assistant":
            self._turns.start(self._session.continue_reply(leaf.id))
        else:
            self._turns.start(self._session.regenerate())
