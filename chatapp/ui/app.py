"""The application: one screen, the keys that work everywhere, and a clean way out.

What anything means is decided elsewhere; this module only starts, wires and ends.
"""

from __future__ import annotations

import asyncio
import signal
from typing import ClassVar

from textual import events, on
from textual.app import App
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.message import Message
from textual.screen import Screen

from chatapp.ui.actions import keymap, unknown_actions
from chatapp.ui.chat.base import SHORT_BELOW
from chatapp.ui.chat.screen import ChatScreen
from chatapp.ui.clipboard import copy_with_tool, find_tool, outcome
from chatapp.ui.dialogs.compare import CompareScreen
from chatapp.ui.driver import driver_class, end_by_force
from chatapp.ui.palette import ActionsProvider, Palette
from chatapp.ui.services import Services

QUIT_AGAIN_SECONDS = 2.0
"""Within which a second Ctrl+C leaves."""

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_EXIT_BY_SIGNAL = 128
"""What a shell adds to the number of the signal that ended a program."""


class ChatApp(App[None]):
    """chatapp in the terminal. `run_async` returns when the user leaves or a signal says so."""

    class PromptWanted(Message):
        """A letter waits for the prompt; this comes behind the keys that came before it."""

    CSS_PATH = "chatapp.tcss"
    TITLE = "chatapp"
    COMMANDS = {ActionsProvider}  # noqa: RUF012
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (96, "-medium"), (130, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (SHORT_BELOW, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "leave chatapp", id="app.quit", priority=True),
        Binding("ctrl+c", "interrupt", "copy; twice: leave", id="app.interrupt", system=True),
        Binding(
            "ctrl+z", "suspend_process", "suspend; fg goes on", id="app.suspend", priority=True
        ),
        Binding("ctrl+p", "command_palette", "all actions", id="app.palette", priority=True),
        Binding("ctrl+up", "warm(1)", "temperature up", id="app.warmer", priority=True),
        Binding("ctrl+down", "warm(-1)", "temperature down", id="app.colder", priority=True),
    ]

    def __init__(self, services: Services) -> None:
        super().__init__(driver_class=driver_class())
        self.services = services
        self._interrupted_at = -QUIT_AGAIN_SECONDS
        self._leaving = False
        self._typed: list[events.Event] | None = None
        """What waits for the prompt to be focused; None while nothing does."""

    @property
    def chat(self) -> ChatScreen:
        """The chat, which is always the lowest screen."""
        screen = self.screen_stack[0]
        assert isinstance(screen, ChatScreen)  # `get_default_screen` made it
        return screen

    def get_default_screen(self) -> Screen[None]:
        return ChatScreen(self.services, self._complaints())

    def on_mount(self) -> None:
        """Take the user's settings, and listen to signals."""
        if self.services.theme in self.available_themes:
            self.theme = self.services.theme
        self.set_keymap(keymap(self.services.keys, vim=self.services.vim))
        # After Ctrl+Z Textual takes the terminal again, but draws only what changes from then on.
        self.app_resume_signal.subscribe(self, lambda _: self.refresh(layout=True))
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            # Textual's own driver leaves these two alone: the terminal would stay raw.
            loop.add_signal_handler(number, self._end_by_signal, number)

    def _complaints(self) -> list[str]:
        """What is wrong with the user's settings, in words."""
        words: list[str] = []
        theme = self.services.theme
        if theme and theme not in self.available_themes:
            words.append(f"there is no theme {theme!r}; F2 lists them")
        if unknown := unknown_actions(self.services.keys):
            words.append(f"no action is called {', '.join(unknown)}; F1 lists them")
        return words

    def on_unmount(self) -> None:
        """Give the signals back."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    # Letters typed anywhere go to the prompt, in their order, and no other key loses its place.
    #
    # Textual offers a key to what is focused, lets it bubble up, and looks for its binding only
    # then, by where the focus is at that moment. So a focus that moves to the prompt at once would
    # have the keys that are still on their way judged in the prompt: an Enter meant for a candidate
    # would send a draft. And one that moves late would have letters judged where they were not
    # meant.

    async def on_event(self, event: events.Event) -> None:
        """Pass an event on, but for what waits for the prompt and all that is typed behind it."""
        if isinstance(event, events.Key | events.Paste) and not event.is_forwarded:
            # A key that opens a screen is quicker than the screen, which has nothing in it yet.
            while self.is_running and not self.screen.is_mounted:  # noqa: ASYNC110 (no event tells)
                await asyncio.sleep(0)
            if self._typed is not None and not self._is_at_once(event):
                self._typed.append(event)
                return
            alone = len(self.screen_stack) == 1
            if alone and isinstance(event, events.Key) and self.chat.is_for_prompt(event):
                self._typed = [event]
                (self.focused or self.screen).post_message(self.PromptWanted())
                return
        await super().on_event(event)

    def _is_at_once(self, event: events.Event) -> bool:
        """Whether a key does the same wherever the focus is: it waits for nothing."""
        if not isinstance(event, events.Key):
            return False
        active = self.screen.active_bindings.get(event.key)
        return active is not None and active.binding.priority

    @on(PromptWanted)
    async def focus_prompt(self) -> None:
        """Give the prompt the focus, and what was typed since."""
        typed, self._typed = self._typed or [], None
        if len(self.screen_stack) == 1:  # else a key before it has opened something
            self.chat.set_focus(self.chat.prompt)
        for event in typed:
            await super().on_event(event)

    @on(ChatScreen.Typed)
    def take_typed(self, message: ChatScreen.Typed) -> None:
        """Bring a letter to the prompt that went to another widget first."""
        if self._typed is None:
            self._typed = []
            self.post_message(self.PromptWanted())
        self._typed.append(events.Key(message.key, message.character))

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
        end_by_force()
        self.run_worker(self._leave(_EXIT_BY_SIGNAL + number), group="leave")

    async def _leave(self, status: int) -> None:
        if self._leaving:
            return
        self._leaving = True
        await self.chat.stop_everything()
        self.exit(return_code=status)

    # Everywhere

    def action_command_palette(self) -> None:
        """Show all actions, unless they are there already, perhaps below another screen."""
        if not any(isinstance(screen, CommandPalette) for screen in self.screen_stack):
            self.push_screen(Palette())

    def pop_screen(self) -> AwaitComplete:
        """Close the uppermost screen, and end what still works for it: it would find no widgets."""
        self.workers.cancel_node(self.screen)
        return super().pop_screen()

    def action_warm(self, steps: int) -> None:
        """Turn the temperature, for the very next token: of the chat, or of a column compared."""
        for screen in reversed(self.screen_stack):  # its trace or help may stand over it
            if isinstance(screen, CompareScreen):
                screen.warm(steps)
                return
        self.chat.set_sampling(self.chat.sampling.stepped("temperature", steps))

    # Copying

    def copy_to_clipboard(self, text: str) -> None:
        """Copy what was selected, by every way there is."""
        self.run_worker(self._copy(text, "the selection"), group="copy")

    @on(ChatScreen.CopyAsked)
    async def copy_asked(self, event: ChatScreen.CopyAsked) -> None:
        await self._copy(event.text, event.what)

    async def _copy(self, text: str, what: str) -> None:
        super().copy_to_clipboard(text)  # OSC 52
        tool = find_tool()
        worked = await copy_with_tool(tool, text) if tool is not None else False
        self.chat.say(outcome(what, tool, worked))
