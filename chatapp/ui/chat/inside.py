"""Look inside the model at the token pointed at: in the panel, on pages, and on its journey."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Literal

from textual.content import Content
from textual.widgets import Static
from textual.worker import WorkType

from chatapp.chat.conversation import Message
from chatapp.chat.errors import ChatappError
from chatapp.chat.facts import Report
from chatapp.chat.numbers import count
from chatapp.chat.prompt import TokenPiece
from chatapp.chat.text import visible_token
from chatapp.chat.xray import Attention
from chatapp.explain import views
from chatapp.explain.cells import fit_token
from chatapp.explain.journey import Journey
from chatapp.explain.views import Made
from chatapp.ui.actions import CommandError, action
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.chat.models import Models
from chatapp.ui.chat.scores import find_places, parts_of
from chatapp.ui.chat.what_if import WhatIf
from chatapp.ui.drawing import MUTED, piece_style
from chatapp.ui.token_colours import Look, legend, step_of, step_style
from chatapp.ui.widgets.token_panel import TABS
from chatapp.ui.xray.inside import PAGES
from chatapp.ui.xray.inside import Inside as Looked
from chatapp.ui.xray.screen import PagesScreen

RESTS_SECONDS = 0.15
"""How long the cursor has to stand still before anything is computed for it."""
_CANDIDATES, _TRACE, _ATTENTION, _LAYERS, _TOKEN = TABS
_FULL = {_ATTENTION: "attention", _LAYERS: "layers", _TOKEN: "tokens"}
"""The page that shows more of a tab."""
_NO_TOKEN = "Point at a token first: Tab, then the arrow keys, or a click."
_UNSCORED = (
    "The tokens of this text are not known yet: /score on reads it, and they can be pointed at."
)
_BUSY = "a reply is being written; look inside when it is done"
_WRITING = "A reply is being written: this is shown when it is done."


class Inside:
    """Looks into the model at the token pointed at, or the newest one."""

    def __init__(self, chat: ChatBase, models: Models, what_if: WhatIf) -> None:
        self._chat = chat
        self._models = models
        self._what_if = what_if
        self._layer: int | None = None
        self._head: int | None = None
        self._shown: object = None  # what the panel shows, or is about to
        self._legend: Content | None = None
        self._written: Sequence[TokenPiece] = ()
        self._shows_written = False

    @action("inside", usage="[PAGE]", takes=PAGES)
    def inside(self, page: str = "") -> None:
        """Look inside the model at the cursor: tokens, attention, layers, words, anatomy."""
        self._chat.turns.refuse_busy(_BUSY)

        async def show() -> None:
            inside = await self._look()

            def leave(place: int | None) -> None:
                """Leave the cursor on the token that was looked at last."""
                transcript = self._chat.transcript
                self._layer, self._head = inside.layer, inside.head
                for message_id, places in inside.places.items():
                    block = transcript.block_of(message_id)
                    if place in places and block is not None and block.has_tokens:
                        transcript.point(message_id, places.index(place))

            first = page or _FULL.get(self._chat.panel.tab, "")
            self._chat.app.push_screen(PagesScreen(inside, first), leave)

        self._models.when_ready(show)

    @action("journey")
    def journey(self, _: str = "") -> None:
        """How the token at the cursor came to be, stage by stage."""
        self._pointed_reply()
        self._chat.turns.refuse_busy(_BUSY)

        async def show() -> None:
            message, index = self._pointed_reply()
            inside = await self._look()
            journey = Journey(self._chat.session, message.id, index)
            self._chat.app.push_screen(PagesScreen(inside, stages=journey.pages))

        self._models.when_ready(show)

    # What is written

    @action("pieces", keys="alt+t", key_id="prompt.pieces")
    def pieces(self, _: str = "") -> None:
        """Show the tokens of what you write, as you write it."""
        self._shows_written = not self._shows_written
        self.show_written(self._written)

    def show_written(self, pieces: Sequence[TokenPiece]) -> None:
        """Show what the prompt holds."""
        self._written = pieces
        line = self._chat.query_one("#pieces", Static)
        line.display = self._shows_written
        if self._shows_written:
            room = self._chat.size.width - 4
            line.update(_written(pieces, room), layout=False)

    # The panel

    @action("panel", usage="[PAGE]", keys="ctrl+b", key_id="chat.panel", values=lambda _: TABS)
    def panel(self, page: str = "") -> None:
        """Show or hide the side panel, or turn to one of its pages."""
        panel = self._chat.panel
        if not page:
            self._chat.toggle_panel()
            return
        if page in ("+", "-"):
            page = TABS[(TABS.index(panel.tab) + int(f"{page}1")) % len(TABS)]
        if page not in TABS:
            raise CommandError(f"/panel takes {', '.join(TABS)}, not {page!r}")
        self._chat.unfold_panel()
        panel.tab = page

    @action("layer", usage="N")
    def layer(self, to: str = "") -> None:
        """Look at the attention of another layer; + and - are the next."""
        self._layer = self._turned("layer", to, self._layer, 0)
        self.panel(_ATTENTION)
        self.follow()

    @action("head", usage="N", values=lambda _: ("mean",))
    def head(self, to: str = "") -> None:
        """Look at the attention of another head; + and - are the next, mean is all."""
        found = self._turned("head", to, -1 if self._head is None else self._head, -1)
        self._head = None if found < 0 else found
        self.panel(_ATTENTION)
        self.follow()

    def _turned(self, what: Literal["layer", "head"], to: str, now: int | None, least: int) -> int:
        """Another layer or head. Raises CommandError."""
        facts = self._chat.session.facts
        most = (facts.layers if what == "layer" else facts.heads) - 1 if facts is not None else -1
        if most < 0:
            raise CommandError(f"no {what}s are known of this model")
        if to in ("+", "-"):
            number = min(max(least, (most if now is None else now) + int(f"{to}1")), most)
        elif to == "mean" and least < 0:
            number = least
        elif to.isdecimal() and int(to[:6]) <= most:
            number = int(to)
        else:
            raise CommandError(f"/{what} takes 0 to {most}, + or -, not {to!r}")
        return number

    def tab_turned(self) -> None:
        """Another page is open; nothing of the last one stays on it."""
        self._chat.panel.page.say("…")
        self.follow()

    def follow(self) -> None:
        """Show the page of the panel for the token pointed at, once the cursor rests on it."""
        panel, transcript = self._chat.panel, self._chat.transcript
        pointed = transcript.pointed
        wanted: object = None
        if panel.tab != _CANDIDATES and self._chat.query_one("#side").display:
            place = (pointed[0].message.id, pointed[1]) if pointed is not None else None
            wanted = (panel.tab, place, self._layer, self._head, self._what_if.on)
            if self._chat.turns.busy:
                wanted = _WRITING
        if wanted == self._shown:
            return
        self._shown = wanted
        colours = panel.tab == _ATTENTION and pointed is not None and not self._what_if.on
        if not colours or wanted is None or wanted == _WRITING:
            self._colour({}, None)
        if wanted is None or wanted == _WRITING:
            self._chat.workers.cancel_group(self._chat, "panel")
            panel.page.say(_WRITING)
        elif pointed is None:
            panel.page.say(_NO_TOKEN if transcript.cursor is None else _UNSCORED)
        elif not panel.page.is_loading or panel.tab not in (_ATTENTION, _LAYERS):
            # Loading would begin anew; what is wanted by then is shown when it is done.
            work: WorkType[None] = self._show
            self._chat.run_worker(work, group="panel", exclusive=True)

    def forget(self) -> None:
        """What is on the screen is another: messages, or the theme."""
        self._shown = None
        self._colour({}, None)

    def legend(self) -> Content | None:
        """What the colours of attention mean; None where there are none."""
        return self._legend

    async def _show(self) -> None:
        page = self._chat.panel.page
        await asyncio.sleep(RESTS_SECONDS)
        wanted = self._shown
        timer = page.wait()
        try:
            await self._models.ready()
            made = await self._made(page.report)
        except ChatappError as error:
            page.say(str(error))
        else:
            if wanted == self._shown:
                page.show_page(made)
        finally:
            timer.stop()
            page.is_loading = False
        if wanted != self._shown:
            self._chat.call_later(self._again)

    def _again(self) -> None:
        self._shown = None
        self.follow()

    async def _made(self, report: Report) -> Made:
        """The page. Raises ChatappError."""
        tab = self._chat.panel.tab
        if tab == _TRACE:
            message, index = self._pointed_reply()
            inspector = self._chat.inspector
            record = self._chat.session.reply(message.id).records[index]
            step = inspector.step(message.id, index, self._what_if.tried)
            traced = await inspector.trace(step, [record.id])
            return lambda width: views.filters(traced.trace.stages, record, width)
        inside = await self._look()
        if tab == _TOKEN:
            return inside.word()
        if tab == _LAYERS:
            return await inside.make("layers", report)
        found = await inside.looked_at(report)
        if self._chat.panel.tab == _ATTENTION and not self._what_if.on:
            self._colour_attention(inside, found)
        return lambda width: views.attention(found, width)

    def _colour_attention(self, inside: Looked, found: Attention) -> None:
        """Colour the transcript by how much its tokens were looked at, the first one left out."""
        dark, row = self._chat.app.current_theme.dark, found.rows[0]
        shares = views.shares_without_first(row)
        styles = [step_style(step_of(share, "attention"), dark=dark) for share in shares]
        looks = {
            message_id: Look(
                tuple(styles[place] for place in places if place < len(styles)),
                tokens=tuple(inside.pieces[place].bytes for place in places),
            )
            for message_id, places in inside.places.items()
        }
        token = fit_token(found.tokens[found.token].bytes, 12).rstrip()
        head = "mean of heads" if found.head is None else f"head {found.head}"
        words = f"by {token}, first token left out · < > layer {found.layer} · , . {head}"
        scale = legend("attention", dark=dark)
        self._colour(looks, scale + Content("\n") + Content.styled(words, MUTED))

    def _colour(self, looks: Mapping[str, Look], words: Content | None) -> None:
        if self._legend is None and words is None:
            return
        if not self._what_if.on:  # whose colours these are then
            self._chat.transcript.looks = looks
        self._legend = words
        self._chat.show_legend()

    # What is pointed at

    def _pointed_reply(self) -> tuple[Message, int]:
        """The reply pointed at, and which token of it. Raises CommandError."""
        pointed = self._chat.transcript.pointed
        if pointed is None or pointed[0].message.reply is None:
            raise CommandError("point at a token of a reply first: Tab, then the arrow keys")
        return pointed[0].message, pointed[1]

    async def _look(self) -> Looked:
        """What is pointed at. Raises ChatappError."""
        session = self._chat.session
        facts, engine = session.facts, session.engine
        assert facts is not None  # a model that is ready has told them
        pointed = self._chat.transcript.pointed
        if pointed is None:
            return Looked(engine, facts, (), 0)
        block, index = pointed
        message = block.message
        if (reply := message.reply) is not None:
            written = session.written(message.id)  # refuses what another model wrote
            start = len(written.prompt_ids)
            pieces = await engine.pieces((*written.prompt_ids, *written.ids))
            places = self._places(message.parent, pieces[:start])
            places[message.id] = range(start, len(pieces))
            inside = Looked(engine, facts, pieces, start + index)
            inside.measured = reply.tokens_per_second
            kept = reply.cached_tokens
            inside.turn = (
                f"In this turn {count(kept)} tokens of the prompt were kept from the one before,"
                f" {count(start - kept)} newly read."
            )
        else:
            asked = [one.id for one in session.conversation.path() if one.role == "user"]
            pieces = await self._chat.inspector.prompt_tokens(asked[-1])
            places = self._places(asked[-1], pieces)
            own = places.get(message.id, ())
            inside = Looked(engine, facts, pieces, own[index] if index < len(own) else -1)
        inside.head = self._head
        if self._layer is not None:
            inside.layer = self._layer
        inside.places = places
        return inside

    def _places(self, leaf: str | None, prompt: Sequence[TokenPiece]) -> dict[str, Sequence[int]]:
        """Where the tokens of the messages up to one stand in the prompt.

        Of an earlier reply those that it was written in, up to where the prompt has others.
        """
        conversation = self._chat.session.conversation
        if leaf is None:
            return {}
        parts = [replace(part, given=True) for part in parts_of(conversation, leaf)]
        found: dict[str, Sequence[int]] = {}
        for key, own in find_places(parts, prompt).items():
            message = conversation.messages.get(key)
            if message is not None and message.reply is not None:
                pairs = zip(own, message.reply.ids, strict=False)
                same = takewhile(lambda pair: prompt[pair[0]].id == pair[1], pairs)
                found[key] = [place for place, _ in same]
            else:
                found[key] = [place for place in own if place > 0]
        return found


def _written(pieces: Sequence[TokenPiece], width: int) -> Content:
    """The last tokens of a text on one line, and what they are on the next."""
    if not pieces:
        return Content.styled(
            "write: your text stands here in tokens, as the model reads it", MUTED
        )
    shown: list[Content] = []
    for index in reversed(range(len(pieces))):
        piece = Content.styled(
            visible_token(pieces[index].bytes), piece_style(pieces[index], index)
        )
        width -= piece.cell_length
        if width < 1:
            shown.append(Content.styled("…", MUTED))
            break
        shown.append(piece)
    words = Content.styled(views.written(pieces), MUTED)
    return Content("").join(reversed(shown)) + Content("\n") + words
