"""A list to choose from, narrowed down by typing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from chatapp.chat.errors import ChatappError
from chatapp.chat.text import sanitise
from chatapp.ui.dialogs.dialog import Dialog
from chatapp.ui.drawing import MUTED

_REST_SECONDS = 0.4
"""How long typing rests before other places are asked."""
_SEARCHED_FROM = 3
"""Letters."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing to choose."""

    key: str
    """What the screen gives back."""
    title: str
    detail: str = ""
    current: bool = False
    enabled: bool = True

    def prompt(self) -> Content:
        """How it is drawn: the title, then what is to be known about it."""
        mark = "● " if self.current else "  "
        title = Content.styled(mark + sanitise(self.title), "bold" if self.enabled else "")
        if not self.detail:
            return title
        return title + Content.styled("  " + " ".join(sanitise(self.detail).split()), MUTED)


class PickerScreen(Dialog[str | None]):
    """Choose one of some things; None when the user leaves."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "leave", id="picker.leave"),
        Binding("up", "move(-1)", "up", show=False, id="picker.up", priority=True),
        Binding("down", "move(1)", "down", show=False, id="picker.down", priority=True),
        Binding("pageup", "move(-10)", "page up", show=False, id="picker.pageup", priority=True),
        Binding(
            "pagedown", "move(10)", "page down", show=False, id="picker.pagedown", priority=True
        ),
        Binding("enter", "choose", "choose", show=False, id="picker.choose", priority=True),
    ]

    def __init__(
        self,
        title: str,
        choices: Sequence[Choice],
        *,
        empty: str = "nothing here",
        more: Callable[[str], Awaitable[Sequence[Choice]]] | None = None,
    ) -> None:
        """Offer some choices.

        `empty` is said where there are none. `more` finds others elsewhere for what is typed, once
        the user rests; raises ChatappError.
        """
        super().__init__()
        self._more = more
        self._title = title
        self._choices = list(choices)
        self._shown: list[Choice] = []
        self._empty = empty

    def compose(self) -> ComposeResult:
        """Title, what is typed, the list, the keys."""
        with Vertical(classes="dialog"):
            yield Static(Content.styled(self._title, "bold"), markup=False, classes="dialog-title")
            yield Input(placeholder="type to narrow down", id="picker-filter", compact=True)
            yield OptionList(id="picker-list", compact=True, markup=False)
            if self._more is not None:
                yield Static(id="picker-status", markup=False)
            yield Static(Content.styled("enter choose · esc close", MUTED), markup=False)

    def on_mount(self) -> None:
        """Show everything, and stand on what is current."""
        self.query_one(OptionList).can_focus = False
        self._fill(self._choices)
        self.query_one(Input).focus()

    @on(Input.Changed)
    async def narrow(self, event: Input.Changed) -> None:
        """Keep what holds every word that was typed."""
        event.stop()
        self._fill(self._matching(event.value))
        if self._more is not None:
            text = event.value.strip()
            self.work(lambda: self._find_more(text), "more", exclusive=True)

    async def _find_more(self, text: str) -> None:
        assert self._more is not None
        status = self.query_one("#picker-status", Static)
        status.update("")
        if len(text) < _SEARCHED_FROM:
            return
        await asyncio.sleep(_REST_SECONDS)
        status.update(Content.styled(f"looking for {sanitise(text)} …", MUTED))
        try:
            found = await self._more(text)
        except ChatappError as error:
            status.update(Content.styled(sanitise(str(error)), "$text-warning"))
            return
        status.update("" if found else Content.styled("nothing more was found", MUTED))
        known = self._matching(text)
        keys = {choice.key for choice in known}
        self._fill([*known, *(choice for choice in found if choice.key not in keys)])

    def _matching(self, text: str) -> list[Choice]:
        words = text.casefold().split()
        return [
            choice
            for choice in self._choices
            if all(
                word in f"{choice.key} {choice.title} {choice.detail}".casefold() for word in words
            )
        ]

    @on(OptionList.OptionSelected)
    def take(self, event: OptionList.OptionSelected) -> None:
        """A click chooses."""
        event.stop()
        self._choose(event.option_index)

    def action_move(self, steps: int) -> None:
        """Move in the list, while the text stays where it is."""
        options = self.query_one(OptionList)
        count = len(self._shown)
        if count:
            here = options.highlighted if options.highlighted is not None else 0
            options.highlighted = min(max(here + steps, 0), count - 1)

    def action_choose(self) -> None:
        """Give back what is highlighted."""
        highlighted = self.query_one(OptionList).highlighted
        if highlighted is not None:
            self._choose(highlighted)

    def action_leave(self) -> None:
        """Choose nothing."""
        self.dismiss(None)

    def _choose(self, place: int) -> None:
        if 0 <= place < len(self._shown) and self._shown[place].enabled:
            self.dismiss(self._shown[place].key)

    def _fill(self, choices: Sequence[Choice]) -> None:
        options = self.query_one(OptionList)
        before = options.highlighted
        here = self._shown[before].key if before is not None and before < len(self._shown) else ""
        self._shown = list(choices)
        options.clear_options()
        if not self._shown:
            options.add_option(Option(Content.styled(self._empty, MUTED), disabled=True))
            return
        options.add_options([Option(choice.prompt()) for choice in self._shown])
        keys = [choice.key for choice in self._shown]
        current = [place for place, choice in enumerate(self._shown) if choice.current]
        options.highlighted = keys.index(here) if here in keys else current[0] if current else 0
