"""The candidates of one token: what the model weighed, what was cut and why, which one was taken.

One widget draws all rows itself, line by line: it is refreshed with every batch of a streaming
reply. The head stays at the top; the others, the sum and the details stay at the bottom; the
candidates scroll between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from chatapp.chat.inspection import CandidatePage
from chatapp.chat.record import Candidate, TokenRecord
from chatapp.explain.cells import fit
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import Parts, strip_of
from chatapp.ui.widgets.candidate_rows import (
    COLUMNS,
    Column,
    Frame,
    Layout,
    candidate_row,
    detail,
    head,
    others_row,
    sum_row,
    told_column,
    with_page,
    without_gap,
)

LEGEND = "● taken  × cut  pale: model  bars: ←/→"
_REST = "$foreground 80%"

MORE_CANDIDATES = 100
"""How many ranks join the list at a time when a user scrolls on."""


@dataclass
class CandidateChosen(Message):
    """The user wants this token in place of the one that was taken."""

    index: int
    """The token's position in its reply, from 0."""
    token_id: int
    """The candidate's id."""


@dataclass
class MoreWanted(Message):
    """The user scrolls on, below the candidates that are listed."""

    record: TokenRecord
    """What the list was given to show."""
    start: int
    """From which place on, 0 being the most probable token by the model."""


class CandidateList(ScrollView, can_focus=True):
    """The candidates of one record, with a row cursor."""

    DEFAULT_CSS = """
    CandidateList {
        height: 1fr;
        min-height: 1;
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move(-1)", "candidate", id="candidate.up", show=False),
        Binding("down", "move(1)", "candidate", id="candidate.down", show=False),
        Binding("pageup", "page(-1)", "page up", id="candidate.pageup", show=False),
        Binding("pagedown", "page(1)", "page down", id="candidate.pagedown", show=False),
        Binding("home", "first", "first candidate", id="candidate.first", show=False),
        Binding("end", "last", "last candidate", id="candidate.last", show=False),
        Binding("left", "follow(-1)", "bars follow", id="candidate.bars_left", show=False),
        Binding("right", "follow(1)", "bars follow", id="candidate.bars_right", show=False),
        Binding("enter", "choose", "take this token", id="candidate.choose"),
        Binding("f", "screen.act('find')", "find a token", id="candidate.find"),
        Binding("t", "screen.act('trace')", "trace: what each stage did", id="candidate.trace"),
        Binding("x", "screen.ban", "ban this token, or allow it", id="candidate.ban"),
        Binding("plus", "screen.bias(1)", "bias +1", id="candidate.bias_up"),
        Binding("minus", "screen.bias(-1)", "bias −1", id="candidate.bias_down"),
    ]

    HELP = (
        "What the model weighed for the token under the cursor, most probable first. Enter takes a"
        " candidate in place of the token: the reply goes on from there, the old one stays beside"
        " it. While a reply is held (F6), Enter takes the next token by hand.\n"
        "Scroll on below the last one for the rest of the vocabulary, by rank; f finds any token."
    )

    followed: reactive[Column] = reactive[Column]("final")
    """Which of the three probabilities the bars show."""
    row: reactive[int] = reactive(0)
    """The candidate under the row cursor."""
    brief: reactive[bool] = reactive(False)
    """Whether one column of figures is enough, without sums and details."""

    _record: TokenRecord | None = None
    _shown: TokenRecord | None = None
    """What was given, without what was added to it."""
    _taken_id: int | None = None
    _places = 0
    """How many of the listed candidates are the most probable ones, without a gap."""
    _asked = False
    _frame = Frame(False, ())

    # What is shown

    def show(self, record: TokenRecord | None, *, taken: bool = True) -> None:
        """Show a token's candidates; the row cursor goes to the one that was taken.

        Where it is the step shown before (a control was turned), it stays on its candidate.
        `taken` is False for a step at which nothing is taken yet.
        """
        if record is self._shown:
            return
        pointed = self.candidate if self._is_same_step(record, taken) else None
        self._record = self._shown = record
        self._taken_id = record.id if record is not None and taken else None
        self._places = without_gap(record.candidates) if record is not None else 0
        self._asked = False
        self._arrange()
        self.row = self._row_of(pointed.id if pointed is not None else None)
        self._bring_into_view()
        self.refresh()

    def add(self, record: TokenRecord, page: CandidatePage) -> None:
        """List some more candidates of a record below those that are listed already.

        A record that has meanwhile given place to another (the cursor moved on, or a control was
        turned while the reply is held) takes its page with it.
        """
        if self._record is None or record is not self._shown:
            return
        self._asked = False
        if page.start != self._places or not page.candidates:
            return
        self._record = with_page(self._record, page, self._places)
        self._places += len(page.candidates)
        self._arrange()
        self.refresh()

    def keep_asking(self) -> None:
        """The candidates that were asked for did not come; they may be asked for again."""
        self._asked = False

    @property
    def listed(self) -> tuple[Candidate, ...]:
        """All candidates that are listed."""
        return self._record.candidates if self._record else ()

    @property
    def candidate(self) -> Candidate | None:
        """The candidate under the row cursor."""
        return self.listed[self.row] if 0 <= self.row < len(self.listed) else None

    def depth(self, record: TokenRecord) -> int:
        """How far down the vocabulary the user has read at the step of a record."""
        return self._places if self._is_same_step(record, taken=True) else 0

    def _is_same_step(self, record: TokenRecord | None, taken: bool) -> bool:
        """Whether what is shown tells of the same step, with the same token taken.

        Equal entropies to the last bit are one distribution.
        """
        shown = self._shown
        if shown is None or record is None or self._taken_id != (record.id if taken else None):
            return False
        return (shown.index, shown.entropy_bits) == (record.index, record.entropy_bits)

    def _row_of(self, id_: int | None) -> int:
        """Where a token is listed, or else the one taken; the first row where neither is."""
        rows = {one.id: row for row, one in enumerate(self.listed)}
        first = rows.get(self._taken_id, 0) if self._taken_id is not None else 0
        return first if id_ is None else rows.get(id_, first)

    def _arrange(self) -> None:
        """Make room for the rows, and for what stands around them."""
        self._frame = Frame.of(self.size.height, self._width, brief=self.brief)
        rows = len(self.listed)
        self.virtual_size = Size(self._width, rows + self._frame.lines if rows else 0)

    def validate_row(self, row: int) -> int:
        return min(max(row, 0), max(len(self.listed) - 1, 0))

    def on_resize(self) -> None:
        self._arrange()
        self._bring_into_view()

    watch_brief = on_resize

    def watch_row(self) -> None:
        self._bring_into_view()
        self._ask_for_more()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if new_value > old_value and new_value >= self.max_scroll_y:
            self._ask_for_more(scrolled=True)

    def _ask_for_more(self, *, scrolled: bool = False) -> None:
        record = self._record
        if record is None or self._asked or (not self.has_focus and not scrolled):
            return
        if math.isnan(record.prob):
            return  # a server tells no more than it has told
        at_end = scrolled or self.row >= len(record.candidates) - 1
        if at_end and record.other_count > 0 and self._shown is not None:
            self._asked = True
            self.post_message(MoreWanted(self._shown, self._places))

    @property
    def _width(self) -> int:
        return self.scrollable_content_region.width

    @property
    def _visible_rows(self) -> int:
        return max(self.size.height - self._frame.lines, 1)

    def _bring_into_view(self) -> None:
        top = self.scroll_offset.y
        if self.row < top:
            top = self.row
        elif self.row >= top + self._visible_rows:
            top = self.row - self._visible_rows + 1
        else:
            return
        self.scroll_to(y=top, animate=False, immediate=True)

    # Drawing

    @property
    def _column(self) -> Column:
        """What the bars show: what is followed, or else what a server tells."""
        record = self._record
        unknown = record is not None and math.isnan(record.prob)
        return told_column(record) if record is not None and unknown else self.followed

    def render_line(self, y: int) -> Strip:
        """One line of the screen: head, candidate or foot."""
        record, width, base = self._record, self._width, self.visual_style
        if record is None:
            return Strip.blank(width, base.rich_style)
        parts: Parts = ()
        ground = ""
        layout = Layout.of(width, self._column, brief=self.brief)
        rows = min(self._visible_rows, len(record.candidates))
        place = y - int(self._frame.head)
        row = place + self.scroll_offset.y
        if place < 0:
            parts = head(record, layout, self._column)
        elif place < rows and row < len(record.candidates):
            parts = self._row(record, row, layout)
            if row == self.row:
                ground = "on $primary 40%" if self.has_focus else "on $foreground 10%"
        elif 0 <= place - rows < len(self._frame.foot):
            parts = self._foot(record, self._frame.foot[place - rows], layout)
        return strip_of(parts, width, base, ground)

    def _row(self, record: TokenRecord, place: int, layout: Layout) -> Parts:
        candidate = record.candidates[place]
        taken = candidate.id == self._taken_id
        cells = candidate_row(
            candidate,
            layout,
            self._column,
            taken=taken,
            under_cursor=place == self.row,
            above=record.candidates[place - 1] if place > self.scroll_offset.y else None,
        )
        style = "bold $text-accent" if taken else MUTED if candidate.removed_by else ""
        # The blanks behind the one under the cursor are its own.
        return [
            *cells.parts(style),
            *([(" " * self.size.width, style)] if place == self.row else []),
        ]

    def _foot(self, record: TokenRecord, name: str, layout: Layout) -> Parts:
        if name == "others":
            return others_row(record, layout, self._column).parts(_REST, "dim $primary")
        if name == "sum":
            return sum_row(record, layout).parts(_REST)
        if name == "legend":
            return [(fit(LEGEND, self._width), MUTED)]
        candidate = self.candidate
        if candidate is None:
            return ()
        lines = detail(record, candidate, self._width, taken=candidate.id == self._taken_id)
        if "detail2" not in self._frame.foot:
            lines = (lines[0], f"{lines[1]} {lines[2]}", "")
        text = lines[int(name.removeprefix("detail"))]
        return [(fit(text, self._width), _REST)]

    # Keys and mouse

    def action_move(self, rows: int) -> None:
        self.row += rows
        self._ask_for_more()

    def action_page(self, pages: int) -> None:
        self.row += pages * self._visible_rows
        self._ask_for_more()  # it may stand on the last row already, where a taken one is added

    def page_from_outside(self, pages: int) -> None:
        """Page as the keys do, on into the vocabulary, where the keys belong to another widget."""
        self.row += pages * self._visible_rows
        if self.row >= len(self.listed) - 1:
            self._ask_for_more(scrolled=True)

    def action_first(self) -> None:
        self.row = 0

    def action_last(self) -> None:
        self.row = len(self.listed) - 1
        self._ask_for_more()

    def action_follow(self, steps: int) -> None:
        self.followed = COLUMNS[(COLUMNS.index(self.followed) + steps) % len(COLUMNS)]

    def action_choose(self) -> None:
        if self._record is not None and self.candidate is not None:
            self.post_message(CandidateChosen(self._record.index, self.candidate.id))

    def on_click(self, event: events.Click) -> None:
        """Point at a row; a double click asks for it."""
        offset = event.get_content_offset(self)
        place = offset.y - int(self._frame.head) if offset is not None else -1
        if not 0 <= place < min(self._visible_rows, len(self.listed)):
            return
        event.stop()
        self.row = place + self.scroll_offset.y
        if event.chain == 2:
            self.action_choose()
