"""How sure: scales, and the person's own words scored as the model reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual.binding import Binding, BindingType

from chatapp.chat.conversation import Message
from chatapp.chat.errors import ChatappError
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.record import TokenRecord
from chatapp.chat.scoring import ScoreEvent, ScoreStart
from chatapp.protocols import Running
from chatapp.ui.control.scores import SYSTEM, Part, spread
from chatapp.ui.screens.chat_what_if import ChatWhatIf
from chatapp.ui.screens.scored import ScoredScreen
from chatapp.ui.token_colours import SCALES, Scale


class ChatScores(ChatWhatIf):
    """Colours, and scores of what no model wrote."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f12", "next_scale", "next scale of colours", id="chat.scale", priority=True),
    ]

    scores: Mapping[str, tuple[TokenRecord, ...]] = {}
    """By message, the records of what was scored; the system text under `SYSTEM`."""
    _scores_wanted = False
    _scoring: Running[ScoreEvent] | None = None

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
        """Score the person's own messages from now on, or no more."""
        self._scores_wanted = wanted
        if wanted:
            self.score_soon()
            return
        self.scores = {}
        self._stop_scoring()
        self._show_scores()
        self.say("your own messages are not scored any more")

    @property
    def scores_wanted(self) -> bool:
        """Whether the person's own messages are scored."""
        return self._scores_wanted

    def score_soon(self) -> None:
        """Score what the model read, unless a reply is under way."""
        path = self.session.conversation.path()
        asked = any(message.role == "user" for message in path)
        if self._scores_wanted and asked and not self.turns.busy:
            self.run_worker(self._score(), group="score", exclusive=True)

    async def _score(self) -> None:
        path = self.session.conversation.path()
        last = max(place for place, message in enumerate(path) if message.role == "user")
        parts = [Part(SYSTEM, self.session.conversation.system)]
        parts += [Part(message.id, message.text) for message in path[: last + 1]]
        tokens: tuple[TokenPiece, ...] = ()
        records: list[TokenRecord] = []
        try:
            await self.models.ready()
            running = self.inspector.score(path[last].id, self.session.top_logprobs)
            self._scoring = running
            async for event in running:
                if isinstance(event, ScoreStart):
                    tokens = event.tokens
                elif isinstance(event, TokenRecord):
                    records.append(event)
        except ChatappError as error:
            self.say(f"not scored: {error}", "warning")
            return
        finally:
            self._scoring = None
        if self._scores_wanted:
            self.scores = spread(parts, tokens, records)
            self._show_scores()

    def show_system_score(self) -> None:
        """Show the system text as scored tokens."""
        if SYSTEM not in self.scores:
            self.say("no system text is scored; /score on scores it with your messages", "warning")
            return
        self.app.push_screen(
            ScoredScreen("The system text", self.scores[SYSTEM], self.transcript.scale)
        )

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
        super().conversation_changed()
        self._show_scores()
        self.score_soon()

    def _show_scores(self) -> None:
        for message in self.transcript.messages:
            if message.reply is None:
                self.transcript.take_scores(message.id, self.scores.get(message.id, ()))
        self.show_token()

    def _stop_scoring(self) -> None:
        if self._scoring is not None:
            self._scoring.cancel()
