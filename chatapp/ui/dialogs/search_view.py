"""A search on the screen while it goes on; one of what it found may be taken as the reply."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from chatapp.chat.errors import ChatappError
from chatapp.chat.facts import Progress
from chatapp.chat.generation import PromptRead
from chatapp.chat.search import BeamEvent, ContrastiveEvent
from chatapp.session.protocols import Running
from chatapp.ui.dialogs.dialog import Dialog, HelpScreen
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.searches import BeamTree, ContrastiveTable, Found
from chatapp.ui.widgets.lines_view import LinesView


class SearchScreen(Dialog[tuple[tuple[int, ...], Found] | None]):
    """Gives back the ids of the prompt and what was taken, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "stop, then leave", id="search.leave"),
        Binding("enter,1", "take(0)", "take the best as the reply", id="search.take"),
        Binding("2", "take(1)", "take the second", id="search.take2"),
        Binding("3", "take(2)", "take the third", id="search.take3"),
        Binding("4", "take(3)", "take the fourth", id="search.take4"),
    ]

    def __init__(
        self,
        title: str,
        running: Running[BeamEvent] | Running[ContrastiveEvent],
        picture: BeamTree | ContrastiveTable,
        legend: str,
    ) -> None:
        """Show a search that begins with this screen; the legend says what can be taken."""
        super().__init__()
        self._title = title
        self._search = running
        self._picture = picture
        self._legend = legend
        self._prompt_ids: tuple[int, ...] = ()
        self.over = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog tall"):
            yield Static(Content.styled(self._title, "bold"), markup=False)
            yield Static(Content(""), id="search-status", markup=False, classes="dialog-title")
            yield LinesView(self._picture.lines, id="search-lines")
            yield Static(Content.styled(f"{self._legend} · esc stop, leave", MUTED), markup=False)

    def on_mount(self) -> None:
        self.query_one(LinesView).focus()
        self.work(self._run, "search")

    async def _run(self) -> None:
        try:
            async for event in self._search:
                if isinstance(event, PromptRead):
                    self._prompt_ids = event.prompt_ids
                elif isinstance(event, Progress):
                    self._say(f"{event.stage} {event.done}/{event.total} {event.unit}")
                else:
                    self._picture.take(event)
                    self.query_one(LinesView).renew()
                    self._say(self._picture.status)
        except ChatappError as error:
            self._say(str(error))
        self.over = True

    def _say(self, words: str) -> None:
        self.query_one("#search-status", Static).update(Content.styled(words, MUTED))

    def on_unmount(self) -> None:
        self._search.cancel()

    def action_take(self, place: int) -> None:
        found = self._picture.found
        if place < len(found):
            self.dismiss((self._prompt_ids, found[place]))
        else:
            self._say("there is nothing of that number to take yet" if not self.over else
                      f"only {len(found)} can be taken")  # fmt: skip

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen(self, self._legend))

    def action_leave(self) -> None:
        """Stop the search; once it is over, leave."""
        if self.over:
            self.dismiss(None)
        else:
            self._search.cancel()
