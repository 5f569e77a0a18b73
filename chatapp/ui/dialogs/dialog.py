"""What all screens over the chat have in common: a frame, one end, and help.

Help is for where the user is, then all keys and commands: read from the tables that rule them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.keys import format_key
from textual.screen import ModalScreen, Screen, ScreenResultType
from textual.widget import Widget
from textual.widgets import Static
from textual.worker import WorkType

from chatapp.ui.actions import Action
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.line import EMPTY, Line, indent, wrap
from chatapp.ui.widgets.lines_view import LinesView

_KEY_WIDTH = 28
_GAP = Content("    ")


class Dialog(ModalScreen[ScreenResultType]):
    """A screen over the chat."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("f1", "help", "help", id="dialog.help")]
    HELP: ClassVar[str] = ""
    """What F1 says before it lists the keys."""

    def framed(
        self, title: str | Content, *body: Widget, keys: str = "", shape: str = ""
    ) -> ComposeResult:
        """The title, what it is about, the keys; `shape` is a class of the style sheet."""
        bold = Content.styled(title, "bold") if isinstance(title, str) else title
        with Vertical(classes=f"dialog {shape}"):
            yield Static(bold, markup=False, classes="dialog-title")
            yield from body
            if keys:
                yield Static(Content.styled(keys, MUTED), markup=False)

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen(self, self.HELP))

    def action_leave(self) -> None:
        self.dismiss(None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that were on their way when it was closed, or not built yet, do nothing."""
        there = self.is_mounted and self in self.app.screen_stack
        return there and super().check_action(action, parameters)

    def work(
        self,
        doing: Callable[[], Coroutine[Any, Any, None]],
        group: str,
        *,
        exclusive: bool = False,
    ) -> None:
        """Do something beside the keys; what it finds for a screen that is closed is dropped.

        It is called when its turn comes: of a screen that goes first, nothing is left unawaited.
        """

        async def run() -> None:
            try:
                await doing()
            except NoMatches:
                if self in self.app.screen_stack:
                    raise

        called: WorkType[None] = run
        self.run_worker(called, group=group, exclusive=exclusive)

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        """Close it with a result, unless it is closed already.

        Enter or Esc may come twice before the first is obeyed. Textual would close what lies below.
        """
        if self.app.screen is not self:
            return AwaitComplete()
        if not self.is_mounted:  # it would be built when it has been taken down
            self.call_later(self._dismiss, result)
            return AwaitComplete()
        return super().dismiss(result)

    def _dismiss(self, result: ScreenResultType | None) -> None:
        self.dismiss(result)  # a callback would wait for what it returns, and so for itself


class HelpScreen(Dialog[None]):
    """What can be done here, and everywhere."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f1,enter", "leave", "leave", id="help.leave"),
    ]

    def __init__(self, screen: Screen[Any], here: str, commands: Iterable[Action] = ()) -> None:
        """Help for a screen: the keys of what is focused on it, then all others.

        Args:
            screen: whose keys hold now.
            here: what is to be said about what is focused.
            commands: what can be written in the prompt.
        """
        super().__init__()
        self._here = here
        focused: dict[str, tuple[list[str], str]] = {}
        everywhere: dict[str, tuple[list[str], str]] = {}
        for key, active in screen.active_bindings.items():
            binding = active.binding
            if binding.id and binding.description:
                table = focused if active.node is screen.focused else everywhere
                text = f"{binding.description}  ({binding.id})"  # so the settings file calls it
                table.setdefault(binding.id, ([], text))[0].append(format_key(key))
        self._sections = {
            "Keys here": [(", ".join(keys), text) for keys, text in focused.values()],
            "Keys everywhere": [(", ".join(keys), text) for keys, text in everywhere.values()],
            "Commands in the prompt": [(f"/{c.name} {c.usage}".rstrip(), c.text) for c in commands],
        }

    def compose(self) -> ComposeResult:
        lines = LinesView(self._lines, id="help-lines")
        return self.framed("Help", lines, keys="↑↓ scroll · esc close", shape="tall")

    def on_mount(self) -> None:
        self.query_one(LinesView).focus()

    def _lines(self, width: int) -> list[Line]:
        lines = [*wrap(Content(self._here), width), EMPTY] if self._here else []
        for title, rows in self._sections.items():
            lines += _section(title, rows, width)
        return lines


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
