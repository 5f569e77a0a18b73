"""What is done with whole messages: send, write again, go on, edit, copy, delete, go elsewhere.

The notebook does it with all of them, as one text.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from chatapp.chat.conversation import Message
from chatapp.chat.errors import ChatappError
from chatapp.chat.notebook import parts_of, rewritten, text_of
from chatapp.chat.text import sanitise
from chatapp.chat.thinking import answer_in
from chatapp.ui.actions import CommandError, action, read_line
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.chat.conversations import Conversations
from chatapp.ui.chat.turns import BUSY
from chatapp.ui.dialogs.notebook import NotebookScreen
from chatapp.ui.dialogs.tree import TreeMove, TreeScreen
from chatapp.ui.dialogs.write import WriteScreen
from chatapp.ui.drawing import MUTED, renew
from chatapp.ui.layout.markdown import code_blocks
from chatapp.ui.layout.message import SystemBlock
from chatapp.ui.widgets.notices import Notices


class Messages:
    """Acts on the message pointed at, or on the last one."""

    def __init__(self, chat: ChatBase, conversations: Conversations) -> None:
        self._chat = chat
        self._session = chat.session
        self._conversations = conversations
        self._waiting: list[str] = []
        """Messages that are sent one by one, each when the reply before it has ended."""

    def send(self, text: str) -> None:
        """Say something and stream the reply; while another one streams, the message waits."""
        if self._chat.turns.busy:
            self._waiting.append(text)
            self._show_waiting()
        else:
            self._chat.turns.start(self._session.send(text), sends=True)

    def turn_ended(self, *, well: bool) -> None:
        """Send what waits; where the reply was stopped or failed it goes back into the prompt."""
        if well and self._waiting:
            self._chat.turns.start(self._session.send(self._waiting.pop(0)), sends=True)
            self._show_waiting()
        else:
            self._back_to_prompt()

    async def keep_waiting(self) -> None:
        """The program ends: what waits stands in the chat, unanswered."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            await self._session.keep("\n\n".join(waiting))

    @action("unsend", keys="alt+up", key_id="chat.unsend")
    def unsend(self, _: str = "") -> None:
        """Take back the messages that wait for the reply to end."""
        if not self._waiting:
            self._chat.say("no message waits to be sent")
        self._back_to_prompt()

    def _back_to_prompt(self) -> None:
        if not self._waiting:
            return
        texts, self._waiting = self._waiting, []
        if (draft := self._chat.prompt.text) and read_line(draft) is None:
            texts.append(draft)
        self._chat.prompt.take("\n\n".join(texts))
        self._show_waiting()

    def _show_waiting(self) -> None:
        rows = [
            Content.styled(f"waits: {' '.join(sanitise(text).split())}", MUTED)
            for text in self._waiting
        ]
        if rows:
            rows[-1] += Content.styled("  alt+↑ takes it back", MUTED)
        line = self._chat.query_one("#waiting", Static)
        line.display = bool(rows)
        renew(line, Content("\n").join(rows))

    def branch(self, message_id: str, index: int, token_ids: Sequence[int]) -> None:
        """Take other tokens at a point of a reply and go on from there."""
        if not self._busy():
            self._chat.turns.start(self._session.branch(message_id, index, token_ids))

    @action("stop")
    def stop(self, _: str = "") -> None:
        """Stop the reply; what came is kept."""
        if self._chat.turns.busy:
            self._chat.turns.cancel()
        else:
            self._chat.say("no reply is under way", "warning")

    @action("regen", keys="ctrl+r", key_id="chat.regenerate")
    def regenerate(self, _: str = "") -> None:
        """Write another reply; the old one is kept beside it."""
        message = self._pointed()
        if message is not None and not self._busy():
            self._chat.turns.start(self._session.regenerate(message.id))

    @action("continue")
    def continue_reply(self, _: str = "") -> None:
        """Go on from the exact end of a reply that was cut."""
        message = self._pointed()
        if message is None or self._busy():
            return
        if message.role != "assistant":
            self._chat.say("only a reply can be continued; Ctrl+R writes one", "warning")
            return
        self._chat.turns.start(self._session.continue_reply(message.id))

    @action("edit")
    def edit(self, _: str = "") -> None:
        """Write the message pointed at anew; the old one is kept."""
        block = self._chat.transcript.current
        if isinstance(block, SystemBlock):
            self._chat.prompt.take(f"/system {block.message.text}")
            self._chat.prompt.focus()
            return
        message = self._pointed()
        if message is None or self._busy():
            return
        mine = message.role == "user"
        what = "sends it in place of the old one" if mine else "keeps it beside the old one"

        async def take(text: str | None) -> None:
            if text is None:
                return
            try:
                await self._conversations.change(
                    lambda now: now.edit(message.id, text, created=time.time())
                )
            except ChatappError as error:  # another chat may be open by now
                self._chat.say(f"not kept: {error}", "warning")
                return
            if mine:
                self.regenerate()
            else:
                self._chat.say(
                    "kept beside the old one, without token numbers since no model wrote it; [ goes"
                    " back"
                )

        screen = WriteScreen("Edit this message", message.text, what, vim=self._chat.prompt.vim)
        self._chat.app.push_screen(screen, take)

    @action("previous")
    async def previous(self, _: str = "") -> None:
        """Go to the reply or wording before this one."""
        await self._sibling(-1)

    @action("next")
    async def next(self, _: str = "") -> None:
        """Go to the reply or wording after this one."""
        await self._sibling(1)

    async def _sibling(self, steps: int) -> None:
        message = self._pointed()
        if message is None:
            return
        if len(self._session.conversation.siblings(message.id)) < 2:
            # The nearest message above that has another version beside it.
            points = self._session.conversation.branch_points()
            if not points:
                self._chat.say("there is nothing beside this message; Ctrl+R writes another reply")
                return
            message = points[-1]
        pointing = self._chat.transcript.cursor is not None
        target = await self._conversations.move_beside(message, steps)
        if target is None:
            self._chat.say("there is no other one on that side")
            return
        if pointing:
            self._chat.point_at(target)
        beside = [sibling.id for sibling in self._session.conversation.siblings(target)]
        place = f"{beside.index(target) + 1} of {len(beside)}"
        self._chat.say(f"{place}; [ and ] go on, F4 shows the tree")

    @action("delete")
    async def delete(self, _: str = "") -> None:
        """Delete the message pointed at, with what follows."""
        message = self._pointed()
        if message is not None and not self._busy():
            await self._conversations.change(lambda now: now.delete(message.id, when=time.time()))
            self._chat.say("deleted, with what followed; u brings it back")

    @action("undo")
    async def undo(self, _: str = "") -> None:
        """Bring back the message that was deleted last."""
        if not self._busy():
            deleted = self._session.conversation.last_deleted()
            if deleted is None:
                self._chat.say("nothing is deleted in this chat")
                return
            await self._conversations.change(lambda now: now.restore(deleted))
            self._chat.say("it is back, with what followed")

    @action("fold")
    def fold(self, _: str = "") -> None:
        """Open or fold what the model thought before it answered."""
        if not self._chat.transcript.fold():
            self._chat.say("there is no thinking in this message")

    @action("copy", usage="[WHAT]", takes=("message", "code", "all"))
    def copy(self, what: str = "") -> None:
        """Copy a message, its code, or all."""
        block = self._chat.transcript.current
        if what == "all":
            path = self._session.conversation.path()
            texts = [f"{'You' if m.role == 'user' else 'Assistant'}:\n{m.text}" for m in path]
            self._chat.copy("\n\n".join(texts), "the conversation")
        elif what != "code" and isinstance(block, SystemBlock):
            self._chat.copy(block.message.text, "the system text")
        elif (message := self._pointed()) is None:
            return
        elif what != "code":
            thinking = message.reply.thinking if message.reply is not None else None
            self._chat.copy(answer_in(message.text, thinking), "the message")
        elif blocks := code_blocks(message.text):
            told = "the code" if len(blocks) == 1 else f"{len(blocks)} blocks of code"
            self._chat.copy("\n\n".join(blocks), told)
        else:
            self._chat.say("there is no code in this message", "warning")

    @action("tree", keys="f4", key_id="chat.tree")
    def tree(self, _: str = "") -> None:
        """The whole chat with all of its branches."""
        if not self._busy():
            screen = TreeScreen(self._session.conversation)
            self._chat.app.push_screen(screen, self._move_in_tree)

    async def _move_in_tree(self, move: TreeMove | None) -> None:
        if move is None:
            return
        try:
            message = await self._conversations.move_to(move.message_id, ends_there=move.ends_there)
        except ChatappError as error:  # another chat may be open by now
            self._chat.say(str(error), "warning")
            return
        if not move.ends_there:
            self._chat.point_at(message.id)
            return
        self._chat.prompt.focus()
        if message.role == "user":
            self._chat.say("the path ends here now; Ctrl+R writes a reply")
        else:
            self._chat.say("the path ends here now; your next message goes on from it, as a branch")

    @action("notebook")
    def notebook(self, _: str = "") -> None:
        """The whole chat as one text: edit it anywhere, and go on from there."""
        screen = NotebookScreen(
            lambda: text_of(self._session.conversation),
            lambda: self._chat.turns.busy,
            self._keep_text,
            self._go_on,
            self._chat.turns.cancel,
            lambda: self._chat.query_one(Notices).words,
            vim=self._chat.prompt.vim,
        )
        self._chat.app.push_screen(screen)

    async def _keep_text(self, text: str) -> None:
        parts = parts_of(text)
        await self._conversations.change(lambda now: rewritten(now, parts, time.time()))

    async def _go_on(self, text: str) -> None:
        """Answer the last turn where it is the user's; else write it on."""
        session, parts = self._session, parts_of(text)
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

    def _pointed(self) -> Message | None:
        """The message that actions are about; says so where there is none."""
        block = self._chat.transcript.current
        if block is None:
            self._chat.say("there is no message yet")
            return None
        if isinstance(block, SystemBlock):
            self._chat.say("this is the system text; /system TEXT sets another one", "warning")
            return None
        return self._session.conversation.messages.get(block.message.id, block.message)

    def _busy(self) -> bool:
        if self._chat.turns.busy:
            self._chat.say(BUSY, "warning")
        return self._chat.turns.busy
