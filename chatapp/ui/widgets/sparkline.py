"""Two curves along a reply, P(end) and entropy, with the token cursor under them.

Where a reply has more tokens than the curve has cells, each cell shows the highest of a few tokens
and a note says of how many: a peak is never averaged away.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from chatapp.chat.record import TokenRecord
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import Parts, strip_of

LEVELS = "▁▂▃▄▅▆▇█"

_CURSOR = "bold $foreground on $foreground 20%"
_CHANGE = "$foreground 80%"

_LABEL_WIDTH = 8
_RANGE_WIDTH = 13
"""Room at the right for the range of a curve, where there is enough of it."""
_RANGES_FROM = 30
"""From which width on the ranges are printed."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve as characters."""

    text: str
    per_cell: int
    """How many values each cell stands for; its height is that of the largest of them."""


def curve(values: Sequence[float], width: int, high: float) -> Curve:
    """Draw values between 0 and `high`, one cell each or the highest of a few.

    Values that are none (NaN) leave their cell blank.
    """
    if not values or width < 1 or high <= 0:
        return Curve("", 1)
    per_cell = -(-len(values) // width)
    cells = (
        values
        if per_cell == 1
        else [max(values[at : at + per_cell]) for at in range(0, len(values), per_cell)]
    )
    return Curve("".join(_level(value, high) for value in cells), per_cell)


def _level(value: float, high: float) -> str:
    if math.isnan(value):
        return " "
    return LEVELS[min(max(int(value / high * 8), 0), 7)]


class Sparklines(Widget):
    """P(end) and entropy along a reply; a click points at a token."""

    DEFAULT_CSS = """
    Sparklines { height: 3; }
    """

    @dataclass
    class TokenPointed(Message):
        """The user clicked on the curves."""

        index: int
        """Position in the reply, from 0; where a cell stands for several, the first of them."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 (Textual's own name)
        super().__init__(id=id)
        # Kept so that a streaming reply costs only its new tokens.
        self._p_end: list[float] = []
        self._entropy: list[float] = []
        self._first: TokenRecord | None = None
        self._last: TokenRecord | None = None
        self._cursor: int | None = None
        self._changes: Collection[int] = ()

    def show(
        self,
        records: Sequence[TokenRecord],
        cursor: int | None,
        sampling_changed_at: Collection[int] = (),
    ) -> None:
        """Draw a reply's curves; None marks no token."""
        known = len(self._p_end)
        grew = 0 < known <= len(records) and records[0] is self._first
        if not grew or records[known - 1] is not self._last:
            known = 0
        new = records[known:]
        self._p_end[known:] = [record.p_end for record in new]
        self._entropy[known:] = [record.entropy_bits for record in new]
        self._first, self._last = (records[0], records[-1]) if records else (None, None)
        self._cursor = cursor
        self._changes = sampling_changed_at
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """One of: P(end), entropy, the marks."""
        width = self._curve_width
        parts: Parts = ()
        if not self._p_end:
            pass
        elif y == 0:
            line = curve(self._p_end, width, 1.0)
            # Without a line for the marks the note about the cells stands here; 0–100 % is plain.
            note = line.per_cell > 1 and self.size.height < 3
            span = f"highest of {line.per_cell}" if note else "0–100 %"
            parts = self._curve_parts("P(end)", line, span, "$warning")
        elif y == 1:
            high = self._entropy_high
            line = curve(self._entropy, width, high)
            parts = self._curve_parts("entropy", line, f"0–{high:.1f} bit", "$text-primary")
        elif y == 2:
            parts = self._marks()
        return strip_of(parts, self.size.width, self.visual_style)

    @property
    def _entropy_high(self) -> float:
        """The top of the entropy curve: the largest value, rounded up to what is printed."""
        finite = [value for value in self._entropy if math.isfinite(value)]
        return max(1.0, math.ceil(max(finite, default=0.0) * 10) / 10)

    def _curve_parts(self, label: str, line: Curve, span: str, style: str) -> Parts:
        cell = self._cell_of(self._cursor, line.per_cell)
        at = len(line.text) if cell is None else cell
        parts = [
            (label.ljust(_LABEL_WIDTH), MUTED),
            (line.text[:at], style),
            (line.text[at : at + 1], _CURSOR),
            (line.text[at + 1 :], style),
        ]
        if self._has_ranges:
            gap = self._curve_width - len(line.text)
            parts.append((" " * gap + span.rjust(_RANGE_WIDTH), MUTED))
        return parts

    def _marks(self) -> Parts:
        """Where the cursor is, where the sampling changed, and how many tokens a cell is."""
        width = self._curve_width
        per_cell = max(1, -(-len(self._p_end) // width)) if width else 1
        cells = {self._cell_of(index, per_cell): ("╵", _CHANGE) for index in self._changes}
        cells[self._cell_of(self._cursor, per_cell)] = ("▲", _CURSOR)
        parts = [(("╵ change" if self._changes else "").ljust(_LABEL_WIDTH), _CHANGE)]
        parts += [cells.get(place, (" ", MUTED)) for place in range(width)]
        if per_cell > 1 and self._has_ranges:
            parts.append((f"highest of {per_cell}".rjust(_RANGE_WIDTH), MUTED))
        return parts

    @property
    def _has_ranges(self) -> bool:
        return self.size.width >= _RANGES_FROM

    @property
    def _curve_width(self) -> int:
        taken = _LABEL_WIDTH + (_RANGE_WIDTH if self._has_ranges else 0)
        return max(self.size.width - taken, 0)

    def _cell_of(self, index: int | None, per_cell: int) -> int | None:
        if index is None or not 0 <= index < len(self._p_end):
            return None
        return index // per_cell

    def on_click(self, event: events.Click) -> None:
        width = self._curve_width
        offset = event.get_content_offset(self)
        if offset is None or not width or not self._p_end:
            return
        per_cell = -(-len(self._p_end) // width)
        index = (offset.x - _LABEL_WIDTH) * per_cell
        if 0 <= index < len(self._p_end):
            event.stop()
            self.post_message(self.TokenPointed(index))
