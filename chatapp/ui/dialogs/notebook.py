"""The whole chat as one text: edited anywhere, and gone on from there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from chatapp.chat.errors import ChatappError
from chatapp.ui.dialogs.dialog import Dialog
from chatapp.ui.drawing import MUTED, renew
from chatapp.ui.widgets.vim import VimArea

LOOKS_PER_SECOND = 8
"""How often what streams is brought into the text."""
_TITLE = "The whole chat as one text; a line === user, === assistant or === system begins a turn"
_KEYS = "ctrl+r go on at the end · ctrl+t at the cursor · ctrl+s only keep · esc close"
_KEPT = "kept; the words before stand beside them, [ and ] in the chat go there"
_COMING = "the reply comes … esc stops it"


class NotebookScreen(Dialog[None]):
    """Changes the chat through its text."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "stop the reply, else leave", id="notebook.leave"),
        Binding("ctrl+r", "go_on", "go on at the end", id="notebook.go_on", priority=True),
        Binding("ctrl+t", "cut", "go on at the cursor", id="notebook.cut", priority=True),
        Binding("ctrl+s", "keep", "keep what is changed", id="notebook.keep", priority=True),
    ]

    def __init__(
        self,
        text: Callable[[], str],
        busy: Callable[[], bool],
        keep: Callable[[str], Awaitable[None]],
        go_on: Callable[[str], Awaitable[None]],
        stop: Callable[[], None],
        said: Callable[[], str],
        *,
        vim: bool = False,
    ) -> None:
        """Show a chat.

        Args:
            text: of the chat, as it is.
            busy: whether a reply is under way.
            keep: makes a text the chat's; raises ChatappError, and changes nothing then.
            go_on: the same, and has the model write on at its end.
            stop: ends the reply under way.
            said: what there was to say about the last one.
            vim: whether it is edited with Vim's keys.
        """
        super().__init__()
        self._text, self._busy, self._keep, self._go_on = text, busy, keep, go_on
        self._stop, self._said, self._vim = stop, said, vim
        self._shown = text()
        self._warned = False

    def compose(self) -> ComposeResult:
        area = VimArea(self._shown, id="notebook-text", compact=True)
        words = Static(Content(""), id="notebook-words", markup=False)
        return self.framed(_TITLE, area, words, shape="tall")

    def on_mount(self) -> None:
        self.area.vim = self._vim
        self.area.move_cursor(self.area.document.end)
        self.area.focus()
        self._say(_KEYS)
        self.set_interval(1 / LOOKS_PER_SECOND, self.follow)
        self.follow()

    @property
    def area(self) -> VimArea:
        return self.query_one(VimArea)

    def follow(self) -> None:
        """Bring in what has come of a reply; nothing can be written meanwhile."""
        busy = self._busy()
        if busy or self.area.read_only:
            self._take()
        if busy != self.area.read_only:
            self.area.read_only = busy
            self._say(_COMING if busy else self._said() or _KEYS)

    def _take(self) -> None:
        """Show the chat where it has changed; a cursor at the end stays there."""
        now, area = self._text(), self.area
        if now == self._shown:
            return  # what is written here may be more than the chat has been told
        self._shown = now
        at_end, before = area.cursor_at_end_of_text, area.text
        if now.startswith(before):
            area.insert(now[len(before) :], area.document.end, maintain_selection_offset=False)
        else:
            area.load_text(now)
        if at_end:
            area.move_cursor(area.document.end)

    async def action_keep(self) -> None:
        if await self._do(self._keep, self.area.text):
            self._take()
            self._say(_KEPT)

    async def action_go_on(self) -> None:
        await self._do(self._go_on, self.area.text)

    async def action_cut(self) -> None:
        """Have the model write on at the cursor; what stands behind it stays in the old path."""
        area = self.area
        await self._do(self._go_on, area.get_text_range((0, 0), area.cursor_location))

    async def _do(self, doing: Callable[[str], Awaitable[None]], text: str) -> bool:
        """Do something with a text. Returns whether it was done; if not, it was said why."""
        if self._busy():
            return False
        self._warned = False
        try:
            await doing(text)
        except ChatappError as error:
            self._say(str(error), "$text-warning")
            return False
        self.follow()
        return True

    def action_leave(self) -> None:
        """Stop the reply; else leave, at once where nothing is changed."""
        if self._busy():
            self._stop()
        elif self.area.text == self._shown or self._warned:
            self.dismiss(None)
        else:
            self._warned = True
            self._say("not kept yet: ctrl+s keeps it; esc once more drops it", "$text-warning")

    def _say(self, words: str, style: str = MUTED) -> None:
        renew(self.query_one("#notebook-words", Static), Content.styled(words, style))
