"""Any sequence of edit, branch, regenerate, continue, delete and undo loses no message."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chatapp.chat.conversation import Conversation, Message, Reply, new_id
from chatapp.chat.record import FinishReason, TokenRecord
from tests.store.samples import make_reply, reply_text

REPLIES = tuple(make_reply(tokens, seed=tokens, candidates=2, prompt=3) for tokens in range(1, 5))

pick = st.integers(0, 1 << 16)


class TreeMachine(RuleBasedStateMachine):
    """Does to a conversation what a session does, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.conversation = Conversation(id="c", created=0.0)
        self.made: dict[str, str] = {}  # id → the text it was made with
        self.now = 0.0

    def visible(self) -> list[Message]:
        return [m for m in self.conversation.messages.values() if self.conversation.visible(m.id)]

    def replies(self) -> list[Message]:
        return [message for message in self.visible() if message.reply is not None]

    def add(self, parent: str | None, text: str, reply: Reply | None = None) -> None:
        self.now += 1
        message = Message(
            id=new_id(),
            parent=parent,
            role="assistant" if reply else "user",
            text=text,
            created=self.now,
            reply=reply,
        )
        self.conversation = self.conversation.with_message(message)
        self.made[message.id] = text

    def answer(self, parent: str | None, kept: tuple[TokenRecord, ...], which: int) -> None:
        made = REPLIES[which % len(REPLIES)]
        reply = replace(made, records=kept + made.records, finish_reason=FinishReason.LENGTH)
        self.add(parent, reply_text(reply), reply)

    @rule(which=pick)
    def send(self, which: int) -> None:
        self.add(self.conversation.leaf, f"question {which}")
        self.answer(self.conversation.leaf, (), which)

    @precondition(lambda self: self.replies())
    @rule(place=pick, which=pick)
    def regenerate(self, place: int, which: int) -> None:
        replies = self.replies()
        self.answer(replies[place % len(replies)].parent, (), which)

    @precondition(lambda self: self.replies())
    @rule(place=pick, token=pick, which=pick)
    def branch_or_continue(self, place: int, token: int, which: int) -> None:
        replies = self.replies()
        message = replies[place % len(replies)]
        assert message.reply is not None
        records = message.reply.records
        self.answer(message.parent, records[: token % (len(records) + 1)], which)

    @precondition(lambda self: self.visible())
    @rule(place=pick)
    def edit(self, place: int) -> None:
        visible = self.visible()
        self.now += 1
        self.conversation = self.conversation.edit(
            visible[place % len(visible)].id, f"edited at {self.now}", created=self.now
        )
        assert self.conversation.leaf is not None
        self.made[self.conversation.leaf] = f"edited at {self.now}"

    @precondition(lambda self: self.visible())
    @rule(place=pick)
    def delete(self, place: int) -> None:
        visible = self.visible()
        self.now += 1
        self.conversation = self.conversation.delete(
            visible[place % len(visible)].id, when=self.now
        )

    @precondition(lambda self: self.conversation.last_deleted() is not None)
    @rule()
    def undo(self) -> None:
        last = self.conversation.last_deleted()
        assert last is not None
        self.conversation = self.conversation.restore(last)
        assert last in {message.id for message in self.conversation.path()}

    @precondition(lambda self: self.visible())
    @rule(place=pick, steps=st.sampled_from((-1, 1)))
    def move_beside(self, place: int, steps: int) -> None:
        visible = self.visible()
        sibling = self.conversation.beside(visible[place % len(visible)].id, steps)
        if sibling is not None:
            self.conversation = self.conversation.at(self.conversation.deepest(sibling))

    @invariant()
    def the_tree_and_its_path_are_well_formed(self) -> None:
        self.conversation.check()
        assert all(message.deleted is None for message in self.conversation.path())
        assert all(self.conversation.visible(leaf) for leaf in self.conversation.leaves())

    @invariant()
    def every_message_is_reachable_or_undoable(self) -> None:
        reached = {
            message.id
            for leaf in self.conversation.leaves()
            for message in self.conversation.path_to(leaf)
        }
        undone = self.conversation
        while (last := undone.last_deleted()) is not None:
            undone = undone.restore(last)
        all_reached = {m.id for leaf in undone.leaves() for m in undone.path_to(leaf)}
        assert reached == {message.id for message in self.visible()}
        assert all_reached == set(self.made)
        assert {id_: message.text for id_, message in undone.messages.items()} == self.made


TestTree = TreeMachine.TestCase
TestTree.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
