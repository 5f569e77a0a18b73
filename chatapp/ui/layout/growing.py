"""Markdown that grows: each fragment costs what it touches, not what stands above it.

Only the last block of a text can still change when more comes (a paragraph may become a heading, a
list gain items), so only it is parsed anew. What a later line can change further up (the address
of a reference link) is put right when the reply has ended and the whole is parsed once more.
"""

from __future__ import annotations

from chatapp.ui.layout.line import EMPTY, Line
from chatapp.ui.layout.markdown import Block, parse
from chatapp.ui.layout.markdown_lines import block_lines


class GrowingMarkdown:
    """A Markdown text and its rows."""

    def __init__(self, text: str = "") -> None:
        """Begin with a text that was sanitised."""
        self._blocks: list[Block] = []
        self._finished: list[Line] = []
        """The rows of all blocks but those of the tail, at the current width."""
        self._finished_blocks = 0
        self._tail = ""
        """The source from the beginning of the last block on."""
        self._tail_blocks: list[Block] = []
        self._width = 0
        self._lines: list[Line] | None = None
        self.append(text)

    def append(self, text: str) -> None:
        """Add a sanitised fragment."""
        if not text:
            return
        self._tail += text
        placed = parse(self._tail)
        self._lines = None
        if len(placed) > 1:
            start = placed[-1].line
            self._blocks.extend(item.block for item in placed[:-1])
            self._tail = "\n".join(self._tail.split("\n")[start:])
            placed = placed[-1:]
        self._tail_blocks = [item.block for item in placed]

    def lines(self, width: int) -> list[Line]:
        """All rows at a width."""
        if width != self._width:
            self._forget_rows()
            self._width = width
        if self._lines is None:
            for block in self._blocks[self._finished_blocks :]:
                self._finished.extend([*block_lines(block, width), EMPTY])
            self._finished_blocks = len(self._blocks)
            tail = [line for block in self._tail_blocks for line in block_lines(block, width)]
            self._lines = [*self._finished, *tail]
        return self._lines

    def _forget_rows(self) -> None:
        self._finished = []
        self._finished_blocks = 0
        self._lines = None
