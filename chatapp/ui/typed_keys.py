"""Letters typed anywhere go to the prompt, in their order, and no other key loses its place.

Textual offers a key to what is focused, lets it bubble up, and looks for its binding only then, by
where the focus is at that moment. So a focus that moves to the prompt at once would have the keys
that are still on their way judged in the prompt: an Enter meant for a candidate would send a draft.
And one that moves late would have letters judged where they were not meant.
"""

from __future__ import annotations

import asyncio

from textual import events, on
from textual.app import App
from textual.message import Message

from chatapp.ui.chat.screen import ChatScreen


class TypedKeys(App[None]):
    """Passes keys on."""

    class PromptWanted(Message):
        """A letter waits for the prompt; this comes behind the keys that came before it."""

    _typed: list[events.Event] | None = None
    """What waits for the prompt to be focused; None while nothing does."""

    @property
    def chat(self) -> ChatScreen:
        """The chat, which is always the lowest screen."""
        screen = self.screen_stack[0]
        assert isinstance(screen, ChatScreen)  # `get_default_screen` made it
        return screen

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
