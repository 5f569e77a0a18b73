"""The conversation on the screen: messages drawn as lines, with one cursor walking their tokens.

One widget draws everything, so that a long conversation costs no more than a short one: only the
last messages are laid out until the user scrolls up to older ones, and only the rows in view
are drawn. It stays at the bottom while a reply streams, until the user scrolls up; reaching the
bottom again, or End, follows again (Textual's own `anchor()` hardly ever does, textual#6677).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.reactive import Reactive, var
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style

from chatapp.chat.conversation import Conversation, Message
from chatapp.chat.record import TokenRecord
from chatapp.chat.thinking import Thinking
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import EMPTY, Line, indent, wrap
from chatapp.ui.layout.message import MessageBlock, Place, SystemBlock, View
from chatapp.ui.token_colours import Look, Scale, token_style
from chatapp.ui.widgets.token_cursor import Cursor, TokenCursor

WELCOME = (
    "Write a message below and press Enter. Nothing of it leaves this machine.\n\n"
    "While the reply streams, Ctrl+↑ and Ctrl+↓ turn the temperature for its very next token.\n"
    "Tab goes into the reply: ← → walk its tokens, and the panel shows what each was chosen from.\n"
    "Ctrl+T colours a reply by how sure the model was. F1 tells the rest."
)
"""What an empty chat shows."""


class Transcript(TokenCursor, can_focus=True):
    """The messages of the current path."""

    HELP = (
        "The conversation. ← and → walk a reply token by token, ↑ and ↓ row by row, on into the"
        " messages beside it and the system text at the top; a click points at a token. What is"
        " pointed at shows its tokens as long as the cursor is in it, and the panel tells all about"
        " the token under it.\n"
        "n goes from the least certain token to the next one. End or Esc lets go: the newest token"
        " is followed again.\n"
        "Ctrl+T shows all replies as tokens, coloured by how sure the model was. A space that"
        " belongs to a word is drawn as a blank of the word's colour, every other white space,"
        " control character and broken byte by a sign of its own.\n"
        "t turns the pages of the panel. Its page attention colours the tokens before by how much"
        " the one under the cursor looked at them; < > , . choose another layer or head.\n"
        "The letters below act on the message pointed at, or else on the last one."
    )

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "screen.act('colour')", "next scale of colours", id="token.scale"),
        Binding("b", "screen.act('branch')", "branch: take another token", id="message.branch"),
        Binding("i", "screen.act('inside')", "look inside the model", id="token.inside"),
        Binding("j", "screen.act('journey')", "the token's journey", id="token.journey"),
        Binding("r", "screen.act('regen')", "another reply", id="message.regenerate"),
        Binding("c", "screen.act('continue')", "continue a cut reply", id="message.continue"),
        Binding("e", "screen.act('edit')", "edit", id="message.edit"),
        Binding("v", "screen.act('notebook')", "the chat as one text", id="chat.notebook"),
        Binding("z", "screen.act('fold')", "open or fold its thinking", id="message.fold"),
        Binding("y", "screen.act('copy')", "copy", id="message.copy"),
        Binding("d", "screen.act('delete')", "delete", id="message.delete"),
        Binding("u", "screen.act('undo')", "undo delete", id="message.undelete"),
        Binding("left_square_bracket", "screen.act('previous')", "before", id="message.before"),
        Binding("right_square_bracket", "screen.act('next')", "after", id="message.after"),
        Binding("home", "oldest", "first message", id="transcript.home", show=False),
        Binding("end", "follow", "newest token", id="transcript.end", show=False),
        Binding("pageup", "page(-1)", "page up", id="transcript.pageup", show=False),
        Binding("pagedown", "page(1)", "page down", id="transcript.pagedown", show=False),
    ]

    virtual_size: Reactive[Size] = Reactive(Size(0, 0), repaint=False)
    """Textual's own lays out the whole screen anew and draws all rows whenever it changes: at every
    row of a reply, of which only the last are other ones."""
    view: var[View] = var[View]("markdown")
    """How replies are shown; the one under the cursor always shows its tokens."""
    scale: var[Scale] = var[Scale]("probability")
    """What the colours of tokens mean."""
    looks: var[Mapping[str, Look]] = var[Mapping[str, Look]]({})
    """Another look at some messages, by their ids, in place of the scale."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 (Textual's own name)
        super().__init__(id=id)
        self._follow = True
        self._placing = False
        self._sized = False  # before its first size is known, nothing is laid out

    # What is shown

    def show(self, conversation: Conversation) -> None:
        """Show the current path of a conversation, at its end."""
        beside: dict[str | None, list[str]] = {}
        for message in conversation.messages.values():
            if message.deleted is None:
                beside.setdefault(message.parent, []).append(message.id)
        blocks = [
            MessageBlock(message, _place(message, beside.get(message.parent, [])))
            for message in conversation.path()
        ]
        system = [SystemBlock(conversation.system)] if conversation.system.strip() else []
        self._stack.show([*system, *blocks])
        self._follow = True
        self.cursor = None
        self._lay_out(self._stack.shown)

    def add(self, message: Message, conversation: Conversation) -> None:
        """Add a message at the end; one with a reply is about to stream."""
        live = message.reply is not None
        block = MessageBlock(message, _place_in(conversation, message), live=live)
        self._stack.cut_to(message.parent)
        self._stack.blocks.append(block)
        self._follow = True
        self.cursor = None
        self._lay_out([block], first=self._stack.recent())

    def feed(self, records: Sequence[TokenRecord]) -> None:
        """Add tokens to the reply that streams; only the rows that they change are drawn."""
        if not self._stack.blocks or not records:
            return
        block = self._stack.blocks[-1]
        changed = block.feed(records)
        if not self._sized or (start := self._stack.start_of(block)) is None:
            return
        self._stack.measure_last()
        self._place(self._stack.top(self.scroll_offset.y), self.scroll_offset.y)
        self.refresh_lines(start + changed, self._stack.height - start - changed)

    def wait(self, words: str, thinking: Thinking | None = None) -> None:
        """Say what the reply that streams is waiting for, as long as it has no token.

        `thinking`: how it will mark that, once this is known.
        """
        if self._stack.blocks and self._stack.blocks[-1].live:
            self._stack.blocks[-1].await_tokens(words, thinking)
            self._lay_out(())

    def fold(self) -> bool:
        """Open or fold the thinking pointed at, or else the last. Returns whether there is any."""
        here = self.block_of(self.cursor.message_id) if self.cursor is not None else None
        blocks = [here] if here is not None else reversed(self._stack.blocks)
        block = next((one for one in blocks if one.thinks), None)
        if block is None:
            return False
        block.opened = not block.opened
        first = block.first_token
        if block is here and self.cursor is not None and (self.cursor.token or 0) < first:
            self.cursor = Cursor(block.message.id, first) if first < len(block.records) else None
        self._lay_out([block])
        return True

    def finish(self, message: Message, conversation: Conversation) -> None:
        """Show the complete reply in place of what streamed."""
        block = self.block_of(message.id)
        if block is not None:
            block.finish(message, _place_in(conversation, message))
            self._lay_out(())

    def take_scores(self, message_id: str, records: Sequence[TokenRecord]) -> None:
        """Show what no model wrote, a message or the system text, as scored tokens; without any,
        as its text."""
        block = self.block_of(message_id)
        if block is None or block.records == list(records):
            return
        block.take_scores(records)
        here = self.cursor
        if here is not None and here.message_id == message_id and not records:
            self.cursor = Cursor(message_id, None)
        self._lay_out(())

    @property
    def messages(self) -> list[Message]:
        """The messages on the screen and above it, first one first."""
        return self._stack.messages

    @property
    def following(self) -> bool:
        """Whether the end stays in view."""
        return self._follow

    @property
    def system_text(self) -> str:
        """The system text that is shown; empty for none."""
        first = self._stack.blocks[0] if self._stack.blocks else None
        return first.message.text if isinstance(first, SystemBlock) else ""

    @property
    def text_rows(self) -> list[str]:
        """All rows that are laid out, as plain text."""
        return [self._line(row).content.plain for row in range(self._stack.height)]

    # The cursor

    def action_follow(self) -> None:
        """Let go of the cursor: the newest token is followed again."""
        self.cursor = None
        self._follow = True
        self._lay_out((), first=self._stack.recent())
        self.post_message(self.CursorMoved(None))

    def action_oldest(self) -> None:
        """Go to the first message."""
        self._follow = False
        self._lay_out(self._stack.blocks[: self._stack.first], first=0)
        self.scroll_to(y=0, animate=False)

    def action_page(self, pages: int) -> None:
        """Scroll by whole pages."""
        self.scroll_relative(y=pages * max(1, self.size.height - 2), animate=False)

    # Rows

    def watch_view(self) -> None:
        """Draw replies the other way."""
        self._lay_out(())

    def watch_scale(self) -> None:
        """Colour tokens by another scale."""
        self.refresh()

    def watch_looks(self, old: Mapping[str, Look], new: Mapping[str, Look]) -> None:
        """Draw messages in their other look."""
        moved = [
            block.take_look(new.get(block.message.id)) or block.view != self._view_of(block)
            for block in self._stack.blocks
            if block.message.id in old or block.message.id in new
        ]
        if any(moved):
            self._lay_out(())
        self.refresh()

    def watch_cursor(self, old: Cursor | None, new: Cursor | None) -> None:
        """Show the tokens of the message pointed at."""
        block = self.block_of(new.message_id) if new is not None else None
        if block is not None and new is not None and (new.token or 0) < block.first_token:
            block.opened = block.opened or new.token is not None
            self._lay_out([block])
        ids = {cursor.message_id for cursor in (old, new) if cursor is not None}
        if len(ids) == 1 and old is not None and new is not None:
            self.refresh()
        else:
            self._lay_out(())

    def watch_virtual_size(self, old: Size, new: Size) -> None:
        """Lay out the screen where a scroll bar comes or goes; else only its knob changes."""
        room = self.container_size.height
        if old.width != new.width or (old.height > room) != (new.height > room):
            self.refresh(layout=True)
        elif new.height > room:
            self.vertical_scrollbar.window_virtual_size = new.height

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Tell the user's own scrolling: it decides whether the end is followed."""
        super().watch_scroll_y(old_value, new_value)
        if self._placing:
            return
        shrunk = old_value > self.max_scroll_y  # the screen grew and pushed the rows down
        if new_value < old_value and not shrunk:
            self._follow = False
        elif new_value > old_value and new_value >= self.max_scroll_y - 1:
            self._follow = True
        if new_value < 1 and self._stack.first:
            older = self._stack.older()
            self._lay_out(self._stack.blocks[older : self._stack.first], first=older)

    def on_resize(self) -> None:
        """Lay out for the new width, and keep what was in view."""
        self._sized = True
        self._lay_out(self._stack.blocks)

    def render_line(self, y: int) -> Strip:
        """One row of the screen."""
        row = y + self.scroll_offset.y
        base = self.visual_style
        line = self._line(row)
        content = line.content
        selection = self.text_selection
        if selection is not None and (span := selection.get_span(row)) is not None:
            start, end = span
            chosen = Style.from_styles(self.screen.get_component_styles("screen--selection"))
            content = content.stylize(chosen, start, None if end == -1 else end)
        segments = content.render_segments(base)
        strip = Strip(segments, content.cell_length).apply_offsets(0, row)
        return strip.adjust_cell_length(self._width, base.rich_style)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The text a user selected, without our indents and joined where rows wrap."""
        first = selection.start.y if selection.start is not None else 0
        bottom = self._stack.height - 1
        last = selection.end.y if selection.end is not None else bottom
        pieces: list[str] = []
        for row in range(max(first, 0), min(last, bottom) + 1):
            line = self._line(row)
            span = selection.get_span(row) or (0, -1)
            end = len(line.content.plain) if span[1] == -1 else span[1]
            pieces.append(line.content.plain[max(span[0], line.chrome) : end])
            pieces.append(line.joint)
        return "".join(pieces[:-1]), "\n"

    @property
    def _width(self) -> int:
        return max(1, self.scrollable_content_region.width)

    def _lay_out(self, changed: Sequence[MessageBlock], first: int | None = None) -> None:
        """Bring rows and scroll position in line with the messages.

        Args:
            changed: those to lay out for the present width; the others are laid out for it already.
            first: the first message to be laid out from now on; None leaves it where it is.
        """
        if not self._sized:
            return
        stack = self._stack
        top = self.scroll_offset.y
        anchor = stack.top(top)
        stack.first = stack.first if first is None else first
        for block in changed:
            block.resize(self._width)
        for block in stack.shown:
            block.pointed = self._is_pointed(block)
            block.view = self._view_of(block)
        stack.measure()
        self._place(anchor, top)
        self.refresh()

    def _place(self, anchor: tuple[MessageBlock, int] | None, top: int) -> None:
        """Scroll to where the rows are now.

        Args:
            anchor: the block that was at the top of the view, and the first row it had.
            top: the row that was at the top of the view.
        """
        self._placing = True
        try:
            self.virtual_size = Size(self._width, self._stack.height)
            if self._follow:
                self.scroll_to(y=self.max_scroll_y, animate=False, force=True)
            elif anchor is not None and (start := self._stack.start_of(anchor[0])) is not None:
                self.scroll_to(y=start + top - anchor[1], animate=False, force=True)
        finally:
            self._placing = False

    def bring_into_view(self) -> None:
        """Scroll to where the cursor is."""
        block = self.block_of(self.cursor.message_id) if self.cursor is not None else None
        if block is None or self.cursor is None or not self._sized:
            return
        place = self._stack.blocks.index(block)
        if place < self._stack.first:
            self._lay_out(self._stack.blocks[place : self._stack.first], first=place)
        row = self._stack.start_of(block) or 0
        if self.cursor.token is not None:
            row += block.place_of(self.cursor.token)[1]
        height = max(1, self.scrollable_content_region.height)
        above, below = self.scroll_offset.y, self.scroll_offset.y + height - 1
        if row <= above:
            self._scroll_to_row(row - 1)
        elif row >= below:
            self._scroll_to_row(row - height + 2)

    def _scroll_to_row(self, row: int) -> None:
        self._follow = row >= self.max_scroll_y
        self._placing = True
        try:
            self.scroll_to(y=row, animate=False, force=True)
        finally:
            self._placing = False

    def _line(self, row: int) -> Line:
        found = self._stack.at(row)
        if found is None:
            if not self._stack.messages:
                return _welcome(row - max(0, self._stack.height - 1), self._width)
            above = self._stack.messages_above
            hidden = f"↑ {above} earlier messages" if above else "↑ the system text"
            words = hidden if self._stack.first and row == 0 else ""
            return Line(Content.styled(words, MUTED), chrome=len(words))
        block, start = found
        cursor = self.cursor
        here = cursor is not None and cursor.message_id == block.message.id
        token = cursor.token if here and cursor is not None else None
        look = self.looks.get(block.message.id)
        line = block.row(row - start, self._style_of(block) if look is None else look.style, token)
        if here and row == start:
            line = Line(line.content + Content.styled("  ◂", "$text-accent"), chrome=line.chrome)
        return line

    def _is_pointed(self, block: MessageBlock) -> bool:
        return self.cursor is not None and self.cursor.message_id == block.message.id

    def _view_of(self, block: MessageBlock) -> View:
        look = self.looks.get(block.message.id)
        shows_tokens = self._is_pointed(block) or (look is not None and look.styles)
        return "tokens" if shows_tokens else self.view

    def _style_of(self, block: MessageBlock) -> Callable[[int], Style]:
        dark = self.app.current_theme.dark
        return lambda index: token_style(block.records[index], self.scale, dark=dark)


def _welcome(row: int, width: int) -> Line:
    """One row of what an empty chat shows."""
    lines = indent(wrap(Content(WELCOME), width - 4), Content("  "), Content("  "))
    line = lines[row - 1] if 0 < row <= len(lines) else EMPTY
    return replace(line, content=line.content.stylize_before(MUTED))


def _place(message: Message, beside: Sequence[str]) -> Place:
    if message.id not in beside:
        return Place()
    return Place(beside.index(message.id) + 1, len(beside))


def _place_in(conversation: Conversation, message: Message) -> Place:
    return _place(message, [sibling.id for sibling in conversation.siblings(message.id)])
