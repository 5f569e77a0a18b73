"""The command palette: every action with its key and its sentence, found by any of their words."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial

from textual.await_complete import AwaitComplete
from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.keys import format_key

from chatapp.ui.actions import Action
from chatapp.ui.chat.screen import ChatScreen
from chatapp.ui.drawing import MUTED


class Palette(CommandPalette):
    """Textual's own, whose list fails at a page key that comes before it is drawn."""

    def _action_command_list(self, action: str) -> None:
        with contextlib.suppress(KeyError):
            super()._action_command_list(action)

    def dismiss(self, result: None = None) -> AwaitComplete:
        """Close it, unless it is closed already: a click and a key may come at once."""
        return super().dismiss(result) if self.app.screen is self else AwaitComplete()


class ActionsProvider(Provider):
    """Offers what the prompt's slash commands do."""

    @property
    def _chat(self) -> ChatScreen:
        chat = self.app.screen_stack[0]
        assert isinstance(chat, ChatScreen)
        return chat

    async def discover(self) -> AsyncIterator[DiscoveryHit]:
        """All of them, while nothing is written."""
        for action in self._chat.actions.all:
            title = self._title(action)
            yield DiscoveryHit(title, self._command(action), title.plain, action.text)

    async def search(self, query: str) -> Hits:
        """Those whose name, key or sentence hold what is written."""
        matcher = self.matcher(query)
        for action in self._chat.actions.all:
            title = self._title(action)
            score = max(matcher.match(title.plain), 0.5 * matcher.match(action.text))
            if score > 0:
                yield Hit(score, title, self._command(action), title.plain, action.text)

    def _title(self, action: Action) -> Content:
        name = Content(f"/{action.name} {action.usage}".rstrip())
        keys = self._keys(action)
        return name + Content.styled(f"   {keys}", MUTED) if keys else name

    def _keys(self, action: Action) -> str:
        """The keys that do it now, as the settings may have changed them."""
        wanted = f"act({action.name!r})"
        bound = [active.binding for active in self._chat.active_bindings.values()]
        return ", ".join(format_key(one.key) for one in bound if one.action == wanted)

    def _command(self, action: Action) -> Callable[[], object]:
        """Do an action, or begin to write it where it needs something behind it."""
        if action.needs_argument:
            return partial(self._write, f"/{action.name} ")
        return partial(self._chat.action_act, action.name)

    def _write(self, text: str) -> None:
        self._chat.prompt.take(text)
        self._chat.prompt.focus()
