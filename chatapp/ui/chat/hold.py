"""Pause and step: a reply is held before its next token, and goes on as the user says."""

from __future__ import annotations

from collections.abc import Sequence

from chatapp.chat.generation import Paused
from chatapp.ui.actions import action
from chatapp.ui.chat.base import ChatBase


class Hold:
    """Whether the reply under way is held, and what could come next in it."""

    def __init__(self, chat: ChatBase) -> None:
        self._chat = chat
        self._session = chat.session
        self.paused: Paused | None = None
        """What could come next, while the reply is held."""
        self._wanted = False
        self._leaving = False
        """Whether the step that is shown as held is being left, by F6, F7 or a choice."""
        self._told = False

    @action("pause", keys="f6", key_id="reply.pause")
    def pause(self, _: str = "") -> None:
        """Hold the reply before its next token, or let it go on."""
        if not self._under_way():
            return
        self._wanted = not self._wanted
        self._leaving = not self._wanted
        if self._wanted:
            self._session.pause()
            self._chat.say("holding before the next token …")
        else:
            self._session.resume()

    @action("step", keys="f7", key_id="reply.step")
    def step(self, _: str = "") -> None:
        """Take one token of the reply, and hold again."""
        if not self._under_way():
            return
        if self._wanted:
            self._leaving = True
            self._session.step()
        else:
            self._wanted = True
            self._session.pause()

    def take(self, token_ids: Sequence[int]) -> None:
        if self._leaving:  # the choice would come a token too late
            self._chat.say("this step is being left; choose when the next one is shown", "warning")
            return
        self._leaving = True
        self._session.step(token_ids)

    def held(self, paused: Paused) -> None:
        """The reply is held: show what could come next."""
        self.paused = paused
        if not self._told:
            self._told = True
            self._chat.say("held before the next token; F7 takes one, F6 goes on")
            self._chat.show_hints()
        self._leaving = not self._wanted  # F6 may have come while this was on its way
        self._chat.show_token()
        self._chat.show_status()

    def went_on(self) -> None:
        if self._wanted:
            self.paused = None  # the next `Paused` follows
        else:
            self.let_go()

    def let_go(self) -> None:
        self._wanted = False
        if self._told:
            self._told = False
            self.paused = None
            self._chat.show_hints()
            self._chat.show_token()

    def _under_way(self) -> bool:
        if not self._session.replying:
            self._chat.say("no reply is under way", "warning")
        return self._session.replying
