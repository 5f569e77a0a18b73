"""The whole conversation as a tree: every branch, and a way to each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from chatapp.chat.conversation import Conversation, Message
from chatapp.ui.dialogs.dialog import Dialog
from chatapp.ui.layout.tree import Tree, make_tree
from chatapp.ui.widgets.row_list import RowList


@dataclass(frozen=True, slots=True)
class TreeMove:
    """Where the user wants to go."""

    message_id: str
    ends_there: bool
    """Whether the path ends at that message, so that what is written next goes on from it."""


class TreeScreen(Dialog[TreeMove | None]):
    """Choose a message of the tree; None when the user stays where they are."""

    HELP = (
        "Every message of this chat. Where another reply or another wording was written, the"
        " tree branches, and only there is it indented.\n"
        "At the right: how many tokens a reply has and the mean of their log-probabilities"
        " under the model alone; nearer to 0 is likelier. The most and the least likely path"
        " are those with the highest and the lowest such mean over all of their replies."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "leave", id="tree.leave"),
        Binding("b", "branch", "branch: go on from this message", id="tree.branch"),
        Binding(
            "left_square_bracket", "branching(-1)", "branch before", id="tree.before", show=False
        ),
        Binding(
            "right_square_bracket", "branching(1)", "branch after", id="tree.after", show=False
        ),
    ]

    def __init__(self, conversation: Conversation) -> None:
        """Show a conversation, standing on the end of its current path."""
        super().__init__()
        self._conversation = conversation
        self._tree: Tree = make_tree(conversation)

    def compose(self) -> ComposeResult:
        rows = RowList(id="tree-list")
        words = Static(Content(self._tree.words), markup=False, id="tree-words")
        keys = "enter go there · b branch from it · [ ] branches · esc close"
        return self.framed("Tree", rows, words, keys=keys, shape="tall tree")

    def on_mount(self) -> None:
        here = [
            place
            for place, row in enumerate(self._tree.rows)
            if row.message.id == self._conversation.leaf
        ]
        rows = self.query_one(RowList)
        rows.show(
            self._tree.rows, highlighted=here[0] if here else 0, empty="there is no message yet"
        )
        rows.focus()

    @property
    def highlighted(self) -> Message | None:
        """The message the user stands on."""
        rows = self._tree.rows
        return rows[self.query_one(RowList).highlighted].message if rows else None

    @on(RowList.Chosen)
    def take(self, event: RowList.Chosen) -> None:
        """Go to the path of that message."""
        event.stop()
        self.dismiss(TreeMove(self._tree.rows[event.row].message.id, ends_there=False))

    def action_branch(self) -> None:
        if (message := self.highlighted) is not None:
            self.dismiss(TreeMove(message.id, ends_there=True))

    def action_branching(self, steps: int) -> None:
        rows, listed = self._tree.rows, self.query_one(RowList)
        place = listed.highlighted + steps
        while 0 <= place < len(rows) and not rows[place].guide.endswith(("├ ", "└ ")):
            place += steps
        if 0 <= place < len(rows):
            listed.highlighted = place
