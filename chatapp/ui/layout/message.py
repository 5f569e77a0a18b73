"""One message of the transcript, or the system text above them: who speaks, what is said, and what
is to be noted about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from textual.content import Content
from textual.style import Style

from chatapp.chat import numbers
from chatapp.chat.conversation import Message, Reply
from chatapp.chat.record import FinishReason, TokenRecord
from chatapp.chat.text import sanitise
from chatapp.chat.thinking import Thinking, ThinkingWatch
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import EMPTY, Line, alike, indent, wrap
from chatapp.ui.layout.markdown import GrowingMarkdown
from chatapp.ui.layout.summary import reply_summary, text_summary
from chatapp.ui.layout.tokens import TokenLayout
from chatapp.ui.token_colours import Look, with_sign

View = Literal["markdown", "tokens"]

SYSTEM = "system"
"""Stands for the system text where a message's id is asked for."""

_FOLDED_ROWS = 2
"""How many rows of the system text are there when it is folded."""
_FOLDED_FROM = _FOLDED_ROWS + 2
"""From how many rows on it is folded: hiding a single one would win nothing."""

INDENT = 2
_SPACE = Content(" " * INDENT)
_CARET = "▌"

_ENDINGS = {
    FinishReason.LENGTH: "cut at the maximum number of tokens; /continue goes on",
    FinishReason.CONTEXT: "cut: no room is left in the context; Ctrl+N begins a new chat",
    FinishReason.CANCELLED: "stopped; /continue goes on",
    FinishReason.ERROR: "the engine failed; /continue goes on",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Which of how many siblings a message is, from 1."""

    number: int = 1
    count: int = 1


class MessageBlock:
    """A message and its rows. The transcript draws what `row` gives for 0 ≤ y < `height`."""

    def __init__(self, message: Message, place: Place = Place(), *, live: bool = False) -> None:
        """Show a message; `live` when it is about to stream."""
        self.message = message
        self.place = place
        self.live = live
        self._status = ""
        self.view: View = "markdown"
        self.pointed = False
        """Whether the cursor is in it."""
        self._records: list[TokenRecord] | None = None if message.reply else []
        self._markdown: GrowingMarkdown | None = None
        self._tokens: TokenLayout | None = None
        self._signs: tuple[str, ...] = ()
        self._pieces: tuple[bytes, ...] = ()
        self._summary: tuple[object, str] | None = None
        """In numbers, and of what."""
        self._width = 0
        self._rows: list[Line] | None = None
        self._watch = ThinkingWatch()
        self._opened = False
        self._thinking = _thinking_of(message)

    @property
    def thinks(self) -> bool:
        """Whether the model thought, or thinks, before it answers."""
        return self._thinking is not None

    @property
    def opened(self) -> bool:
        """Whether its thinking is shown."""
        return self._opened

    @opened.setter
    def opened(self, opened: bool) -> None:
        self._opened = opened
        self._rows = self._tokens = self._markdown = None

    @property
    def first_token(self) -> int:
        """The first token that is shown: those of folded thinking are not."""
        return self._thinking.tokens if self._thinking is not None and not self._opened else 0

    def await_tokens(self, words: str, thinking: Thinking | None) -> None:
        """Say what a live reply is waiting for; and how it will mark its thinking, once known."""
        self.status = words
        if thinking is not None and not self.records:
            self._watch = ThinkingWatch(thinking)

    @property
    def status(self) -> str:
        """While it is live and silent: what is being waited for."""
        return self._status

    @status.setter
    def status(self, text: str) -> None:
        self._status = text
        self._rows = None

    @property
    def records(self) -> list[TokenRecord]:
        """Its tokens. Those of a kept reply are unpacked when someone first looks: a chat of 500
        messages has a million candidates, and most are never looked at."""
        if self._records is None:
            self._records = list(self.message.reply.records) if self.message.reply else []
        return self._records

    @records.setter
    def records(self, records: list[TokenRecord]) -> None:
        self._records = records

    @property
    def has_tokens(self) -> bool:
        """Whether the cursor can walk it."""
        if self._records is None and self.message.reply is not None:
            return bool(self.message.reply.ids)
        return bool(self.records)

    @property
    def is_reply(self) -> bool:
        """Whether a model wrote its tokens; what was given and scored has tokens, too."""
        return self.message.reply is not None and self.has_tokens

    @property
    def height(self) -> int:
        """How many rows it takes at the width of the last `resize`."""
        return len(self._head()) + self._body_height() + len(self._foot()) + 1

    def resize(self, width: int) -> None:
        """Lay out for a width in cells."""
        self._width = width
        self._rows = None
        if self._tokens is not None:
            self._tokens.resize(self._inner)

    def take_scores(self, records: Sequence[TokenRecord]) -> None:
        """Show a message as scored tokens."""
        self.records = list(records)
        self._tokens = self._summary = None

    def take_look(self, look: Look | None) -> bool:
        """Draw its tokens as another look has them. Returns whether rows may have moved."""
        signs, pieces = (look.signs, look.tokens) if look is not None else ((), ())
        if (signs, pieces) == (self._signs, self._pieces):
            return False
        self._signs, self._pieces, self._tokens = signs, pieces, None
        return True

    def feed(self, records: Sequence[TokenRecord]) -> int:
        """Add tokens as they come. Returns the first row that looks different now."""
        last, rows = self._body_height() - 1, self._rows
        self.records.extend(records)
        self.status = ""
        if not self._watch.over:
            for record in records:
                self._watch.push(record.text)
            self._thinking = self._watch.found(0.0)
            self.opened = self._opened  # all of it may stand elsewhere now
            return 0
        if self._markdown is not None:
            self._markdown.append(sanitise("".join(record.text for record in records)))
        if self._tokens is not None:
            self._tokens.extend(record.bytes for record in records)
        # The last row loses the caret at least; in the tokens view all above it stays.
        kept = last if self._shows_tokens else min(last, alike(rows or (), self._text_rows()))
        return len(self._head()) + max(kept, 0)

    def finish(self, message: Message, place: Place) -> None:
        """Take the complete message in place of what streamed."""
        self.message = message
        self.place = place
        self.live = False
        self.status = ""
        self._thinking = _thinking_of(message)
        self.opened = self._opened
        if message.reply is not None and len(message.reply.records) != len(self.records):
            self.records = list(message.reply.records)

    def row(self, y: int, style: Callable[[int], Style | str], cursor: int | None) -> Line:
        """One row; `style` colours tokens, `cursor` is the token pointed at, if it is here."""
        head = self._head()
        if y < len(head):
            return head[y]
        y -= len(head)
        height = self._body_height()
        if y < height:
            return self._body_row(y, style, cursor)
        y -= height
        foot = self._foot()
        return foot[y] if y < len(foot) else EMPTY

    def token_at(self, x: int, y: int) -> int | None:
        """The token drawn on a cell of the block; in the Markdown view, the one of that letter."""
        if not self.records:
            return None
        y -= len(self._head())
        height = self._body_height()
        if not 0 <= y < height:
            return None
        if self._shows_tokens:
            found = self._token_layout.token_at(x - INDENT, y)
            return None if found is None else found + self.first_token
        return self._token_of_letter(x - INDENT, y)

    def place_of(self, index: int) -> tuple[int, int]:
        """Where a token stands in the tokens view, as (x, y) within the block."""
        x, y = self._token_layout.place_of(max(0, index - self.first_token))
        return x + INDENT, y + len(self._head())

    def token_below(self, index: int, rows: int) -> int | None:
        """The token that many rows below (or above) another; None past either end."""
        first, layout = self.first_token, self._token_layout
        x, y = layout.place_of(max(0, index - first))
        if not 0 <= y + rows < layout.height:
            return None
        found = layout.token_at(x, y + rows)
        return None if found is None or found + first == index else found + first

    @property
    def _inner(self) -> int:
        return max(self._width - INDENT, 1)

    @property
    def _shows_tokens(self) -> bool:
        return self.view == "tokens" and (self.has_tokens or bool(self._pieces))

    @property
    def _token_layout(self) -> TokenLayout:
        if self._tokens is None:
            self._tokens = TokenLayout(self._drawn(), self._inner)
        return self._tokens

    def _drawn(self) -> Iterator[bytes]:
        """The bytes of all tokens, with a sign behind those that have one."""
        if not self.records:
            yield from self._pieces
        first = self.first_token
        for index, record in enumerate(self.records[first:], first):
            sign = self._signs[index] if index < len(self._signs) else ""
            yield with_sign(record.bytes, sign) if sign else record.bytes

    def _body_height(self) -> int:
        if self._shows_tokens:
            return self._token_layout.height
        return len(self._text_rows())

    def _body_row(self, y: int, style: Callable[[int], Style | str], cursor: int | None) -> Line:
        if self._shows_tokens:
            first = self.first_token
            here = None if cursor is None else cursor - first
            line = self._token_layout.row(y, lambda index: style(index + first), here)
        else:
            line = self._text_rows()[y]
        if self.live and y == self._body_height() - 1:
            line = Line(line.content + Content.styled(_CARET, "$text-accent"), chrome=line.chrome)
        return indent([line], _SPACE, _SPACE)[0]

    def _text_rows(self) -> list[Line]:
        if self._rows is None:
            self._rows = self._lay_out_text()
        return self._rows

    def _lay_out_text(self) -> list[Line]:
        if self.live and not self.records:
            waiting = self.status or "…"
            return wrap(Content.styled(waiting, MUTED), self._inner)
        if self.message.role == "user":
            return wrap(Content(sanitise(self.message.text)), self._inner)
        text = thought = ""
        if self._markdown is None or self._opened:
            text = "".join(r.text for r in self.records) if self.live else self.message.text
            end = self._thinking.end(text) if self._thinking is not None else 0
            text, thought = text[end:], text[:end].strip()
        if self._markdown is None:
            self._markdown = GrowingMarkdown(sanitise(text))
        above = wrap(Content.styled(sanitise(thought), MUTED), self._inner) if self._opened else []
        return [*above, *self._markdown.lines(self._inner)] or [EMPTY]

    def _head(self) -> list[Line]:
        mine = self.message.role == "user"
        style = "bold $text-primary" if mine else "bold $text-success"
        name = Content.styled("you" if mine else "assistant", style)
        if self.place.count > 1:
            name += Content.styled(f"  ‹ {self.place.number}/{self.place.count} ›", MUTED)
        if (thinking := self._thinking) is None:
            return [Line(name)]
        words = "thinking" if self.live and self._watch.inside else "thought"
        if thinking.seconds:
            words += f" for {numbers.duration(thinking.seconds)}"
        if thinking.tokens:
            words += f", {numbers.tokens(thinking.tokens)}"
        sign, key = ("▾", "z folds it") if self._opened else ("▸", "z opens it")
        line = wrap(Content.styled(f"{sign} {words}; {key}", MUTED), self._inner)[:1]
        return [Line(name), *indent(line, _SPACE, _SPACE)]

    def _foot(self) -> list[Line]:
        """Why a reply ended, where it is not simply done, and where its settings changed; of what
        was given and not written by a model, how probable it was."""
        reply = self.message.reply
        if self.live:
            return []
        if reply is None:
            scored = self._shows_tokens and self.has_tokens
            return self._notes([self._told()], MUTED) if scored else []
        notes: list[str] = []
        changes = [
            f"T {span.sampling.temperature:.2f} from token {span.start + 1}"
            for before, span in zip(reply.sampling, reply.sampling[1:], strict=False)
            if before.sampling.temperature != span.sampling.temperature
        ]
        if changes:
            notes.append("temperature: " + ", ".join(changes[:4]))
        if note := self._ending(reply):
            notes.append(note)
        if self._shows_tokens:
            notes.append(self._told())
        failed = reply.finish_reason is FinishReason.ERROR
        return self._notes(notes, "$text-error" if failed else MUTED)

    def _notes(self, notes: Sequence[str], style: str) -> list[Line]:
        contents = [Content.styled("· " + note, style) for note in notes]
        rows = [row for one in contents for row in wrap(one, self._inner)]
        return indent(rows, _SPACE, _SPACE)

    def _told(self) -> str:
        """Its tokens in numbers."""
        reply = self.message.reply
        if self._summary is None or self._summary[0] is not reply:
            words = reply_summary(reply) if reply else f"your text: {text_summary(self.records)}"
            self._summary = (reply, words)
        return self._summary[1]

    def _ending(self, reply: Reply) -> str:
        """Why the reply ended, and what can be done about it; empty where it is simply done."""
        if reply.finish_reason is None:
            words = "cut: the program ended in the middle of it; /continue goes on"
        else:
            words = _ENDINGS.get(reply.finish_reason, "")
        if reply.error:
            words = f"{sanitise(reply.error)}; /continue goes on"
        if self.has_tokens:
            return words
        # What has no token yet has no end to go on from.
        return words.replace("/continue goes on", "Ctrl+R writes it again")

    def _token_of_letter(self, x: int, y: int) -> int | None:
        """The token of the letter on a cell of the Markdown view.

        Markdown hides signs and adds others, but keeps the letters and digits and their order: the
        n-th of them on the screen is the n-th of the text.
        """
        rows = self._text_rows()
        before = "".join(row.text for row in rows[:y])
        upto = rows[y].content.plain[rows[y].chrome : max(rows[y].chrome, x)]
        wanted = _letters(before + upto)
        seen = 0
        first = self.first_token
        for index, record in enumerate(self.records[first:], first):
            seen += _letters(record.text)
            if seen > wanted:
                return index
        return len(self.records) - 1


class SystemBlock(MessageBlock):
    """The system text as the first block, no message of the conversation: it is often long and
    seldom looked at, so it is folded to its first rows; with the cursor in it, all is there."""

    def __init__(self, text: str) -> None:
        """Show a system text."""
        # The role is never shown or read; what matters is that no model wrote it.
        super().__init__(Message(id=SYSTEM, parent=None, role="user", text=text, created=0.0))

    def _body_height(self) -> int:
        return super()._body_height() - self._folded_rows

    @property
    def _folded_rows(self) -> int:
        """How many rows are not there."""
        rows = super()._body_height()
        return 0 if self.pointed or rows < _FOLDED_FROM else rows - _FOLDED_ROWS

    def _lay_out_text(self) -> list[Line]:
        return wrap(Content.styled(sanitise(self.message.text), MUTED), self._inner)

    def _head(self) -> list[Line]:
        name = Content.styled("system", f"bold {MUTED}")
        if folded := self._folded_rows:
            name += Content.styled(f"  … {numbers.count(folded)} more rows", MUTED)
        return [Line(name)]


def _thinking_of(message: Message) -> Thinking | None:
    """What is kept of a reply's thinking; of a text from elsewhere, that there is some."""
    if message.reply is not None and message.reply.thinking is not None:
        return message.reply.thinking
    marks = Thinking()
    return marks if message.role == "assistant" and marks.end(message.text) else None


def _letters(text: str) -> int:
    return sum(character.isalnum() for character in text)
