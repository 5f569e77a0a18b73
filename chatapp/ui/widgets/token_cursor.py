"""The one token cursor: what is pointed at, and where the keys and the mouse take it.

Where there is no cursor, everything follows the newest token.

A layer of its own below the transcript, which draws the messages: this knows where tokens stand
and which one comes next, that knows rows and scrolling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message as Notice
from textual.reactive import var
from textual.scroll_view import ScrollView

from chatapp.chat.record import TokenRecord
from chatapp.ui.layout.message import MessageBlock
from chatapp.ui.layout.stack import Stack


@dataclass(frozen=True, slots=True)
class Cursor:
    """What is pointed at."""

    message_id: str
    token: int | None = None
    """Position in the reply, from 0; None for a message that no model wrote."""


class TokenCursor(ScrollView):
    """Messages in a stack, and a cursor in one of them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "token", id="token.left", show=False),
        Binding("right", "move(1)", "token", id="token.right", show=False),
        Binding("up", "move_row(-1)", "row", id="token.up", show=False),
        Binding("down", "move_row(1)", "row", id="token.down", show=False),
        Binding("n", "least_certain", "next least certain token", id="token.least_certain"),
    ]

    cursor: var[Cursor | None] = var[Cursor | None](None)
    """What is pointed at; None follows the newest token."""

    @dataclass
    class CursorMoved(Notice):
        """The user pointed at something, or lets the panels follow again (None)."""

        cursor: Cursor | None

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 (Textual's own name)
        super().__init__(id=id)
        self._stack = Stack()
        self._least_certain: Cursor | None = None
        """Where the walk over the least certain tokens stands; any other movement ends it."""

    def bring_into_view(self) -> None:
        """Scroll to where the cursor is."""
        raise NotImplementedError

    def block_of(self, message_id: str | None) -> MessageBlock | None:
        """The block of a message of the path, or of the system text."""
        return self._stack.find(message_id)

    @property
    def current(self) -> MessageBlock | None:
        """The block pointed at, or else the last message."""
        if self.cursor is not None:
            return self.block_of(self.cursor.message_id)
        return self._stack.last

    @property
    def pointed(self) -> tuple[MessageBlock, int] | None:
        """The block and the token the panels show: under the cursor, or the newest of a reply."""
        if self.cursor is not None:
            block = self.block_of(self.cursor.message_id)
            if block is not None and self.cursor.token is not None:
                return block, self.cursor.token
            return None
        newest = self._stack.newest_reply()
        last = self._stack.last
        if newest is None or (last is not None and last.live and last is not newest):
            return None  # a reply is about to begin: what came before is not the newest any more
        return newest, len(newest.records) - 1

    def point(self, message_id: str, token: int | None) -> None:
        """Put the cursor on a token of a message, and bring it into view."""
        self.cursor = Cursor(message_id, token)
        self.bring_into_view()
        self.post_message(self.CursorMoved(self.cursor))

    def action_move(self, steps: int) -> None:
        """Move by tokens, on to the next reply at the ends."""
        moving = self._moving(steps)
        if moving is None:
            return
        block, token = moving
        if token is not None and 0 <= token + steps < len(block.records):
            self.point(block.message.id, token + steps)
        elif token is None and block.has_tokens:
            self._enter(block, steps)  # it was scored while the cursor was on it
        else:
            self._enter(self._stack.beside(block, steps, with_tokens=True), steps)

    def action_move_row(self, steps: int) -> None:
        """Move by rows, on to the next message at the ends."""
        moving = self._moving(steps)
        if moving is None:
            return
        block, token = moving
        below = block.token_below(token, steps) if token is not None else None
        if below is not None:
            self.point(block.message.id, below)
        elif token is None and block.has_tokens:
            self._enter(block, steps)
        else:
            self._enter(self._stack.beside(block, steps, with_tokens=False), steps)

    def action_least_certain(self) -> None:
        """Move to the least probable token of the reply; again, to the next one in that order."""
        here = self._here()
        if here is None:
            return
        block, token = here
        walking = self.cursor is not None and self.cursor == self._least_certain
        found = next_least_certain(block.records, token if walking else None)
        if found is not None:
            self.point(block.message.id, found)
            self._least_certain = self.cursor

    def _moving(self, steps: int) -> tuple[MessageBlock, int | None] | None:
        """Where a movement goes on from; None where it is done: without a message it scrolls, and
        without a cursor it only puts one there."""
        here = self._here()
        if here is None:
            self.scroll_relative(y=steps, animate=False)
            return None
        if self.cursor is None:
            self.point(here[0].message.id, here[1])
            return None
        return here

    def _here(self) -> tuple[MessageBlock, int | None] | None:
        """Where a movement begins: the cursor, or the newest token."""
        if self.cursor is not None:
            block = self.block_of(self.cursor.message_id)
            return (block, self.cursor.token) if block is not None else None
        newest = self._stack.newest_reply()
        return (newest, len(newest.records) - 1) if newest is not None else None

    def _enter(self, block: MessageBlock | None, steps: int) -> None:
        """Move into another message, at the end that is nearer."""
        if block is None:
            return
        token = None
        if block.has_tokens:
            token = 0 if steps > 0 else len(block.records) - 1
        self.point(block.message.id, token)

    def on_click(self, event: events.Click) -> None:
        """Point at the token under the mouse; a selection is left alone."""
        if self.screen.selections:
            return
        offset = event.get_content_offset(self)
        if offset is None:
            return
        row = offset.y + self.scroll_offset.y
        found = self._stack.at(row)
        if found is None:
            return
        block, start = found
        self.point(block.message.id, block.token_at(offset.x, row - start))


def next_least_certain(records: Sequence[TokenRecord], current: int | None) -> int | None:
    """The token after `current` in the order of the model's probability, least probable first.

    Args:
        records: of a reply.
        current: where this order was left; None begins with the least probable one of all.

    Returns:
        Its position; after the last one the first again. None when there are no tokens.
    """
    # A token of which a server tells nothing (NaN) can't be said to be uncertain.
    known = [index for index, record in enumerate(records) if record.logprob == record.logprob]
    order = sorted(known, key=lambda index: (records[index].logprob, index))
    if not order:
        return None
    if current not in order:
        return order[0]
    return order[(order.index(current) + 1) % len(order)]
