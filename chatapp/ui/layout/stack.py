"""The system text and the messages of a path, one below the other: which row belongs to which.

Only the messages from `first` on are laid out; the ones above are counted, and join when the user
scrolls up to them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from chatapp.chat.conversation import Message
from chatapp.ui.layout.message import MessageBlock, SystemBlock

FIRST_SHOWN = 24
"""How many of the last messages are laid out at first."""
MORE_SHOWN = 40
"""How many older ones join at a time."""


class Stack:
    """Blocks and the rows they take."""

    def __init__(self) -> None:
        self.blocks: list[MessageBlock] = []
        self.first = 0
        """The first message that is laid out."""
        self.height = 0
        """How many rows there are, the one that counts the messages above included."""
        self._starts: list[int] = []
        """The first row of each message from `first` on."""

    def show(self, blocks: list[MessageBlock]) -> None:
        """Take other messages; the last ones are laid out."""
        self.blocks = blocks
        self.first = max(0, len(blocks) - FIRST_SHOWN)
        self._starts = []

    def cut_to(self, parent: str | None) -> None:
        """Drop what stands below a message (None: the system text): another takes its place."""
        while self.last is not None and self.last.message.id != parent:
            self.blocks.pop()
        self.first = min(self.first, len(self.blocks))
        self._starts = self._starts[: len(self.blocks) - self.first]

    def find(self, message_id: str | None) -> MessageBlock | None:
        """The block of a message."""
        for block in reversed(self.blocks):
            if block.message.id == message_id:
                return block
        return None

    @property
    def last(self) -> MessageBlock | None:
        """The last message; the system text is none."""
        block = self.blocks[-1] if self.blocks else None
        return None if isinstance(block, SystemBlock) else block

    @property
    def messages(self) -> list[Message]:
        """The messages, first one first."""
        return [one.message for one in self.blocks if not isinstance(one, SystemBlock)]

    @property
    def messages_above(self) -> int:
        """How many messages are not laid out."""
        return sum(not isinstance(one, SystemBlock) for one in self.blocks[: self.first])

    def newest_reply(self) -> MessageBlock | None:
        """The last reply that has tokens."""
        return next((block for block in reversed(self.blocks) if block.is_reply), None)

    def beside(self, block: MessageBlock, steps: int, *, with_tokens: bool) -> MessageBlock | None:
        """The next block below (or above, for negative steps), with tokens where that matters."""
        place = self.blocks.index(block)
        others = self.blocks[place + 1 :] if steps > 0 else self.blocks[:place][::-1]
        return next((other for other in others if other.has_tokens or not with_tokens), None)

    @property
    def shown(self) -> Sequence[MessageBlock]:
        """The blocks that are laid out."""
        return self.blocks[self.first :]

    def older(self) -> int:
        """Where laying out begins when some older messages join."""
        return max(0, self.first - MORE_SHOWN)

    def recent(self) -> int:
        """Where laying out begins once older messages matter no more."""
        return max(self.first, len(self.blocks) - FIRST_SHOWN - MORE_SHOWN)

    def measure(self) -> None:
        """Find out anew which rows the blocks take."""
        row = 1 if self.first else 0
        self._starts = []
        for block in self.shown:
            self._starts.append(row)
            row += block.height
        self.height = row

    def measure_last(self) -> None:
        """Find out anew which rows the last block takes: the others stand as they stood."""
        self.height = self._starts[-1] + self.blocks[-1].height

    def at(self, row: int) -> tuple[MessageBlock, int] | None:
        """The block on a row and its first row; None above the first one and below the last."""
        place = bisect_right(self._starts, row) - 1
        if place < 0 or row >= self.height:
            return None
        return self.blocks[self.first + place], self._starts[place]

    def top(self, row: int) -> tuple[MessageBlock, int] | None:
        """The block on a row or, above the first one, the first; with its first row."""
        return self.at(max(row, self._starts[0])) if self._starts else None

    def start_of(self, block: MessageBlock) -> int | None:
        """The first row of a block; None where it is not laid out."""
        for start, other in zip(self._starts, self.shown, strict=True):
            if other is block:
                return start
        return None
