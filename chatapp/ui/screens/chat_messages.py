"""What a person does with messages: send, regenerate, continue, branch, edit, copy, delete."""

from __future__ import annotations

from chatapp.chat.conversation import Message
from chatapp.ui.layout.markdown import code_blocks
from chatapp.ui.screens.chat_view import ChatView
from chatapp.ui.screens.write import WriteScreen

_BUSY = "a reply is under way; Esc stops it first"


class ChatMessages(ChatView):
    """Actions on the message pointed at, or the last one."""

    def send(self, text: str) -> None:
        """Say something and stream the reply."""
        if not self._busy():
            self.turns.start(self.session.send(text), sends=True)

    def branch(self, message_id: str, index: int, token_id: int) -> None:
        """Take another token of a reply and go on from it."""
        if not self._busy():
            self.turns.start(self.session.branch(message_id, index, token_id))

    def action_regenerate(self) -> None:
        """Write another reply beside the one pointed at."""
        message = self._pointed()
        if message is not None and not self._busy():
            self.turns.start(self.session.regenerate(message.id))

    def action_continue_reply(self) -> None:
        """Go on from the exact end of the reply pointed at."""
        message = self._pointed()
        if message is not None and not self._busy():
            if message.role != "assistant":
                self.say("only a reply can be continued; r writes one", "warning")
                return
            self.turns.start(self.session.continue_reply(message.id))

    def action_branch(self) -> None:
        """Choose another token for the one pointed at, in the panel."""
        if self.transcript.pointed is None:
            self.say("point at a token of a reply first", "warning")
            return
        self.unfold_panel()
        if self.transcript.cursor is None:
            block, index = self.transcript.pointed
            self.transcript.point(block.message.id, index)
        self.panel.candidates.focus()
        self.say("↑↓ choose a candidate, Enter takes it: the reply goes on from there")

    def action_edit(self) -> None:
        """Write another wording of the message pointed at."""
        message = self._pointed()
        if message is None or self._busy():
            return
        mine = message.role == "user"
        what = "sends it in place of the old one" if mine else "keeps it beside the old one"

        async def take(text: str | None) -> None:
            if text is None:
                return
            await self.conversations.edit(message, text)
            if mine:
                self.action_regenerate()

        self.app.push_screen(WriteScreen("Edit this message", message.text, what), take)

    async def action_sibling(self, steps: int) -> None:
        """Go to the wording or reply before or after the one pointed at."""
        message = self._pointed()
        if message is None:
            return
        siblings = self.session.conversation.siblings(message.id)
        if len(siblings) < 2:
            # The nearest message above that has another version beside it.
            points = self.session.conversation.branch_points()
            if not points:
                self.say("there is nothing beside this message; r writes another reply")
                return
            message = points[-1]
        if not await self.conversations.move_beside(message, steps):
            self.say("there is no other one on that side")

    async def action_delete(self) -> None:
        """Delete the message pointed at, with what follows it."""
        message = self._pointed()
        if message is not None and not self._busy():
            await self.conversations.delete(message)
            self.say("deleted, with what followed; Ctrl+Z brings it back")

    async def action_undelete(self) -> None:
        """Bring back what was deleted last."""
        if not self._busy() and not await self.conversations.undelete():
            self.say("nothing was deleted in this chat")

    def action_copy(self) -> None:
        """Copy the message pointed at."""
        self.copy_message()

    def copy_message(self) -> None:
        """Copy the message pointed at, exactly as written."""
        message = self._pointed()
        if message is not None:
            self.post_message(self.CopyAsked(message.text, "the message"))

    def copy_code(self) -> None:
        """Copy the code of the message pointed at, all of it."""
        message = self._pointed()
        blocks = code_blocks(message.text) if message is not None else []
        if not blocks:
            self.say("there is no code in this message", "warning")
            return
        what = "the code" if len(blocks) == 1 else f"{len(blocks)} blocks of code"
        self.post_message(self.CopyAsked("\n\n".join(blocks), what))

    def copy_conversation(self) -> None:
        """Copy the whole current path."""
        messages = self.session.conversation.path()
        texts = [f"{'You' if m.role == 'user' else 'Assistant'}:\n{m.text}" for m in messages]
        self.post_message(self.CopyAsked("\n\n".join(texts), "the conversation"))

    async def stop_everything(self) -> None:
        """Before the end: stop the reply, save it, and give up what is being loaded."""
        await self.turns.close()
        await self.models.close()

    def _pointed(self) -> Message | None:
        """The message that keys act on."""
        block = self.transcript.current
        if block is None:
            self.say("there is no message yet")
            return None
        return self.session.conversation.messages.get(block.message.id, block.message)

    def _busy(self) -> bool:
        if self.turns.busy:
            self.say(_BUSY, "warning")
        return self.turns.busy
