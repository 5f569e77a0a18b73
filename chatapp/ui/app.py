"""The application: one screen, the keys that work everywhere, and a clean way out.

What anything means is decided elsewhere; this module only starts, wires and ends.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable
from typing import ClassVar

from textual import on
from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from chatapp.ui.commands.registry import Command, Line
from chatapp.ui.commands.table import ALL
from chatapp.ui.control.clipboard import copy_with_tool, find_tool, outcome
from chatapp.ui.driver import driver_class
from chatapp.ui.keys import unknown_actions
from chatapp.ui.screens.chat import ChatScreen
from chatapp.ui.screens.chat_inspect import ChatInspect
from chatapp.ui.screens.chat_scores import ChatScores
from chatapp.ui.screens.chat_what_if import ChatWhatIf
from chatapp.ui.screens.chats import ChatsScreen
from chatapp.ui.screens.compare import CompareScreen
from chatapp.ui.screens.download import DownloadScreen
from chatapp.ui.screens.find import FindScreen
from chatapp.ui.screens.help import HelpScreen
from chatapp.ui.screens.line import LineScreen
from chatapp.ui.screens.order import OrderScreen
from chatapp.ui.screens.picker import PickerScreen
from chatapp.ui.screens.prompt_view import PromptScreen
from chatapp.ui.screens.search_view import SearchScreen
from chatapp.ui.screens.settings import SettingsScreen
from chatapp.ui.screens.trace import TraceScreen
from chatapp.ui.screens.tree import TreeScreen
from chatapp.ui.screens.write import WriteScreen
from chatapp.ui.services import Services
from chatapp.ui.typed_keys import TypedKeys
from chatapp.ui.widgets.candidates import CandidateList
from chatapp.ui.widgets.column import ReplyColumn
from chatapp.ui.widgets.prompt import PromptInput
from chatapp.ui.widgets.row_list import RowList
from chatapp.ui.widgets.sampling_panel import SamplingPanel
from chatapp.ui.widgets.trace_table import TraceTable
from chatapp.ui.widgets.transcript import Transcript

QUIT_AGAIN_SECONDS = 2.0
"""Within which a second Ctrl+C leaves."""

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_EXIT_BY_SIGNAL = 128
"""What a shell adds to the number of the signal that ended a program."""

_KEY_OWNERS = (
    ChatScreen,
    ChatInspect,
    ChatWhatIf,
    ChatScores,
    FindScreen,
    TraceScreen,
    TraceTable,
    OrderScreen,
    CompareScreen,
    ReplyColumn,
    SearchScreen,
    Transcript,
    PromptInput,
    CandidateList,
    SamplingPanel,
    PickerScreen,
    HelpScreen,
    SettingsScreen,
    PromptScreen,
    WriteScreen,
    DownloadScreen,
    ChatsScreen,
    TreeScreen,
    RowList,
    LineScreen,
)
"""Whose keys the person may change, besides those of the application."""


class ChatApp(TypedKeys):
    """chatapp in the terminal. `run_async` returns when the person leaves or a signal says so."""

    CSS_PATH = "chatapp.tcss"
    TITLE = "chatapp"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (96, "-medium"), (130, "-wide")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "leave chatapp", id="app.quit", priority=True),
        Binding("ctrl+c", "interrupt", "copy; twice: leave", id="app.interrupt", system=True),
        Binding("ctrl+up", "warm(1)", "temperature up", id="app.warmer", priority=True),
        Binding("ctrl+down", "warm(-1)", "temperature down", id="app.colder", priority=True),
    ]

    def __init__(self, services: Services) -> None:
        """Make the application; nothing starts before it runs."""
        super().__init__(driver_class=driver_class())
        self.services = services
        self._interrupted_at = -QUIT_AGAIN_SECONDS
        self._leaving = False

    def get_default_screen(self) -> Screen[None]:
        """The chat."""
        return ChatScreen(self.services, self._complaints())

    def on_mount(self) -> None:
        """Take the person's settings, and listen to signals."""
        if self.services.theme in self.available_themes:
            self.theme = self.services.theme
        self.set_keymap(dict(self.services.keys))
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            # Textual's own driver leaves these two alone: the terminal would stay raw.
            loop.add_signal_handler(number, self._end_by_signal, number)

    def _complaints(self) -> list[str]:
        """What is wrong with the person's settings, in words."""
        words: list[str] = []
        theme = self.services.theme
        if theme and theme not in self.available_themes:
            words.append(f"there is no theme {theme!r}; F2 lists them")
        if unknown := unknown_actions(self.services.keys, (ChatApp, *_KEY_OWNERS)):
            words.append(f"no action is called {', '.join(unknown)}; F1 lists them")
        return words

    def on_unmount(self) -> None:
        """Give the signals back."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    # The way out

    async def action_quit(self) -> None:
        """Leave: what streams is stopped and saved first."""
        await self._leave(0)

    def action_interrupt(self) -> None:
        """Ctrl+C with nothing to copy: the second one leaves."""
        now = self.services.clock()
        if now - self._interrupted_at <= QUIT_AGAIN_SECONDS:
            self.run_worker(self._leave(0), group="leave")
            return
        self._interrupted_at = now
        self.chat.say("Ctrl+C once more leaves chatapp; Esc stops a reply")

    def _end_by_signal(self, number: int) -> None:
        self.run_worker(self._leave(_EXIT_BY_SIGNAL + number), group="leave")

    async def _leave(self, status: int) -> None:
        if self._leaving:
            return
        self._leaving = True
        await self.chat.stop_everything()
        self.exit(return_code=status)

    # Everywhere

    def action_warm(self, steps: int) -> None:
        """Turn the temperature, for the very next token: of the chat, or of a column compared."""
        for screen in reversed(self.screen_stack):  # its trace or help may stand over it
            if isinstance(screen, CompareScreen):
                screen.warm(steps)
                return
        self.chat.set_sampling(self.chat.sampling.stepped("temperature", steps))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette offers what the prompt does, and the themes."""
        for command in ALL.all:
            # The palette reads a title as markup: no brackets of optional arguments in it.
            usage = f" {command.usage}" if command.needs_argument else ""
            yield SystemCommand(
                f"/{command.name}{usage}", command.text, self._palette_action(command)
            )
        yield SystemCommand("theme", "Choose another theme.", self.action_change_theme)

    def _palette_action(self, command: Command) -> Callable[[], object]:
        """Do a command, or begin to write it where it needs something behind it."""

        def write() -> None:
            self.chat.prompt.take(f"/{command.name} ")
            self.chat.prompt.focus()

        async def run() -> None:
            await self.chat.run_command(Line(command.name, ""))

        return write if command.needs_argument else run

    # Copying

    def copy_to_clipboard(self, text: str) -> None:
        """Copy what was selected, by every way there is."""
        self.run_worker(self._copy(text, "the selection"), group="copy")

    @on(ChatScreen.CopyAsked)
    async def copy_asked(self, event: ChatScreen.CopyAsked) -> None:
        """Copy what the chat wants copied."""
        await self._copy(event.text, event.what)

    async def _copy(self, text: str, what: str) -> None:
        super().copy_to_clipboard(text)  # OSC 52
        tool = find_tool()
        worked = await copy_with_tool(tool, text) if tool is not None else False
        self.chat.say(outcome(what, tool, worked))
