"""A list to choose from, narrowed down by typing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from chatapp.chat.errors import ChatappError
from chatapp.chat.text import sanitise
from chatapp.ui.dialogs.dialog import Dialog
from chatapp.ui.drawing import MUTED

Key = TypeVar("Key")

_REST_SECONDS = 0.4
"""How long typing rests before other places are asked."""
_SEARCHED_FROM = 3
"""Letters."""


@dataclass(frozen=True, slots=True)
class Choice(Generic[Key]):
    """One thing to choose."""

    key: Key
    """What the screen gives back."""
    title: str | Content
    """Content is drawn as it is."""
    detail: str = ""
    current: bool = False
    enabled: bool = True

    def prompt(self) -> Content:
        """How it is drawn: the title, then what is to be known about it."""
        if isinstance(self.title, Content):
            return self.title
        mark = "● " if self.current else "  "
        title = Content.styled(mark + sanitise(self.title), "bold" if self.enabled else "")
        if not self.detail:
            return title
        return title + Content.styled("  " + " ".join(sanitise(self.detail).split()), MUTED)


class PickerScreen(Dialog[Key | None]):
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
        choices: Sequence[Choice[Key]],
        *,
        empty: str = "nothing here",
        more: Callable[[str], Awaitable[Sequence[Choice[Key]]]] | None = None,
        text: str = "",
        placeholder: str = "type to narrow down",
        chooses: str = "choose",
    ) -> None:
        """Offer some choices.

        `empty` is said where there are none. `more` finds others elsewhere for what is typed, once
        the user rests; raises ChatappError. `text` is typed at first; Enter `chooses`.
        """
        super().__init__()
        self._more = more
        self._title = title
        self._choices = list(choices)
        self.shown: list[Choice[Key]] = []
        self._text, self._placeholder, self._chooses = text, placeholder, chooses
        self._empty = empty

    def compose(self) -> ComposeResult:
        place = self._placeholder
        typed = Input(self._text, placeholder=place, id="picker-filter", compact=True)
        options = OptionList(id="picker-list", compact=True, markup=False)
        status = [Static(id="picker-status", markup=False)] if self._more is not None else []
        keys = f"enter {self._chooses} · esc close"
        return self.framed(self._title, typed, options, *status, keys=keys)

    def on_mount(self) -> None:
        self.query_one(OptionList).can_focus = False
        self.fill(self._choices)
        self.query_one(Input).focus()

    @on(Input.Changed)
    def typed(self, event: Input.Changed) -> None:
        event.stop()
        self.narrow(event.value)

    def narrow(self, text: str) -> None:
        """Keep what holds every word that was typed."""
        self.fill(self._matching(text))
        if self._more is not None:
            self.work(lambda: self._find_more(text.strip()), "more", exclusive=True)

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
        self.fill([*known, *(choice for choice in found if choice.key not in keys)])

    def _matching(self, text: str) -> list[Choice[Key]]:
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
        count = len(self.shown)
        if count:
            here = options.highlighted if options.highlighted is not None else 0
            options.highlighted = min(max(here + steps, 0), count - 1)

    def action_choose(self) -> None:
        highlighted = self.query_one(OptionList).highlighted
        if highlighted is not None:
            self._choose(highlighted)

    def _choose(self, place: int) -> None:
        if 0 <= place < len(self.shown) and self.shown[place].enabled:
            self.dismiss(self.shown[place].key)

    def fill(self, choices: Sequence[Choice[Key]], empty: str = "", *, stay: bool = True) -> None:
        """Show these; the highlight may stay where it was, else goes to what is current."""
        options = self.query_one(OptionList)
        before = options.highlighted
        standing = before is not None and before < len(self.shown)
        here = self.shown[before].key if before is not None and standing else None
        self.shown = list(choices)
        options.clear_options()
        if not self.shown:
            options.add_option(
                Option(Content.styled(sanitise(empty or self._empty), MUTED), disabled=True)
            )
            return
        options.add_options([Option(choice.prompt()) for choice in self.shown])
        keys = [choice.key for choice in self.shown]
        current = [place for place, choice in enumerate(self.shown) if choice.current]
        options.highlighted = (
            keys.index(here) if stay and here in keys else current[0] if current else 0
        )
