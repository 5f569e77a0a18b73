"""A list to choose from, narrowed down by typing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from chatapp.chat.text import sanitise
from chatapp.ui.dialogs.dialog import Dialog
from chatapp.ui.drawing import MUTED


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
        self, title: str, choices: Sequence[Choice], *, empty: str = "nothing here"
    ) -> None:
        """Offer some choices; `empty` is said where there are none."""
        super().__init__()
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
        self._fill(await self.matching(event.value))

    async def matching(self, text: str) -> list[Choice]:
        """The choices that hold every word of a text."""
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
        self._shown = list(choices)
        options = self.query_one(OptionList)
        options.clear_options()
        if not self._shown:
            options.add_option(Option(Content.styled(self._empty, MUTED), disabled=True))
            return
        options.add_options([Option(choice.prompt()) for choice in self._shown])
        current = [place for place, choice in enumerate(self._shown) if choice.current]
        options.highlighted = current[0] if current else 0
