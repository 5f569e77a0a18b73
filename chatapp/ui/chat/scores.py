"""How sure: scales, and the user's own words scored as the model reads them.

After each reply the messages that no model wrote, and the system text, are scored out of what the
engine remembers of reading them: in the background, giving way to whatever else is asked of it.
`/score on` scores everything, even where the model has to read it again; `/score off` nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from textual.content import Content

from chatapp.chat.conversation import Conversation
from chatapp.chat.errors import ChatappError
from chatapp.chat.numbers import count
from chatapp.chat.record import TokenRecord
from chatapp.chat.served import SERVERS
from chatapp.ui.actions import CommandError, action
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.chat.models import Models
from chatapp.ui.chat.score_places import choose, find_places, parts_of, spread
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.message import MessageBlock
from chatapp.ui.layout.system import SYSTEM
from chatapp.ui.services import ModelState
from chatapp.ui.token_colours import legend

GIVEN = "your text: T and final are the model's own"
"""What the numbers of a token mean that no model wrote."""


class Scores:
    """Scores of what no model wrote."""

    def __init__(self, chat: ChatBase, models: Models) -> None:
        self._chat = chat
        self._session = chat.session
        self._models = models
        self.records: Mapping[str, tuple[TokenRecord, ...]] = {}
        """By message, of what was scored; the system text under `SYSTEM`."""
        self.asked: bool | None = None
        """What the user said with /score; None scores by itself what costs next to nothing."""
        self._scored_as: tuple[str, ...] = ()
        """What the scores hold for besides the messages: see `_circumstances`."""

    @property
    def wanted(self) -> bool:
        """Whether the user's own messages are scored."""
        if self.asked is None:
            return self._chat.services.score_prompt_tokens > 0
        return self.asked

    @action("score", usage="[WHAT]", values=lambda _: ("on", "off", "system"))
    def score(self, what: str = "") -> None:
        """Score your messages and the system text: on, off; system goes to that text."""
        match what:
            case "":
                state = "scored; /score off ends it" if self.wanted else "not scored; /score on"
                self._chat.say(f"your messages and the system text are {state}")
            case "on":
                self.asked = True
                self.soon()
                self._chat.say(
                    "your messages and the system text are scored; Ctrl+T shows their colours"
                )
            case "off":
                self.asked = False
                self.stop()
                self.records = {}
                self._show()
                self._chat.say("your own messages are not scored any more")
            case "system":
                self._show_system()
            case _:
                raise CommandError(f"/score takes on, off or system, not {what!r}")

    def soon(self) -> None:
        """Score what the model read, unless a reply is under way."""
        unasked = self.asked is None
        if not self.wanted or self._chat.turns.busy:
            return
        if unasked and self._models.state is not ModelState.READY:
            return  # nobody asked for it: no model is waited for, or started again
        facts = self._session.facts
        if unasked and facts is not None and facts.runtime in SERVERS:
            return  # which score nothing
        if any(message.role == "user" for message in self._session.conversation.path()):
            self._chat.run_worker(self._score(unasked), group="score", exclusive=True)

    def stop(self) -> None:
        """Withdraw what is being scored."""
        self._chat.workers.cancel_group(self._chat, "score")

    def conversation_changed(self) -> None:
        """Show the scores that there are, and score the rest."""
        self._forget_others()
        self._show()
        self.soon()

    async def _score(self, unasked: bool) -> None:
        conversation = self._session.conversation
        inspector = self._chat.inspector
        leaf = next(one.id for one in reversed(conversation.path()) if one.role == "user")
        try:
            await self._models.ready()
            self._forget_others()
            tokens = await inspector.prompt_tokens(leaf)
            places = choose(
                find_places(parts_of(conversation, leaf), tokens),
                self.records,
                self._chat.services.score_prompt_tokens if unasked else None,
            )
            if not places:
                return
            running = inspector.score(
                leaf,
                self._session.top_logprobs,
                places=sorted(chain.from_iterable(places.values())),
                background=unasked,
            )
            records = [event async for event in running if isinstance(event, TokenRecord)]
        except ChatappError as error:
            self._chat.say(f"not scored: {error}", "warning")
            return
        if self._scored_as == self._circumstances(conversation):
            self.records = {**self.records, **spread(places, records)}
            self._show()

    def _circumstances(self, conversation: Conversation) -> tuple[str, ...]:
        """What the numbers of a message hang on, besides the messages above it."""
        facts = self._session.facts
        model = facts.sha256 if facts is not None else ""
        return conversation.id, conversation.system, conversation.format, model

    def _forget_others(self) -> None:
        """Drop scores of another chat, another system text, or another model."""
        now = self._circumstances(self._session.conversation)
        if self._scored_as != now:
            self._scored_as = now
            self.records = {}
            self._show()

    def _show_system(self) -> None:
        """Put the cursor on the system text."""
        transcript = self._chat.transcript
        block = transcript.block_of(SYSTEM)
        if block is None:
            self._chat.say("this chat has no system text; /system TEXT sets one", "warning")
            return
        if not block.has_tokens:
            self._chat.say("the system text is not scored; /score on scores it with your messages")
        transcript.point(SYSTEM, 0 if block.has_tokens else None)
        transcript.focus()

    def _show(self) -> None:
        transcript = self._chat.transcript
        given = [one.id for one in transcript.messages if one.reply is None]
        for key in (SYSTEM, *given):
            transcript.take_scores(key, self.records.get(key, ()))
        self._chat.show_token()

    # A token that was given, and not drawn

    @property
    def _given(self) -> tuple[MessageBlock, int] | None:
        """The token pointed at, where no model wrote it."""
        pointed = self._chat.transcript.pointed
        return pointed if pointed is not None and pointed[0].message.reply is None else None

    def show_token(self) -> bool:
        """Show the token pointed at where no model wrote it. Returns whether that is so."""
        if (given := self._given) is None:
            return False
        block, index = given
        words = f"your text · token {count(index + 1)}"
        self._chat.panel.show(block.records, index, words=words)
        return True

    def legend(self) -> Content | None:
        """The scale, and what the numbers of such a token are; None where none is pointed at."""
        if self._given is None:
            return None
        scale = legend(self._chat.transcript.scale, dark=self._chat.app.current_theme.dark)
        return scale + Content("\n") + Content.styled(GIVEN, MUTED)
