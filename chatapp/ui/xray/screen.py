"""Pages about one token, turned with the keys. What a page shows is asked of the engine when it is
looked at, with progress; leaving it withdraws the question."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from chatapp.chat.errors import ChatappError
from chatapp.chat.text import visible_token
from chatapp.explain.views import Made, Page
from chatapp.ui.dialogs.dialog import Dialog, HelpScreen
from chatapp.ui.drawing import MUTED
from chatapp.ui.widgets.page_view import PageView
from chatapp.ui.xray.inside import Inside

_WRITES = {
    "tokens": "enter: write any text, and its tokens appear as you write",
    "words": "enter: a word, a sum such as woman - man + uncle, or words for a map",
}
"""Pages on which something can be written, and what is said there of it."""
_HELP = (
    "The inside of the model at one token of the conversation, computed from its weights in"
    " float32. Each page begins with what it shows.\n"
    "Tab turns the pages, and so do the digits. ← → go to the token before or behind, [ ] to"
    " another layer, and , . to another head; before the first head is the mean of all of them, and"
    " parts are told head by head behind it. What is near a word is looked up in the other matrix"
    " and by the other measure with the same keys, and on a map ← → go from word to word."
)
_JOURNEY_HELP = (
    "How one token came to be, stage by stage, with the numbers of this very reply. → goes on, ←"
    " goes back, digits jump, Enter opens the page that shows more of a stage."
)


class PagesScreen(Dialog[int]):
    """Shows pages; gives back the place of the token that was looked at last."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "leave", id="inside.leave"),
        Binding("tab", "turn(1)", "next page", id="inside.next", priority=True),
        Binding("shift+tab", "turn(-1)", "page before", id="inside.before", priority=True),
        Binding("right", "go(1)", "next token, or stage", id="inside.right"),
        Binding("left", "go(-1)", "token or stage before", id="inside.left"),
        Binding(
            "right_square_bracket,greater_than_sign", "layer(1)", "next layer", id="inside.layer_up"
        ),
        Binding(
            "left_square_bracket,less_than_sign",
            "layer(-1)",
            "layer before",
            id="inside.layer_down",
        ),
        Binding("full_stop", "head(1)", "next head", id="inside.head_up"),
        Binding("comma", "head(-1)", "head before, or the mean", id="inside.head_down"),
        Binding("enter", "deeper", "write, or the page that shows more", id="inside.deeper"),
        Binding("f1", "help", "help", id="inside.help"),
        *(
            Binding(f"{(n + 1) % 10}", f"jump({n})", f"page {n + 1}", id=f"inside.page_{n + 1}")
            for n in range(10)
        ),
    ]

    def __init__(
        self, inside: Inside, first: str = "", stages: Sequence[Page] | None = None
    ) -> None:
        """Begin with the page `first`; `stages` are pages in place of those of `inside`."""
        super().__init__()
        self._inside = inside
        self._journey = stages is not None
        self._pages = tuple(stages if stages is not None else inside.pages)
        names = [page.name for page in self._pages]
        self._at = names.index(first) if first in names else 0
        self._made: dict[tuple[object, ...], Made] = {}

    def compose(self) -> ComposeResult:
        """The pages' names, the text around the token, the page, what is written, the keys."""
        with Vertical(classes="dialog tall inside"):
            yield Static(Content(""), markup=False, id="inside-tabs")
            yield Static(Content(""), markup=False, id="inside-where")
            yield PageView(id="inside-lines")
            yield Input(id="inside-words", compact=True)
            yield Static(Content(""), markup=False, id="inside-keys")

    def on_mount(self) -> None:
        self.query_one(PageView).focus()
        self._show()

    @property
    def page(self) -> Page:
        return self._pages[self._at]

    @property
    def text_rows(self) -> list[str]:
        return self.query_one(PageView).text_rows

    # Keys

    def action_leave(self) -> None:
        """Back from what is written to the token; else to the chat, or to the journey."""
        if self.query_one(Input).has_focus or self._inside.written:
            self._forget_words()
            self._show()
        else:
            self.dismiss(self._inside.place)

    def action_turn(self, steps: int) -> None:
        self.action_jump((self._at + steps) % len(self._pages))

    def action_jump(self, number: int) -> None:
        if number < len(self._pages):
            self._at = number
            self._forget_words()
            self.query_one(PageView).say("…")
            self._show()

    def action_go(self, steps: int) -> None:
        """To another token; in a journey to another stage."""
        if not self._journey:
            if self._on_map:
                self._inside.mark += steps
            else:
                self._inside.move(steps)
            self._show()
        elif 0 <= self._at + steps < len(self._pages):
            self.action_jump(self._at + steps)

    def action_layer(self, steps: int) -> None:
        """To another layer; for words to the other matrix."""
        inside = self._inside
        if self.page.name == "words":
            inside.matrix = "output" if inside.matrix == "input" else "input"
        else:
            inside.turn_layer(steps)
        self._show()

    def action_head(self, steps: int) -> None:
        """To another head; for words to the other measure."""
        inside = self._inside
        if self.page.name == "words":
            inside.by = "dot" if inside.by == "cosine" else "cosine"
        else:
            inside.turn_head(steps)
        self._show()

    def action_deeper(self) -> None:
        """Write on a page where that can be done; open the page that shows more of a stage."""
        if self._writes:
            self.query_one(Input).focus()
        elif self.page.deep:
            self.app.push_screen(PagesScreen(self._inside, self.page.deep))

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen(self, _JOURNEY_HELP if self._journey else _HELP))

    @on(Input.Changed)
    def take_words(self, event: Input.Changed) -> None:
        """Cut what is written into tokens at once."""
        event.stop()
        if self.page.name == "tokens" and self._inside.written != event.value:
            self._inside.written = event.value
            self._show()

    @on(Input.Submitted)
    def look_up(self, event: Input.Submitted) -> None:
        """Look the words up; the keys are the page's again."""
        event.stop()
        self._inside.written, self._inside.mark = event.value, 0
        self.query_one(PageView).focus()
        self._show()

    # Showing

    @property
    def _writes(self) -> bool:
        return self.page.name in _WRITES and not self._journey

    @property
    def _on_map(self) -> bool:
        return self.page.name == "words" and self._inside.is_map

    def _forget_words(self) -> None:
        self._inside.written = self.query_one(Input).value = ""
        self.query_one(PageView).focus()

    def _show(self) -> None:
        page, words = self.page, self.query_one(Input)
        words.display = self._writes
        words.placeholder = _WRITES.get(page.name, "")
        self._show_head()
        self._inside.rows = self.query_one(PageView).size.height
        key = (page.name, *self._inside.state)
        if (made := self._made.get(key)) is not None:
            self.workers.cancel_group(self, "page")
            self.query_one(PageView).show_page(made)
        elif not self.query_one(PageView).is_loading:
            self.work(partial(self._make, page, key), "page", exclusive=True)

    async def _make(self, page: Page, key: tuple[object, ...]) -> None:
        view = self.query_one(PageView)
        timer = view.wait()
        try:
            made = await page.make(view.report)
        except ChatappError as error:
            view.say(str(error))
        else:
            self._made[key] = made
            view.show_page(made)
        finally:
            timer.stop()
            view.is_loading = False
        if (self.page.name, *self._inside.state) != key:
            self.call_later(self._show)

    def _show_head(self) -> None:
        tabs = Content(" ").join(
            Content.styled(page.name, "bold reverse" if page is self.page else MUTED)
            for page in self._pages
        )
        if self._journey:
            at = f"{self._at + 1} of {len(self._pages)}: {self.page.name}"
            tabs = Content.styled(f"The journey of a token   {at} ", "bold")
        self.query_one("#inside-tabs", Static).update(tabs)
        self.query_one("#inside-where", Static).update(self._where())
        keys = "tab page · ←→ token · [ ] layer · , . head · ↑↓ scroll · f1 help · esc close"
        if self._journey:
            more = " · enter more of this" if self.page.deep else ""
            keys = f"→ next · ← back{more} · ↑↓ scroll · f1 help · esc close"
        elif self.page.name in _WRITES:
            what = "word" if self._on_map else "token"
            more = "[ ] matrix · , . measure" if self.page.name == "words" else "tab page"
            keys = f"enter write · ←→ {what} · {more} · f1 help · esc close"
        elif self.page.name == "parts":
            keys = "tab page · ←→ token · , . heads · ↑↓ scroll · f1 help · esc close"
        self.query_one("#inside-keys", Static).update(Content.styled(keys, MUTED))

    def _where(self) -> Content:
        """The text around the token, and which layer and head are looked at."""
        inside = self._inside
        if not inside.pieces:
            return Content("")
        names = [visible_token(piece.bytes) for piece in inside.pieces]
        before = "".join(names[max(0, inside.place - 12) : inside.place])[-28:]
        after = "".join(names[inside.place + 1 : inside.place + 8])[:12]
        looked = ""
        if not self._journey and self.page.name == "parts":
            looked = "" if inside.head is None else "   attention head by head"
        elif not self._journey and self.page.name == "words":
            looked = f"  {inside.matrix} embeddings · {inside.by}"
        elif not self._journey and self.page.name in ("attention", "heat map"):
            head = "mean of heads" if inside.head is None else f"head {inside.head}"
            looked = f"  layer {inside.layer} · {head}"
        return (
            Content.styled(before, MUTED)
            + Content.styled(names[inside.place], "bold reverse")
            + Content.styled(after, MUTED)
            + Content.styled(looked, "bold")
        )
