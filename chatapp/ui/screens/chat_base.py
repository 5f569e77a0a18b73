"""What all parts of the chat screen share: its widgets, its controls, and a voice.

The screen is built up in layers, one concern each: base, view, messages, dialogs, and at the top
`ChatScreen` with the prompt and the keys.
"""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message
from textual.screen import Screen

from chatapp.chat.sampling import SamplingParams
from chatapp.session.session import Session
from chatapp.ui.control.conversations import ConversationControl
from chatapp.ui.control.model import ModelControl
from chatapp.ui.control.turns import Turns
from chatapp.ui.services import Services
from chatapp.ui.widgets.header import Header
from chatapp.ui.widgets.notices import Level, Notices
from chatapp.ui.widgets.prompt import PromptInput
from chatapp.ui.widgets.token_panel import TokenPanel
from chatapp.ui.widgets.transcript import Transcript


class ChatBase(Screen[None]):
    """Widgets, controls, and a voice."""

    services: Services
    session: Session
    models: ModelControl
    turns: Turns
    conversations: ConversationControl

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
        """Where the person writes."""
        return self.query_one("#prompt", PromptInput)

    @property
    def panel(self) -> TokenPanel:
        """What is known about the token pointed at."""
        return self.query_one(TokenPanel)

    @property
    def sampling(self) -> SamplingParams:
        """What the controls show and turn."""
        return self.session.sampling

    @property
    def header(self) -> Header:
        """The first row."""
        return self.query_one(Header)

    def say(self, words: str, level: Level = "note") -> None:
        """Tell the person something."""
        self.query_one(Notices).say(words, level)

    def say_error(self, words: str) -> None:
        """Tell the person what failed."""
        self.say(words, "error")

    def fault(self, error: BaseException) -> None:
        """End the program by its own fault, with the terminal put right first."""

        def raise_it() -> None:
            raise error

        self.call_next(raise_it)
