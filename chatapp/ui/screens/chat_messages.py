"""What a person does with messages: send, regenerate, continue, branch, edit, copy, delete."""

from __future__ import annotations

from chatapp.chat.conversation import Message
from chatapp.ui.layout.markdown import code_blocks
from chatapp.ui.layout.system import SystemBlock
from chatapp.ui.screens.chat_view import ChatView
from chatapp.ui.screens.tree import TreeMove, TreeScreen
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
        pointed = self.transcript.pointed
        if pointed is None or pointed[0].message.reply is None:
            self.say("point at a token of a reply first", "warning")
            return
        self.unfold_panel()
        if self.transcript.cursor is None:
            block, index = pointed
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
            else:
                self.say(
                    "kept beside the old one, without token numbers since no model wrote it; [ goes"
                    " back"
                )

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
        pointing = self.transcript.cursor is not None
        target = await self.conversations.move_beside(message, steps)
        if target is None:
            self.say("there is no other one on that side")
            return
        if pointing:
            self.point_at(target)
        beside = [sibling.id for sibling in self.session.conversation.siblings(target)]
        self.say(f"{beside.index(target) + 1} of {len(beside)}; [ and ] go on, F4 shows the tree")

    async def action_delete(self) -> None:
        """Delete the message pointed at, with what follows it."""
        message = self._pointed()
        if message is not None and not self._busy():
            await self.conversations.delete(message)
            self.say("deleted, with what followed; u brings it back")

    async def action_undelete(self) -> None:
        """Bring back what was deleted last."""
        if not self._busy():
            back = await self.conversations.undelete()
            self.say(
                "it is back, with what followed" if back else "nothing is deleted in this chat"
            )

    def point_at(self, message_id: str, words: str = "") -> None:
        """Point at a message of the path, at the token with which some words begin in it."""
        block = self.transcript.block_of(message_id)
        if block is None:
            return
        self.transcript.point(message_id, token_of_words(block.message, words))
        self.transcript.focus()

    def action_copy(self) -> None:
        """Copy the message pointed at."""
        self.copy_message()

    def copy_message(self) -> None:
        """Copy the message or the system text pointed at, exactly as written."""
        block = self.transcript.current
        if isinstance(block, SystemBlock):
            self.post_message(self.CopyAsked(block.message.text, "the system text"))
            return
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

    def action_tree(self) -> None:
        """The whole conversation with all of its branches."""
        if not self._busy():
            self.app.push_screen(TreeScreen(self.session.conversation), self._move_in_tree)

    async def _move_in_tree(self, move: TreeMove | None) -> None:
        if move is None:
            return
        message = await self.conversations.move_to(move.message_id, ends_there=move.ends_there)
        if not move.ends_there:
            self.point_at(message.id)
            return
        self.prompt.focus()
        if message.role == "user":
            self.say("the path ends here now; Ctrl+R writes a reply")
        else:
            self.say("the path ends here now; your next message goes on from it, as a branch")

    def _pointed(self) -> Message | None:
        """The message that keys act on."""
        block = self.transcript.current
        if block is None:
            self.say("there is no message yet")
            return None
        if isinstance(block, SystemBlock):
            self.say("this is the system text; /system TEXT sets another one", "warning")
            return None
        return self.session.conversation.messages.get(block.message.id, block.message)

    def _busy(self) -> bool:
        if self.turns.busy:
            self.say(_BUSY, "warning")
        return self.turns.busy


def token_of_words(message: Message, words: str) -> int | None:
    """The token with which some words begin in a reply; its first token where they don't.

    None for a message without tokens.
    """
    if message.reply is None or not message.reply.records:
        return None
    start = message.text.casefold().find(words.casefold()) if words else 0
    end = 0
    for index, record in enumerate(message.reply.records):
        end += len(record.text)
        if end > start:
            return index
    return 0
