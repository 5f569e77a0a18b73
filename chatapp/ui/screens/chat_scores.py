"""How sure: scales, and the person's own words scored as the model reads them.

After each reply the messages that no model wrote, and the system text, are scored out of what the
engine remembers of reading them: in the background, giving way to whatever else is asked of it.
`/score on` scores everything, even where the model has to read it again; `/score off` nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content

from chatapp.chat.conversation import Conversation, Message
from chatapp.chat.errors import ChatappError
from chatapp.chat.record import TokenRecord
from chatapp.ui.control.model import ModelState
from chatapp.ui.control.scores import choose, find_places, parts_of, spread
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.message import MessageBlock
from chatapp.ui.layout.system import SYSTEM
from chatapp.ui.numbers import count
from chatapp.ui.screens.chat_what_if import ChatWhatIf
from chatapp.ui.token_colours import SCALES, Scale, legend

GIVEN = "given: T and final are the model's own"
"""What the numbers of a token mean that no model wrote."""


class ChatScores(ChatWhatIf):
    """Colours, and scores of what no model wrote."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f12", "next_scale", "next scale of colours", id="chat.scale", priority=True),
    ]

    scores: Mapping[str, tuple[TokenRecord, ...]] = {}
    """By message, the records of what was scored; the system text under `SYSTEM`."""
    _scores_wanted: bool | None = None
    """What the person said with /score; None scores by itself what costs next to nothing."""
    _scored_as: tuple[str, ...] = ()
    """What the scores hold for besides the messages: see `_circumstances`."""

    def action_next_scale(self) -> None:
        """Colour tokens by the next scale."""
        place = SCALES.index(self.transcript.scale) + 1
        self.colour_by(SCALES[place % len(SCALES)])

    def colour_by(self, scale: Scale) -> None:
        """Colour tokens by a scale, and show them."""
        self.transcript.scale = scale
        if self.transcript.cursor is None:
            self.transcript.view = "tokens"

    # Scores

    def want_scores(self, wanted: bool) -> None:
        """Score the person's own messages and the system text from now on, or no more."""
        self._scores_wanted = wanted
        if wanted:
            self.score_soon()
            self.say("your messages and the system text are scored; Ctrl+T shows their colours")
            return
        self._stop_scoring()
        self.scores = {}
        self._show_scores()
        self.say("your own messages are not scored any more")

    @property
    def scores_wanted(self) -> bool:
        """Whether the person's own messages are scored."""
        if self._scores_wanted is None:
            return self.services.score_prompt_tokens > 0
        return self._scores_wanted

    def score_soon(self) -> None:
        """Score what the model read, unless a reply is under way."""
        unasked = self._scores_wanted is None
        if not self.scores_wanted or self.turns.busy:
            return
        if unasked and self.models.state is not ModelState.READY:
            return  # nobody asked for it: no model is waited for, or started again
        if any(message.role == "user" for message in self.session.conversation.path()):
            self.run_worker(self._score(unasked), group="score", exclusive=True)

    async def _score(self, unasked: bool) -> None:
        conversation = self.session.conversation
        leaf = next(one.id for one in reversed(conversation.path()) if one.role == "user")
        try:
            await self.models.ready()
            self._forget_other_scores()
            tokens = await self.inspector.prompt_tokens(leaf)
            places = choose(
                find_places(parts_of(conversation, leaf), tokens),
                self.scores,
                self.services.score_prompt_tokens if unasked else None,
            )
            if not places:
                return
            running = self.inspector.score(
                leaf,
                self.session.top_logprobs,
                places=sorted(chain.from_iterable(places.values())),
                background=unasked,
            )
            records = [event async for event in running if isinstance(event, TokenRecord)]
        except ChatappError as error:
            self.say(f"not scored: {error}", "warning")
            return
        if self._scored_as == self._circumstances(conversation):
            self.scores = {**self.scores, **spread(places, records)}
            self._show_scores()

    def _circumstances(self, conversation: Conversation) -> tuple[str, ...]:
        """What the numbers of a message hang on, besides the messages above it."""
        facts = self.session.facts
        model = facts.sha256 if facts is not None else ""
        return conversation.id, conversation.system, conversation.format, model

    def _forget_other_scores(self) -> None:
        """Drop scores of another chat, another system text, or another model."""
        now = self._circumstances(self.session.conversation)
        if self._scored_as != now:
            self._scored_as = now
            self.scores = {}
            self._show_scores()

    def show_system(self) -> None:
        """Put the cursor on the system text."""
        block = self.transcript.block_of(SYSTEM)
        if block is None:
            self.say("this chat has no system text; /system TEXT sets one", "warning")
            return
        if not block.has_tokens:
            self.say("the system text is not scored; /score on scores it with your messages")
        self.transcript.point(SYSTEM, 0 if block.has_tokens else None)
        self.transcript.focus()

    def message_added(self, message: Message) -> None:
        """A reply goes before scoring."""
        self._stop_scoring()
        super().message_added(message)

    def turn_ended(self) -> None:
        """Score the new message of the person's, if any."""
        super().turn_ended()
        self.call_later(self.score_soon)

    def conversation_changed(self) -> None:
        """Show the scores that there are, and score the rest."""
        self._stop_scoring()  # it asks about messages that may be none of this chat
        super().conversation_changed()
        self._forget_other_scores()
        self._show_scores()
        self.score_soon()

    def _show_scores(self) -> None:
        given = [one.id for one in self.transcript.messages if one.reply is None]
        for key in (SYSTEM, *given):
            self.transcript.take_scores(key, self.scores.get(key, ()))
        self.show_token()

    def _stop_scoring(self) -> None:
        """Withdraw what is being scored."""
        self.workers.cancel_group(self, "score")

    # What was given, and not drawn

    @property
    def _given(self) -> tuple[MessageBlock, int] | None:
        """The token pointed at, where no model wrote it."""
        pointed = self.transcript.pointed
        return pointed if pointed is not None and pointed[0].message.reply is None else None

    def show_token(self) -> None:
        """Show the token pointed at; of one that was given, say so."""
        given = self._given
        if given is None:
            super().show_token()
            return
        block, index = given
        words = f"your text · token {count(index + 1)}"
        self.panel.show_other(block.records, index, block.records[index], words)

    def legend_text(self) -> Content:
        """The scale, and what the numbers of a given token are."""
        if self._given is None:
            return super().legend_text()
        scale = legend(self.transcript.scale, dark=self.app.current_theme.dark)
        return scale + Content("\n") + Content.styled(GIVEN, MUTED)
