"""Other ways to answer the last message: side by side, by beams, by contrastive search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from chatapp.chat.conversation import Reply
from chatapp.chat.errors import ChatappError
from chatapp.chat.search import BeamOptions, ContrastiveOptions
from chatapp.session.protocols import Running
from chatapp.ui.actions import CommandError, action
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.chat.models import Models
from chatapp.ui.dialogs.compare import CompareScreen, Setting
from chatapp.ui.dialogs.search_view import SearchScreen
from chatapp.ui.layout.searches import LEGEND, BeamTree, ContrastiveTable, Found

_Options = TypeVar("_Options", BeamOptions, ContrastiveOptions)

COLUMNS_AT_LEAST, COLUMNS_AT_MOST = 2, 4
USUAL_COLUMNS = ("greedy", "cool", "hot", "nucleus")
_TITLES = {"greedy": "greedy", "cool": "T 0.7", "hot": "T 1.3", "nucleus": "nucleus, top-p 0.9"}


class Compare:
    """Opens the other decoders, and takes what they wrote."""

    def __init__(self, chat: ChatBase, models: Models) -> None:
        self._chat = chat
        self._session = chat.session
        self._models = models

    @action("compare", usage="[NAMES]", values=lambda self: self.names)
    def compare(self, argument: str = "") -> None:
        """Answer again under 2 to 4 presets side by side; also now, beam, contrastive."""
        names: Sequence[str] = argument.replace(",", " ").split() or USUAL_COLUMNS
        if not COLUMNS_AT_LEAST <= len(names) <= COLUMNS_AT_MOST:
            allowed = f"between {COLUMNS_AT_LEAST} and {COLUMNS_AT_MOST}"
            raise ChatappError(f"{allowed} can be compared, not {len(names)}")
        settings = [self._setting(name) for name in names]

        def show(parent: str | None) -> None:
            def take(reply: Reply | None) -> None:
                if reply is not None:
                    self._chat.turns.start(self._session.adopt(reply, parent))

            inspector, scale = self._chat.inspector, self._chat.transcript.scale
            self._chat.app.push_screen(CompareScreen(inspector, parent, settings, scale), take)

        self._answer(show)

    @property
    def names(self) -> list[str]:
        return [*self._chat.services.presets.names(), "now", "beam", "contrastive"]

    def _setting(self, name: str) -> Setting:
        if name == "now":
            return Setting("the present settings", self._session.sampling)
        if name == "beam":
            return Setting("beam search, 4 beams", self._limited(BeamOptions()))
        if name == "contrastive":
            return Setting("contrastive search", self._limited(ContrastiveOptions()))
        return Setting(_TITLES.get(name, name), self._chat.services.presets.load(name))

    @action("beam", usage="[N]")
    def beam(self, argument: str = "") -> None:
        """Answer again by beam search, shown as a tree."""
        options = BeamOptions(num_return=4)
        if argument:
            if not argument.isdecimal():
                raise CommandError(f"/beam takes a number of beams, not {argument!r}")
            beams = int(argument)
            options = BeamOptions(num_beams=beams, num_return=max(1, min(beams, 4)))
        self._search(
            f"Beam search, {options.num_beams} beams",
            lambda parent: self._chat.inspector.beam(parent, self._limited(options)),
            BeamTree(),
            f"{LEGEND} · enter or 1–4 take as the reply",
        )

    @action("contrastive", usage="[K ALPHA]")
    def contrastive(self, argument: str = "") -> None:
        """Answer again by contrastive search, penalties shown."""
        options = ContrastiveOptions()
        if argument:
            top_k, _, alpha = argument.partition(" ")
            try:
                k, penalty = int(top_k), float(alpha or 0.6)
            except ValueError:
                raise CommandError(
                    "/contrastive takes a number of candidates and α, such as 4 0.6, not"
                    f" {argument!r}"
                ) from None
            options = ContrastiveOptions(top_k=k, penalty_alpha=penalty)
        self._search(
            f"Contrastive search, k {options.top_k}, α {options.penalty_alpha:g}",
            lambda parent: self._chat.inspector.contrastive(parent, self._limited(options)),
            ContrastiveTable(),
            "● taken: the highest score · most like: a place in prompt and reply · enter takes it",
        )

    def _limited(self, options: _Options) -> _Options:
        """The options with the user's own limit of tokens, where there is one."""
        limit = self._session.max_tokens
        return replace(options, max_tokens=limit) if limit else options

    def _search(
        self,
        title: str,
        start: Callable[[str | None], Running[Any]],
        shape: BeamTree | ContrastiveTable,
        legend: str,
    ) -> None:
        def show(parent: str | None) -> None:
            def take(taken: tuple[tuple[int, ...], Found] | None) -> None:
                if taken is not None:
                    self._chat.work(lambda: adopt(*taken), "adopt", "error")

            async def adopt(prompt_ids: tuple[int, ...], found: Found) -> None:
                reply = await self._chat.inspector.reply_of_ids(prompt_ids, found.ids, found.reason)
                self._chat.turns.start(self._session.adopt(reply, parent))

            self._chat.app.push_screen(SearchScreen(title, start(parent), shape, legend), take)

        self._answer(show)

    def _answer(self, show: Callable[[str | None], None]) -> None:
        """Show other answers to the message that is to be answered, once a model can write them.

        Raises CommandError: a reply is under way.
        """

        async def begin() -> None:
            self._chat.turns.refuse_busy()
            show(self._session.parent_for_reply())

        self._chat.turns.refuse_busy()
        self._models.when_ready(begin)
