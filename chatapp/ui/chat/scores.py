"""How sure: scales, and the user's own words scored as the model reads them.

After each reply the messages that no model wrote, and the system text, are scored out of what the
engine remembers of reading them: in the background, giving way to whatever else is asked of it.
`/score on` scores everything, even where the model has to read it again; `/score off` nothing.

The model reads one text, made by the format out of the system text and all messages. A message is
found in it by its exact bytes, in the order of the conversation; a token that reaches into it
belongs to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain

from textual.content import Content

from chatapp.chat.conversation import Conversation
from chatapp.chat.errors import ChatappError
from chatapp.chat.numbers import count
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.record import TokenRecord
from chatapp.chat.served import SERVERS
from chatapp.ui.actions import action
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.chat.models import Models
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.message import SYSTEM, MessageBlock
from chatapp.ui.services import ModelState
from chatapp.ui.token_colours import legend

GIVEN = "your text: T and final are the model's own"
"""What the numbers of a token mean that no model wrote."""


Places = Mapping[str, Sequence[int]]
"""By message (the system text under `SYSTEM`), the places of its tokens in the prompt, rising."""


@dataclass(frozen=True, slots=True)
class Part:
    """A text that stands in the prompt."""

    key: str
    """The message's id, or `SYSTEM`."""
    text: str
    given: bool = True
    """Whether no model wrote it; what a model wrote has numbers of its own."""


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

    @action("score", usage="[WHAT]", takes=("on", "off", "system"))
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


def parts_of(conversation: Conversation, leaf: str) -> list[Part]:
    """What the prompt up to a message is made of."""
    path = conversation.path_to(leaf)
    parts = [Part(message.id, message.text, message.reply is None) for message in path]
    return [Part(SYSTEM, conversation.system), *parts]


def find_places(parts: Iterable[Part], tokens: Sequence[TokenPiece]) -> Places:
    """Where the parts that were given stand among the tokens of the whole prompt.

    `parts`: what the prompt was made of, in its order.
    """
    # Control tokens hold no part; what is no UTF-8 is found in none.
    whole = b"".join(b"\xff" * len(t.bytes) if t.control else t.bytes for t in tokens)
    starts = [0, *accumulate(len(token.bytes) for token in tokens)]
    found: dict[str, Sequence[int]] = {}
    position = 0
    for part in parts:
        text = part.text.encode("utf-8", "replace")
        start = _find(whole, text, position)
        if start < 0:
            text = text.strip()  # formats may take away the white space around a message
            start = _find(whole, text, position)
        if start < 0 or not text:
            continue
        position = start + len(text)
        if part.given:
            found[part.key] = [
                place
                for place, token in enumerate(tokens)
                if not token.control and starts[place] < position and starts[place + 1] > start
            ]
    return found


def _find(whole: bytes, text: bytes, position: int) -> int:
    """Where a text stands from a position on: where a control token ends it, if it does anywhere.

    So a message "user" is not taken for the word that says whose turn it is. -1 for nowhere.
    """
    first = at = whole.find(text, position)
    while at >= 0:
        end = at + len(text)
        if whole[end : end + 8].lstrip().startswith(b"\xff"):
            return at
        at = whole.find(text, at + 1)
    return first


def choose(places: Places, known: Collection[str], most: int | None) -> Places:
    """Which parts to score now: those that are not known, the newest first.

    `places`: of all parts, in the order of the conversation. `known`: what is scored already.
    `most`: how many tokens in all; a part that does not fit is left out. None is any number.
    """
    chosen: dict[str, Sequence[int]] = {}
    room = most
    for key, own in reversed(tuple(places.items())):
        if key in known or (room is not None and len(own) > room):
            continue
        chosen[key] = own
        room = None if room is None else room - len(own)
    return chosen


def spread(places: Places, records: Iterable[TokenRecord]) -> Mapping[str, tuple[TokenRecord, ...]]:
    """The records of each part, numbered from 0 within it; a part with a gap is left out.

    A record's `index` is its place in the prompt, whose very first token has no context and so no
    record, which is no gap.
    """
    by_place = {record.index: record for record in records}
    found: dict[str, tuple[TokenRecord, ...]] = {}
    for key, own in places.items():
        scored = [place for place in own if place > 0]
        if scored and all(place in by_place for place in scored):
            found[key] = tuple(
                replace(by_place[place], index=index) for index, place in enumerate(scored)
            )
    return found
