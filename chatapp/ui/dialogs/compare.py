"""One prompt under several settings, side by side; any of the replies may be taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from chatapp.chat.conversation import Reply
from chatapp.chat.errors import ChatappError
from chatapp.chat.generation import GenerationEnd, PromptRead, TokenStep
from chatapp.chat.inspection import ReplyStep
from chatapp.chat.record import TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.search import (
    BeamEnd,
    BeamOptions,
    BeamStep,
    ColumnEvent,
    ContrastiveEnd,
    ContrastiveOptions,
    ContrastiveStep,
)
from chatapp.session.inspector import Columns, Inspector
from chatapp.session.protocols import Running
from chatapp.ui.chat.turns import DRAWS_PER_SECOND
from chatapp.ui.dialogs.dialog import Dialog
from chatapp.ui.dialogs.trace import TraceScreen
from chatapp.ui.drawing import MUTED
from chatapp.ui.layout.searches import BeamTree, ContrastiveTable
from chatapp.ui.token_colours import Scale, legend
from chatapp.ui.widgets.candidates import MORE_CANDIDATES, CandidateList, MoreWanted
from chatapp.ui.widgets.column import ReplyColumn
from chatapp.ui.widgets.token_panel import TokenSummary


@dataclass(frozen=True, slots=True)
class Setting:
    """One column: its name and how its reply is written."""

    name: str
    how: SamplingParams | BeamOptions | ContrastiveOptions


class CompareScreen(Dialog[Reply | None]):
    """Gives back the reply that is taken, or None."""

    DEFAULT_CSS = """
    CompareScreen #compare-columns { height: 1fr; }
    CompareScreen #compare-token { height: 14; margin-top: 1; }
    CompareScreen TokenSummary { width: 46; margin-right: 2; }
    """
    HELP = (
        "Each column is the same prompt under other settings. Tab goes to the next one, the arrows"
        " walk its tokens, Enter takes it as the reply; x stops it, Esc stops all, then leaves.\n"
        "Ctrl+Up and Ctrl+Down turn the temperature of this column for its very next token. t"
        " tells what each stage of the sampler did; Page Down lists the vocabulary by rank."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "stop all, then leave", id="compare.leave"),
        Binding("enter", "take", "take this one as the reply", id="compare.take"),
        Binding("x", "stop", "stop this one", id="compare.stop"),
        Binding("t,f3", "trace", "trace: what each stage did", id="compare.trace"),
        Binding("pagedown", "list_more(1)", "candidates down", id="compare.down", show=False),
        Binding("pageup", "list_more(-1)", "candidates up", id="compare.up", show=False),
    ]

    def __init__(
        self, inspector: Inspector, parent: str | None, settings: Sequence[Setting], scale: Scale
    ) -> None:
        """Answer the message `parent` in several ways, beginning at once."""
        super().__init__()
        self._inspector = inspector
        self._answers = parent
        self._settings = tuple(settings)
        self._scale: Scale = scale
        self._views = [ReplyColumn(one.name, scale) for one in settings]
        self._replies: dict[int, Reply] = {}
        self._columns: Columns | None = None
        self._sampled = [
            place for place, one in enumerate(settings) if isinstance(one.how, SamplingParams)
        ]
        self._search: Running[object] | None = None
        self._stopped = False
        self._came: list[list[TokenRecord]] = [[] for _ in settings]
        """By column, the tokens that are not drawn yet."""
        self.over = False

    def compose(self) -> ComposeResult:
        keys = (
            "tab next · ←→↑↓ token · t trace · ctrl+↑↓ temperature · enter takes it · x stop"
            " · esc stop all, leave"
        )
        with Vertical(classes="dialog"):
            with Horizontal(id="compare-columns"):
                yield from self._views
            with Horizontal(id="compare-token"):
                yield TokenSummary()
                yield CandidateList()
            yield Static(legend(self._scale, dark=self.app.current_theme.dark), markup=False)
            yield Static(Content.styled(keys, MUTED), id="compare-keys", markup=False)

    def on_mount(self) -> None:
        self.query_one(CandidateList).can_focus = False
        self._views[0].focus()
        self.set_interval(1 / DRAWS_PER_SECOND, self._draw)
        self.work(self._run, "compare")

    async def _run(self) -> None:
        try:
            await self._write()
            for place, one in enumerate(self._settings):
                if not isinstance(one.how, SamplingParams) and not self._stopped:
                    await self._find(place, one.how)
        except ChatappError as error:
            self._say(str(error))
        self.over = True

    async def _write(self) -> None:
        """Write the sampled columns, all at once."""
        settings = [self._settings[place].how for place in self._sampled]
        sampling = [one for one in settings if isinstance(one, SamplingParams)]
        if not sampling:
            return
        self._columns = self._inspector.compare(self._answers, sampling)
        async for event in self._columns:
            if not isinstance(event, ColumnEvent):
                continue
            place = self._sampled[event.column]
            match event.event:
                case TokenStep():
                    self._came[place].append(event.event.record)
                case GenerationEnd():
                    self._draw()
                    self._replies[place] = self._columns.reply(event.column)
                    self._views[place].finish(self._replies[place])

    def _draw(self) -> None:
        """Draw the tokens that came since the last time."""
        for view, came in zip(self._views, self._came, strict=True):
            if came:
                view.add(came)
                came.clear()

    async def _find(self, place: int, how: BeamOptions | ContrastiveOptions) -> None:
        """Search; the model reads the result once more for the numbers of its tokens."""
        view = self._views[place]
        picture: BeamTree | ContrastiveTable
        running: Running[object]
        if isinstance(how, BeamOptions):
            picture, running = BeamTree(), self._inspector.beam(self._answers, how)
        else:
            picture, running = ContrastiveTable(), self._inspector.contrastive(self._answers, how)
        self._search = running
        prompt_ids: tuple[int, ...] = ()
        async for event in running:
            if isinstance(event, PromptRead):
                prompt_ids = event.prompt_ids
            elif isinstance(event, BeamStep | BeamEnd | ContrastiveStep | ContrastiveEnd):
                picture.take(event)
                view.wait(picture.status)
        self._search = None
        if picture.found:
            best = picture.found[0]
            reply = await self._inspector.reply_of_ids(prompt_ids, best.ids, best.reason)
            self._replies[place] = reply
            view.finish(reply)

    def on_unmount(self) -> None:
        self._stop_all()

    @on(ReplyColumn.Pointed)
    def show_token(self, event: ReplyColumn.Pointed) -> None:
        event.stop()
        column = event.column
        if column.has_focus and self.is_mounted:
            self.query_one(TokenSummary).show(column.record, len(column.records))
            self.query_one(CandidateList).show(column.record)

    @on(MoreWanted)
    def list_further(self, event: MoreWanted) -> None:
        """List the next ranks of the vocabulary below the candidates."""
        event.stop()
        self.work(partial(self._list_further, event), "more", exclusive=True)

    async def _list_further(self, event: MoreWanted) -> None:
        candidates = self.query_one(CandidateList)
        step = self._step()
        if step is None or step.index != event.record.index:
            candidates.keep_asking()
            return
        try:
            page = await self._inspector.candidates(step, event.start, MORE_CANDIDATES)
        except ChatappError as error:
            candidates.keep_asking()
            self._say(str(error))
        else:
            candidates.add(event.record, page)

    def _step(self) -> ReplyStep | None:
        """The token pointed at as the engine is asked about it."""
        place = self._here()
        record = self._views[place].record if place is not None else None
        reply = self._reply(place) if place is not None else None
        if record is None or reply is None or record.index >= len(reply.records):
            return None
        return self._inspector.step_of(reply, record.index)

    def _reply(self, place: int) -> Reply | None:
        """A column's reply as far as it has come."""
        if place in self._replies or place not in self._sampled or self._columns is None:
            return self._replies.get(place)
        return self._columns.reply(self._sampled.index(place))

    def action_trace(self) -> None:
        if (step := self._step()) is not None:
            self.work(partial(self._trace, step), "trace", exclusive=True)

    async def _trace(self, step: ReplyStep) -> None:
        place = self._here()
        record = self._views[place].records[step.index] if place is not None else None
        ids = [one.id for one in self.query_one(CandidateList).listed]
        if record is None:
            return
        if record.id not in ids:
            ids.append(record.id)
        try:
            traced = await self._inspector.trace(step, ids)
        except ChatappError as error:
            self._say(str(error))
        else:
            self.app.push_screen(TraceScreen(traced, record))

    def action_list_more(self, pages: int) -> None:
        self.query_one(CandidateList).page_from_outside(pages)

    def warm(self, steps: int) -> None:
        """Turn the temperature of the column in focus, for its very next token."""
        place = self._here()
        if place is None or place not in self._sampled or self._columns is None:
            return
        column = self._sampled.index(place)
        sampling = self._columns.sampling(column).stepped("temperature", steps)
        self._columns.set_sampling(column, sampling)
        self._views[place].tell_settings(f"T {sampling.temperature:.2f} from here on")

    def _say(self, words: str) -> None:
        self.query_one("#compare-keys", Static).update(Content.styled(words, "$text-error"))

    def _here(self) -> int | None:
        return next((place for place, view in enumerate(self._views) if view.has_focus), None)

    def action_take(self) -> None:
        """Give back this column's reply, stopping it where it still streams."""
        place = self._here()
        reply = self._reply(place) if place is not None else None
        if reply is not None and reply.records:
            self.dismiss(reply)

    def action_stop(self) -> None:
        place = self._here()
        if place in self._sampled and self._columns is not None:
            self._columns.cancel(self._sampled.index(place))
        elif self._search is not None:
            self._search.cancel()

    def action_leave(self) -> None:
        """Stop all of them; once they are over, leave."""
        if self.over:
            self.dismiss(None)
        else:
            self._stop_all()

    def _stop_all(self) -> None:
        self._stopped = True
        if self._columns is not None:
            self._columns.cancel()
        if self._search is not None:
            self._search.cancel()
