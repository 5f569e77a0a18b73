"""Look inside the model at the token pointed at, and follow its journey."""

from __future__ import annotations

from chatapp.chat.conversation import Message
from chatapp.chat.numbers import count
from chatapp.explain.journey import Journey
from chatapp.ui.actions import CommandError, action
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.chat.models import Models
from chatapp.ui.chat.score_places import find_places, parts_of
from chatapp.ui.chat.turns import Turns
from chatapp.ui.xray.inside import PAGES
from chatapp.ui.xray.inside import Inside as Look
from chatapp.ui.xray.screen import PagesScreen


class Inside:
    """Opens pages about the token pointed at, or the newest one."""

    def __init__(self, chat: ChatBase, turns: Turns, models: Models) -> None:
        self._chat = chat
        self._turns = turns
        self._models = models

    @action(
        "inside",
        "Look inside the model at the cursor: tokens, attention, layers, words, anatomy.",
        usage="[PAGE]",
        values=lambda _: PAGES,
    )
    def inside(self, page: str = "") -> None:
        """The first page, or the one that is named."""
        if page and page not in PAGES:
            raise CommandError(f"/inside takes {', '.join(PAGES)}, not {page!r}")
        self._refuse_busy()

        async def show() -> None:
            look, message, start = await self._look()

            def point(place: int | None) -> None:
                """Leave the cursor on the token that was looked at last."""
                transcript = self._chat.transcript
                if message is None or place is None or place < start:
                    return
                if transcript.block_of(message.id) is not None:
                    transcript.point(message.id, place - start)

            self._chat.app.push_screen(PagesScreen(look, page), point)

        self._models.when_ready(show)

    @action("journey", "How the token at the cursor came to be, stage by stage.")
    def journey(self, _: str = "") -> None:
        """Of a reply's token: what was given did not come to be."""
        self._pointed_reply()
        self._refuse_busy()

        async def show() -> None:
            message, index = self._pointed_reply()
            look, _message, _start = await self._look()
            journey = Journey(self._chat.session, message.id, index)
            self._chat.app.push_screen(PagesScreen(look, stages=journey.pages))

        self._models.when_ready(show)

    def _pointed_reply(self) -> tuple[Message, int]:
        """The reply pointed at, and which token of it. Raises CommandError."""
        pointed = self._chat.transcript.pointed
        if pointed is None or pointed[0].message.reply is None:
            raise CommandError("point at a token of a reply first: Tab, then the arrow keys")
        return pointed[0].message, pointed[1]

    def _refuse_busy(self) -> None:
        if self._turns.busy:
            raise CommandError("a reply is being written; look inside when it is done")

    async def _look(self) -> tuple[Look, Message | None, int]:
        """What is pointed at, its message, and where that begins. Raises EngineError."""
        session = self._chat.session
        facts = session.facts
        assert facts is not None  # a model that is ready has told them
        pointed = self._chat.transcript.pointed
        if pointed is None:
            return Look(session.engine, facts, (), 0), None, 0
        block, index = pointed
        message = block.message
        if (reply := message.reply) is not None:
            written = session.written(message.id)  # refuses what another model wrote
            start = len(written.prompt_ids)
            kept = reply.cached_tokens
            turn = f"In this turn {count(kept)} of {count(start)} tokens of the prompt were kept."
            ids = (*written.prompt_ids, *written.ids)
            look = Look(
                session.engine,
                facts,
                ids,
                start + index,
                measured=reply.tokens_per_second,
                turn=turn,
            )
            return look, message, start
        asked = [one.id for one in session.conversation.path() if one.role == "user"]
        tokens = await self._chat.inspector.prompt_tokens(asked[-1])
        ids = tuple(piece.id for piece in tokens)
        own = find_places(parts_of(session.conversation, asked[-1]), tokens).get(message.id, ())
        places = [place for place in own if place > 0]
        place = places[index] if index < len(places) else max(0, len(ids) - 1)
        return Look(session.engine, facts, ids, place), None, 0
