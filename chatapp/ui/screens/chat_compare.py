"""Other ways to answer the last message: side by side, by beams, by contrastive search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from chatapp.chat.conversation import Reply
from chatapp.chat.errors import ChatappError
from chatapp.chat.search import BeamOptions, ContrastiveOptions
from chatapp.settings.presets import BUILT_IN
from chatapp.ui.layout.searches import LEGEND, BeamTree, ContrastiveTable, Found
from chatapp.ui.screens.chat_rules import ChatRules
from chatapp.ui.screens.compare import CompareScreen, Setting
from chatapp.ui.screens.search_view import SearchScreen

_Options = TypeVar("_Options", BeamOptions, ContrastiveOptions)

COLUMNS_AT_LEAST, COLUMNS_AT_MOST = 2, 4
USUAL_COLUMNS = ("greedy", "cool", "hot", "nucleus")
_TITLES = {"greedy": "greedy", "cool": "T 0.7", "hot": "T 1.3", "nucleus": "nucleus, top-p 0.9"}


class ChatCompare(ChatRules):
    """Opens the other decoders, and takes what they wrote."""

    async def compare(self, names: Sequence[str]) -> None:
        """Answer the last message in several ways. Raises ChatappError."""
        names = names or USUAL_COLUMNS
        if not COLUMNS_AT_LEAST <= len(names) <= COLUMNS_AT_MOST:
            allowed = f"between {COLUMNS_AT_LEAST} and {COLUMNS_AT_MOST}"
            raise ChatappError(f"{allowed} can be compared, not {len(names)}")
        settings = [self._setting(name) for name in names]
        parent = await self._parent_to_answer()

        def take(reply: Reply | None) -> None:
            if reply is not None:
                self.turns.start(self.session.adopt(reply, parent))

        screen = CompareScreen(self.inspector, parent, settings, self.transcript.scale)
        self.app.push_screen(screen, take)

    def compare_names(self) -> list[str]:
        """What can be compared."""
        own = self.services.presets.names() if self.services.presets is not None else BUILT_IN
        return [*own, "now", "beam", "contrastive"]

    def _setting(self, name: str) -> Setting:
        if name == "now":
            return Setting("the present settings", self.session.sampling)
        if name == "beam":
            return Setting("beam search, 4 beams", self._limited(BeamOptions()))
        if name == "contrastive":
            return Setting("contrastive search", self._limited(ContrastiveOptions()))
        if self.services.presets is not None:
            return Setting(_TITLES.get(name, name), self.services.presets.load(name))
        if name in BUILT_IN:
            return Setting(_TITLES.get(name, name), BUILT_IN[name])
        raise ChatappError(
            f"there is no preset {name!r}; there are {', '.join(self.compare_names())}"
        )

    async def beam(self, options: BeamOptions) -> None:
        """Answer the last message by beam search. Raises ChatappError."""
        parent = await self._parent_to_answer()
        running = self.inspector.beam(parent, self._limited(options))
        title = f"Beam search, {options.num_beams} beams"
        legend = f"{LEGEND} · enter or 1–4 take as the reply"
        screen = SearchScreen(title, running, BeamTree(), legend)
        self.app.push_screen(screen, lambda taken: self._take_found(taken, parent))

    async def contrastive(self, options: ContrastiveOptions) -> None:
        """Answer the last message by contrastive search. Raises ChatappError."""
        parent = await self._parent_to_answer()
        running = self.inspector.contrastive(parent, self._limited(options))
        title = f"Contrastive search, k {options.top_k}, α {options.penalty_alpha:g}"
        legend = (
            "● taken: the highest score · most like: a place in prompt and reply · enter takes it"
        )
        screen = SearchScreen(title, running, ContrastiveTable(), legend)
        self.app.push_screen(screen, lambda taken: self._take_found(taken, parent))

    def _limited(self, options: _Options) -> _Options:
        """The options with the person's own limit of tokens, where there is one."""
        limit = self.session.max_tokens
        return replace(options, max_tokens=limit) if limit else options

    def _take_found(self, taken: tuple[tuple[int, ...], Found] | None, parent: str | None) -> None:
        if taken is not None:
            self.run_worker(self._adopt(*taken, parent), group="adopt")

    async def _adopt(self, prompt_ids: tuple[int, ...], found: Found, parent: str | None) -> None:
        try:
            reply = await self.inspector.reply_of_ids(prompt_ids, found.ids, found.reason)
        except ChatappError as error:
            self.say_error(str(error))
        else:
            self.turns.start(self.session.adopt(reply, parent))

    async def _parent_to_answer(self) -> str | None:
        """The message to answer. Raises ChatappError."""
        if self.turns.busy:
            raise ChatappError("a reply is under way; Esc stops it first")
        await self.models.ready()
        return self.session.parent_for_reply()
