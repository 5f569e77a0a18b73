"""Help for where the user is, then all keys and commands: read from the tables that rule them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.keys import format_key
from textual.screen import Screen
from textual.widgets import Static

from chatapp.ui.actions import Action
from chatapp.ui.dialogs.dialog import Dialog
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import EMPTY, Line, indent, wrap
from chatapp.ui.widgets.lines_view import LinesView

_KEY_WIDTH = 28


@dataclass(frozen=True, slots=True)
class KeyHelp:
    """What some keys do."""

    keys: tuple[str, ...]
    text: str
    id: str
    """What the settings file calls it."""


class HelpScreen(Dialog[None]):
    """What can be done here, and everywhere."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f1,enter", "leave", "leave", id="help.leave"),
    ]

    def __init__(
        self,
        here: str,
        keys_here: Sequence[KeyHelp],
        keys_everywhere: Sequence[KeyHelp],
        commands: Iterable[Action],
    ) -> None:
        """`here` is the help of what is focused."""
        super().__init__()
        self._here = here
        self._keys_here = keys_here
        self._keys_everywhere = keys_everywhere
        self._commands = tuple(commands)

    def compose(self) -> ComposeResult:
        """The text and the keys that leave."""
        with Vertical(classes="dialog tall"):
            yield Static(Content.styled("Help", "bold"), markup=False, classes="dialog-title")
            yield LinesView(self._lines, id="help-lines")
            yield Static(Content.styled("↑↓ scroll · esc close", MUTED), markup=False)

    def on_mount(self) -> None:
        """Scroll with the keys at once."""
        self.query_one(LinesView).focus()

    def action_leave(self) -> None:
        """Go back."""
        self.dismiss(None)

    def _lines(self, width: int) -> list[Line]:
        lines: list[Line] = []
        if self._here:
            lines += [*wrap(Content(self._here), width), EMPTY]
        lines += _section("Keys here", [_key_row(key) for key in self._keys_here], width)
        lines += _section(
            "Keys everywhere", [_key_row(key) for key in self._keys_everywhere], width
        )
        rows = [(f"/{c.name} {c.usage}".rstrip(), c.text) for c in self._commands]
        lines += _section("Commands in the prompt", rows, width)
        return lines


def help_for(screen: Screen[Any], here: str, commands: Iterable[Action]) -> HelpScreen:
    """Help for a screen: the keys of what is focused on it, then all others.

    Args:
        screen: whose keys hold now.
        here: what is to be said about what is focused.
        commands: what can be written in the prompt.
    """
    keys_here: dict[str, KeyHelp] = {}
    everywhere: dict[str, KeyHelp] = {}
    for key, active in screen.active_bindings.items():
        binding = active.binding
        if not binding.id or not binding.description:
            continue
        table = keys_here if active.node is screen.focused else everywhere
        before = table.get(binding.id)
        keys = (*before.keys, key) if before else (key,)
        table[binding.id] = KeyHelp(keys, binding.description, binding.id)
    return HelpScreen(here, [*keys_here.values()], [*everywhere.values()], commands)


def _section(title: str, rows: Sequence[tuple[str, str]], width: int) -> list[Line]:
    if not rows:
        return []
    lines = [Line(Content.styled(title, "bold $text-primary"))]
    for left, right in rows:
        first = Content.styled(f"  {left:<{_KEY_WIDTH}}", "bold")
        if width < 2 * _KEY_WIDTH or len(left) + 4 > _KEY_WIDTH:
            lines += [Line(first), *indent(wrap(Content(right), width - 4), _GAP, _GAP)]
            continue
        rest = Content(" " * (_KEY_WIDTH + 2))
        lines += indent(wrap(Content(right), width - _KEY_WIDTH - 2), first, rest)
    return [*lines, EMPTY]


_GAP = Content("    ")


def _key_row(key: KeyHelp) -> tuple[str, str]:
    return ", ".join(format_key(name) for name in key.keys), f"{key.text}  ({key.id})"
