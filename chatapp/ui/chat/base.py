"""What the chat screen is to its features: its widgets, a voice, and what they may ask it to draw.

A feature (turns, what-if, scores, …) is an object that the screen has. It is given this, and
whatever other features it needs, by name.
"""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message
from textual.screen import Screen

from chatapp.chat.sampling import SamplingParams
from chatapp.session.inspector import Inspector
from chatapp.session.session import Session
from chatapp.ui.services import Services
from chatapp.ui.widgets.header import Header
from chatapp.ui.widgets.notices import Level, Notices
from chatapp.ui.widgets.prompt import PromptInput
from chatapp.ui.widgets.token_panel import TokenPanel
from chatapp.ui.widgets.transcript import Transcript


class ChatBase(Screen[None]):
    """Widgets and a voice; the screen itself says how the rest is drawn."""

    services: Services
    _leaving = False
    session: Session

    @dataclass
    class CopyAsked(Message):
        """A text is to go to the clipboard."""

        text: str
        what: str
        """What it is, in words: "the message"."""

    @property
    def transcript(self) -> Transcript:
        """The messages."""
        return self.query_one(Transcript)

    @property
    def prompt(self) -> PromptInput:
        """Where the user writes."""
        return self.query_one("#prompt", PromptInput)

    @property
    def panel(self) -> TokenPanel:
        """What is known about the token pointed at."""
        return self.query_one(TokenPanel)

    @property
    def header(self) -> Header:
        """The first row."""
        return self.query_one(Header)

    @property
    def inspector(self) -> Inspector:
        """Answers questions about replies."""
        return Inspector(self.session)

    @property
    def gone(self) -> bool:
        """Whether nothing is shown any more: the program ends, its widgets go before the screen."""
        return self._leaving or not self.app.is_running

    def say(self, words: str, level: Level = "note") -> None:
        """Tell the user something."""
        if not self.gone:
            self.query_one(Notices).say(words, level)

    def say_error(self, words: str) -> None:
        """Tell the user what failed."""
        self.say(words, "error")

    def fault(self, error: BaseException) -> None:
        """End the program by its own fault, with the terminal put right first."""

        def raise_it() -> None:
            raise error

        self.call_next(raise_it)

    def copy(self, text: str, what: str) -> None:
        """Put a text on the clipboard; `what` it is, in words."""
        self.post_message(self.CopyAsked(text, what))

    # What features ask of the screen

    @property
    def sampling(self) -> SamplingParams:
        """What the controls show and turn."""
        raise NotImplementedError

    def set_sampling(self, sampling: SamplingParams) -> None:
        """Draw with these from the next token on, or try them where settings are being tried."""
        raise NotImplementedError

    def show_sampling(self) -> None:
        """Bring every display of the sampling numbers up to date."""
        raise NotImplementedError

    def show_token(self) -> None:
        """Show the token pointed at, or the newest one."""
        raise NotImplementedError

    def show_legend(self) -> None:
        """Say what the colours mean."""
        raise NotImplementedError

    def show_status(self) -> None:
        """Bring the header up to date."""
        raise NotImplementedError

    def show_hints(self) -> None:
        """Show the keys of what is focused."""
        raise NotImplementedError

    def unfold_panel(self) -> None:
        """Show the side panel, hidden or not."""
        raise NotImplementedError

    def toggle_panel(self) -> None:
        """Show or hide the side panel from now on, whatever the size."""
        raise NotImplementedError

    def conversation_changed(self) -> None:
        """Another path, another conversation, or another wording is current: show it."""
        raise NotImplementedError

    def point_at(self, message_id: str, words: str = "") -> None:
        """Point at a message of the path, at the token with which some words begin in it."""
        raise NotImplementedError
