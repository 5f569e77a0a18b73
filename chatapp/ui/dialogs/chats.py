"""All chats that are kept: by time, or found by what was said in them; opened, renamed, put away.

What is typed is searched for in every message at each key, so the letters that act on a chat work
while the list has the focus, one Tab away.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input, Static

from chatapp.chat.conversation import ConversationSummary, SearchHit
from chatapp.chat.errors import ChatappError
from chatapp.chat.text import sanitise
from chatapp.ui.chat.conversations import Conversations, Place
from chatapp.ui.dialogs.dialog import Dialog
from chatapp.ui.dialogs.write import LineScreen
from chatapp.ui.drawing import MUTED
from chatapp.ui.widgets.row_list import RowList

_FOUND = "bold $text-accent"
_TYPING = "enter open · ↑↓ choose · tab rename, pin, delete … · esc close"
_LISTING = "enter open · r rename · p pin · c copy · x export · d delete · u undo · esc close"


@dataclass(frozen=True, slots=True)
class ChatRow:
    """A chat, by its title, time, length and model."""

    summary: ConversationSummary
    current: bool

    def lines(self, width: int) -> Sequence[Content]:
        summary = self.summary
        title = _one_line(summary.title or summary.first_words) or "untitled"
        parts = [time.strftime("%Y-%m-%d %H:%M", time.localtime(summary.changed))]
        words = "1 message" if summary.messages == 1 else f"{summary.messages} messages"
        parts.append(words)
        if summary.model:
            parts.append(_one_line(summary.model))
        if self.current:
            parts.append("open now")
        name = Content.styled(title, "bold")
        if summary.pinned:
            name = Content.styled("pinned  ", "$text-accent") + name
        return name, Content.styled("  " + " · ".join(parts), MUTED)

    @property
    def place(self) -> Place:
        """The end of the chat."""
        return Place(self.summary.id)


@dataclass(frozen=True, slots=True)
class HitRow:
    """Something that was found, in its context."""

    hit: SearchHit

    def lines(self, width: int) -> Sequence[Content]:
        """The chat and who said it, then the words around."""
        hit = self.hit
        who = {"user": "you", "assistant": "assistant"}.get(hit.role or "", "title")
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(hit.created))
        name = Content.styled(_one_line(hit.title) or "untitled", "bold")
        return (
            name + Content.styled(f"  {who} · {when}", MUTED),
            Content("  ") + marked(hit.snippet, hit.marks),
        )

    @property
    def place(self) -> Place:
        """The message it was found in."""
        hit = self.hit
        words = hit.snippet[slice(*hit.marks[0])] if hit.marks else ""
        return Place(hit.conversation_id, hit.message_id, words)


class ChatsScreen(Dialog[Place | None]):
    """Choose a chat, or a place in one; None when the user stays where they are."""

    HELP = (
        "Chats, the pinned ones first, then by time. What is typed is searched for in all"
        " messages and titles; Enter opens the chat at the place that was found.\n"
        "Tab goes to the list, where letters act on the chat that is highlighted."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "leave", id="chats.leave"),
        Binding("up", "move(-1)", "up", show=False, id="chats.up"),
        Binding("down", "move(1)", "down", show=False, id="chats.down"),
        Binding("pageup", "page(-1)", "page up", show=False, id="chats.pageup"),
        Binding("pagedown", "page(1)", "page down", show=False, id="chats.pagedown"),
        Binding("tab", "other", "to the list and back", id="chats.other", priority=True),
        Binding("r", "act('rename')", "give the chat another title", id="chats.rename"),
        Binding("p", "act('pin')", "keep the chat on top, or no longer", id="chats.pin"),
        Binding("c", "act('duplicate')", "make a copy of the chat", id="chats.duplicate"),
        Binding("x", "act('export')", "write the chat to a file", id="chats.export"),
        Binding("d,delete", "act('delete')", "delete the chat", id="chats.delete"),
        Binding("u", "act('undelete')", "bring back what was deleted last", id="chats.undelete"),
    ]

    def __init__(
        self,
        conversations: Conversations,
        summaries: Sequence[ConversationSummary],
        current: str,
        text: str = "",
    ) -> None:
        """Show some chats, `current` being the open one; `text` is searched for at once."""
        super().__init__()
        self._conversations = conversations
        self._summaries = summaries
        self._current = current
        self._text = text
        self._rows: Sequence[ChatRow | HitRow] = ()
        self.shown_for = ""
        """What was typed when the present rows were found."""

    def compose(self) -> ComposeResult:
        return self.framed(
            "Chats",
            Input(
                self._text,
                placeholder="type to search all messages",
                id="chats-search",
                compact=True,
            ),
            RowList(height=2, id="chats-list"),
            Static(Content(""), markup=False, id="chats-words"),
            Static(Content.styled(_TYPING, MUTED), markup=False, id="chats-keys"),
            shape="tall chats",
        )

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        if not self._text:
            self._show_all()

    @property
    def rows(self) -> Sequence[ChatRow | HitRow]:
        return self._rows

    # Finding

    @on(Input.Changed)
    def search(self, event: Input.Changed) -> None:
        """Look for what is typed; the answer to an older text is dropped."""
        event.stop()
        self.work(partial(self._search, event.value), "search", exclusive=True)

    async def _search(self, text: str) -> None:
        if not text.strip():
            self._show_all()
            return
        try:
            hits = await self._conversations.chats.search(text)
        except ChatappError as error:
            self.say(str(error))
            return
        self._rows = [HitRow(hit) for hit in hits]
        self.shown_for = text
        self._list.show(self._rows, empty="no message or title has these words")

    def _show_all(self, chosen: str | None = None) -> None:
        """Show all chats; stand on the chosen one, or on the open one."""
        wanted = chosen or self._current
        self.shown_for = ""
        self._rows = [ChatRow(s, s.id == self._current) for s in self._summaries]
        places = [i for i, summary in enumerate(self._summaries) if summary.id == wanted]
        self._list.show(
            self._rows, highlighted=places[0] if places else 0, empty="no chat is kept yet"
        )

    # Keys

    def on_key(self) -> None:
        self.say("")

    def on_descendant_focus(self) -> None:
        keys = _LISTING if self._list.has_focus else _TYPING
        self.query_one("#chats-keys", Static).update(Content.styled(keys, MUTED))

    @on(Input.Submitted)
    def take_highlighted(self, event: Input.Submitted) -> None:
        """Enter opens from the search too."""
        event.stop()
        self._list.action_choose()

    @on(RowList.Chosen)
    def take(self, event: RowList.Chosen) -> None:
        event.stop()
        if isinstance(event.drawn, ChatRow | HitRow):
            self.dismiss(event.drawn.place)

    def action_move(self, steps: int) -> None:
        """Move in the list, while the text stays where it is."""
        self._list.action_move(steps)

    def action_page(self, pages: int) -> None:
        self._list.action_page(pages)

    def action_other(self) -> None:
        """To the list, or back to the search."""
        (self.query_one(Input) if self._list.has_focus else self._list).focus()

    # What is done with a chat

    def action_act(self, name: str) -> None:
        """Do something with the chat that is highlighted, and say what was done."""
        self.work(partial(self._act, name, self._highlighted()), "act")

    async def _act(self, name: str, summary: ConversationSummary | None) -> None:
        try:
            if name == "undelete":
                title = await self._conversations.undelete_chat()
                done = "nothing was deleted" if title is None else f"{_one_line(title)} is back"
                await self._renew()
            elif summary is None:
                done = "there is no chat here"
            else:
                done = await self._do(name, summary)
                await self._renew(summary.id)
        except ChatappError as error:
            done = str(error)
        self.say(done)

    async def _do(self, name: str, summary: ConversationSummary) -> str:
        """Do it, and return what was done. Raises ChatappError."""
        conversations, id_ = self._conversations, summary.id
        match name:
            case "rename":
                title = await self._asked("Another title", summary.title, "keeps it")
                if title is None:
                    return ""
                await conversations.rename_chat(id_, title)
                return f"it is called {_one_line(title)} now"
            case "pin":
                await conversations.chats.pin(id_, not summary.pinned)
                return "no longer pinned" if summary.pinned else "pinned: it stays on top"
            case "duplicate":
                await conversations.chats.duplicate(id_)
                return "copied, with all that belongs to it"
            case "export":
                name = re.sub(r"[^\w-]+", "-", summary.title.lower()).strip("-") or "chat"
                title = "Export to file (.md, .html, .json, .jsonl)"
                file = await self._asked(title, f"{name}.md", "writes the file")
                if file is None:
                    return ""
                path = Path(file).expanduser()  # noqa: ASYNC240 (no file is looked at)
                await conversations.export_chat(id_, path)
                return f"written to {path}"
        await conversations.delete_chat(id_)
        self._current = conversations.current
        return "deleted; u brings it back, for 30 days"

    async def _asked(self, title: str, text: str, what_happens: str) -> str | None:
        return await self.app.push_screen_wait(LineScreen(title, text, what_happens))

    def say(self, words: str) -> None:
        """Tell the user something."""
        self.query_one("#chats-words", Static).update(Content(sanitise(words)))

    async def _renew(self, chosen: str | None = None) -> None:
        """Read the list anew, and stay on a chat."""
        here = self._list.highlighted
        self._summaries = await self._conversations.chats.list_conversations()
        text = self.query_one(Input).value
        if text.strip():
            await self._search(text)
        else:
            self._show_all(chosen)
        if chosen not in {summary.id for summary in self._summaries} or text.strip():
            self._list.highlighted = min(here, max(0, len(self._rows) - 1))

    def _highlighted(self) -> ConversationSummary | None:
        if not self._rows:
            return None
        wanted = self._rows[self._list.highlighted].place.conversation_id
        return next((s for s in self._summaries if s.id == wanted), None)

    @property
    def _list(self) -> RowList:
        return self.query_one(RowList)


def marked(text: str, marks: Sequence[tuple[int, int]]) -> Content:
    """A text with some stretches of it marked; made safe to draw piece by piece."""
    pieces: list[Content] = []
    end = 0
    for first, last in marks:
        pieces.append(Content(_one_line(text[end:first])))
        pieces.append(Content.styled(_one_line(text[first:last]), _FOUND))
        end = last
    pieces.append(Content(_one_line(text[end:])))
    return Content("").join(pieces)


def _one_line(text: str) -> str:
    return sanitise(text).replace("\n", " ").replace("\t", " ")
