"""Two curves along a reply, P(end) and entropy, with the token cursor under them.

Where a reply has more tokens than the curve has cells, each cell shows the highest of a few tokens
and a note says of how many: a peak is never averaged away.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from chatapp.chat.record import TokenRecord

LEVELS = "▁▂▃▄▅▆▇█"

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


class _Values:
    """The two numbers of every token, kept so that a streaming reply costs only its new ones."""

    def __init__(self) -> None:
        self.p_end: list[float] = []
        self.entropy: list[float] = []
        self._first: TokenRecord | None = None
        self._last: TokenRecord | None = None

    def take(self, records: Sequence[TokenRecord]) -> None:
        """Follow a reply, whether it grew or is another one."""
        known = len(self.p_end)
        grew = (
            0 < known <= len(records)
            and records[0] is self._first
            and records[known - 1] is self._last
        )
        if not grew:
            self.p_end.clear()
            self.entropy.clear()
            known = 0
        for place in range(known, len(records)):
            self.p_end.append(records[place].p_end)
            self.entropy.append(records[place].entropy_bits)
        self._first = records[0] if records else None
        self._last = records[-1] if records else None


class Sparklines(Widget):
    """P(end) and entropy along a reply; a click points at a token."""

    DEFAULT_CSS = """
    Sparklines {
        height: 3;
        & .sparklines--label { color: $foreground 60%; }
        & .sparklines--end { color: $warning; }
        & .sparklines--entropy { color: $text-primary; }
        & .sparklines--cursor { color: $foreground; background: $foreground 20%; text-style: bold; }
        & .sparklines--change { color: $foreground 80%; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "sparklines--label",
        "sparklines--end",
        "sparklines--entropy",
        "sparklines--cursor",
        "sparklines--change",
    }

    @dataclass
    class TokenPointed(Message):
        """The user clicked on the curves."""

        index: int
        """Position in the reply, from 0; where a cell stands for several, the first of them."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 (Textual's own name)
        super().__init__(id=id)
        self._values = _Values()
        self._cursor: int | None = None
        self._changes: Collection[int] = ()

    def show(
        self,
        records: Sequence[TokenRecord],
        cursor: int | None,
        sampling_changed_at: Collection[int] = (),
    ) -> None:
        """Draw a reply's curves; None marks no token."""
        self._values.take(records)
        self._cursor = cursor
        self._changes = sampling_changed_at
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """One of: P(end), entropy, the marks."""
        width = self.size.width
        plain = self.visual_style.rich_style
        drawn = {0: self._end_line, 1: self._entropy_line, 2: self._mark_line}.get(y)
        if drawn is None or not self._values.p_end:
            return Strip.blank(width, plain)
        return Strip(drawn()).adjust_cell_length(width, plain)

    def _end_line(self) -> list[Segment]:
        line = curve(self._values.p_end, self._curve_width, 1.0)
        # Without a line for the marks the note about the cells stands here; 0–100 % is plain.
        note = line.per_cell > 1 and self.size.height < 3
        span = f"highest of {line.per_cell}" if note else "0–100 %"
        return self._curve_segments("P(end)", line, span, "sparklines--end")

    def _entropy_line(self) -> list[Segment]:
        high = self._entropy_high
        line = curve(self._values.entropy, self._curve_width, high)
        return self._curve_segments("entropy", line, f"0–{high:.1f} bit", "sparklines--entropy")

    @property
    def _entropy_high(self) -> float:
        """The top of the entropy curve: the largest value, rounded up to what is printed."""
        finite = [value for value in self._values.entropy if math.isfinite(value)]
        return max(1.0, math.ceil(max(finite, default=0.0) * 10) / 10)

    def _curve_segments(self, label: str, line: Curve, span: str, name: str) -> list[Segment]:
        muted = self._style("sparklines--label")
        segments = [Segment(label.ljust(_LABEL_WIDTH), muted)]
        style = self._style(name)
        cell = self._cell_of(self._cursor, line.per_cell)
        if cell is None or cell >= len(line.text):
            segments.append(Segment(line.text, style))
        else:
            segments += [
                Segment(line.text[:cell], style),
                Segment(line.text[cell], self._style("sparklines--cursor")),
                Segment(line.text[cell + 1 :], style),
            ]
        if self._has_ranges:
            gap = self._curve_width - len(line.text)
            segments.append(Segment(" " * gap + span.rjust(_RANGE_WIDTH), muted))
        return segments

    def _mark_line(self) -> list[Segment]:
        """Where the cursor is, where the sampling changed, and how many tokens a cell is."""
        width = self._curve_width
        per_cell = max(1, -(-len(self._values.p_end) // width)) if width else 1
        muted, change = self._style("sparklines--label"), self._style("sparklines--change")
        marks: dict[int, Segment] = {}
        for index in self._changes:
            cell = self._cell_of(index, per_cell)
            if cell is not None and cell < width:
                marks[cell] = Segment("╵", change)
        cell = self._cell_of(self._cursor, per_cell)
        if cell is not None and cell < width:
            marks[cell] = Segment("▲", self._style("sparklines--cursor"))
        label = "╵ change" if self._changes else ""
        segments = [Segment(label.ljust(_LABEL_WIDTH), change)]
        segments += [marks.get(place, Segment(" ", muted)) for place in range(width)]
        if per_cell > 1 and self._has_ranges:
            segments.append(Segment(f"highest of {per_cell}".rjust(_RANGE_WIDTH), muted))
        return segments

    @property
    def _has_ranges(self) -> bool:
        return self.size.width >= _RANGES_FROM

    @property
    def _curve_width(self) -> int:
        taken = _LABEL_WIDTH + (_RANGE_WIDTH if self._has_ranges else 0)
        return max(self.size.width - taken, 0)

    def _cell_of(self, index: int | None, per_cell: int) -> int | None:
        if index is None or not 0 <= index < len(self._values.p_end):
            return None
        return index // per_cell

    def _style(self, name: str) -> Style:
        return self.get_visual_style(name).rich_style

    def on_click(self, event: events.Click) -> None:
        width = self._curve_width
        offset = event.get_content_offset(self)
        if offset is None or not width or not self._values.p_end:
            return
        per_cell = -(-len(self._values.p_end) // width)
        index = (offset.x - _LABEL_WIDTH) * per_cell
        if 0 <= index < len(self._values.p_end):
            event.stop()
            self.post_message(self.TokenPointed(index))
