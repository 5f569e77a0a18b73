"""What the chat screen shows of turns, models and conversations as they go on."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from chatapp.chat.conversation import Message
from chatapp.chat.errors import ChatappError
from chatapp.chat.facts import ModelFacts, Progress
from chatapp.chat.generation import PromptRead
from chatapp.chat.record import FinishReason, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.session.session import ReplyEnded
from chatapp.ui import numbers
from chatapp.ui.control.model import ModelState
from chatapp.ui.drawing import bar, renew
from chatapp.ui.screens.chat_base import ChatBase
from chatapp.ui.screens.download import DownloadScreen
from chatapp.ui.screens.settings import SettingsScreen
from chatapp.ui.services import ModelOffer
from chatapp.ui.token_colours import legend
from chatapp.ui.widgets.header import Status
from chatapp.ui.widgets.prompt import PromptBar
from chatapp.ui.widgets.sampling_panel import SamplingPanel

PANEL_FROM_WIDTH, PANEL_FROM_HEIGHT = 80, 20
"""The smallest screen on which the side panel unfolds by itself."""
TICKS_A_NUMBER = 3
"""While tokens stream the panel and the header are drawn every so many ticks at most: nobody reads
a distribution fifteen times a second, and drawing one costs more than the words do."""
_PREFILL_BAR = 24
PANEL_AT_ALL_FROM_WIDTH = 60
"""Below it there is no room for a panel and a transcript at once."""


class ChatView(ChatBase):
    """Implements TurnView, ModelView and ConversationView."""

    _ticks_since_numbers = 0
    _numbers_behind = False
    """Whether panel and header show less than what has come."""
    _panel_wanted: bool | None = None
    """What the person said with Ctrl+B; None leaves it to the size."""

    # Turns

    def message_added(self, message: Message) -> None:
        """Show a message that joined the conversation."""
        self.transcript.add(message, self.session.conversation)
        self.show_token()

    def prompt_progressed(self, progress: Progress) -> None:
        """Draw in the place of the reply how much of the prompt is read."""
        words = f"{progress.stage} {numbers.count(progress.done)}"
        if progress.total:
            filled = bar(progress.done / progress.total, _PREFILL_BAR).plain
            words = f"{progress.stage} {filled} {progress.done}/{progress.total} {progress.unit}"
        self.transcript.wait(words)

    def prompt_read(self, read: PromptRead) -> None:
        """The first token comes next."""
        self.transcript.wait("…")
        self.show_status()

    def tokens_came(self, records: list[TokenRecord]) -> None:
        """Show some tokens; the numbers about the newest one follow within some ticks."""
        self.transcript.feed(records)
        self._numbers_behind = True

    def reply_ended(self, ended: ReplyEnded) -> None:
        """Show the complete reply, and say why it ended where that is no matter of course."""
        self.transcript.finish(ended.message, self.session.conversation)
        self.show_token()
        reply = ended.message.reply
        if reply is not None and reply.finish_reason is FinishReason.ERROR:
            self.say_error(f"{ended.notice or reply.error}; Ctrl+R tries again")
        elif ended.notice:
            self.say(ended.notice, "warning")

    def turn_ended(self) -> None:
        """Show the speed of the whole reply, and a system text that was changed meanwhile."""
        self.show_status()
        if self.session.conversation.system.strip() != self.transcript.system_text.strip():
            self.transcript.show(self.session.conversation)

    # Models

    def offer_made(self, offer: ModelOffer) -> None:
        """Show what is being fetched."""
        screen = DownloadScreen(
            offer, lambda: self.models.progress, self.models.cancel_fetch, self.services.clock
        )
        self.app.push_screen(screen)

    def offer_closed(self) -> None:
        """Take the fetch from the screen."""
        for screen in self.app.screen_stack:
            if isinstance(screen, DownloadScreen):
                screen.dismiss(None)

    def model_progressed(self) -> None:
        """Show how far the model is."""
        if self.is_mounted:
            self.show_status()

    def model_ready(self, facts: ModelFacts) -> None:
        """Replies can be asked for."""
        self.show_status()
        self.query_one(PromptBar).count_soon()
        self.run_worker(self.conversations.say_model(), group="say-model", exclusive=True)

    # Conversations

    def conversation_changed(self) -> None:
        """Show the current path from its end."""
        # Another path is current only once what streamed has stopped; another title changes nothing
        # of what stands here, and the reply under way is drawn as it comes.
        if not self.turns.busy:
            self.transcript.show(self.session.conversation)
        texts = [m.text for m in self.session.conversation.path() if m.role == "user"]
        for text in texts:
            self.prompt.history_texts.add(text)
        self.show_sampling()
        self.show_token()

    # Drawing

    def tick(self) -> None:
        """Draw what came since the last time."""
        self.turns.flush()
        self._ticks_since_numbers += 1
        if self._numbers_behind and self._ticks_since_numbers >= TICKS_A_NUMBER:
            self._show_numbers()
        if self.models.state in (ModelState.FETCHING, ModelState.LOADING):
            self.show_status()
            if self.turns.busy:
                self.transcript.wait(f"waiting for {self.models.ref}")

    def _show_numbers(self) -> None:
        """Bring panel and header up to date with the tokens that came."""
        self._numbers_behind = False
        self._ticks_since_numbers = 0
        if self.transcript.cursor is None:
            self.show_token()
        self.show_status()

    def show_status(self) -> None:
        """Bring the header up to date."""
        replies = [message.reply for message in reversed(self.session.conversation.path())]
        reply = next((one for one in replies if one is not None), None)
        used = 0
        if reply is not None:
            used = len(reply.prompt_ids) + len(reply.records)
        speed = reply.tokens_per_second if reply is not None else 0.0
        if self.turns.busy:
            used = self.turns.prompt_tokens + self.turns.tokens
            speed = self.turns.tokens_per_second
        self.header.status = Status(
            state=self.models.state,
            model=self.models.ref,
            progress=self.models.progress,
            facts=self.session.facts,
            context_used=used,
            tokens_per_second=speed,
            temperature=self.session.sampling.temperature,
            replying=self.turns.busy,
        )

    def show_token(self) -> None:
        """Show the token pointed at, or the newest one."""
        if not self.query_one("#side").display:
            return  # it is shown what is pointed at when it unfolds
        pointed = self.transcript.pointed
        if pointed is None:
            self.panel.show(())
            return
        block, index = pointed
        reply = block.message.reply
        changes = [span.start for span in reply.sampling[1:]] if reply is not None else []
        self.panel.show(block.records, index, changes)

    def set_sampling(self, sampling: SamplingParams) -> None:
        """Draw with these from the next token on."""
        self.session.set_sampling(sampling)
        self.show_sampling()

    def show_sampling(self) -> None:
        """Bring every display of the sampling numbers up to date."""
        sampling = self.sampling
        self.query_one("#sampling", SamplingPanel).sampling = sampling
        for screen in self.app.screen_stack:
            if isinstance(screen, SettingsScreen) and screen.is_mounted:
                screen.show(sampling)
        self.show_status()

    def want_panel(self, wanted: bool) -> None:
        """Show or hide the side panel from now on, whatever the size."""
        self._panel_wanted = wanted
        self.fold_panel()

    def unfold_panel(self) -> None:
        """Show the side panel, hidden or not."""
        if not self.query_one("#side").display:
            self.want_panel(True)

    def fold_panel(self) -> None:
        """Show the side panel when it is wanted, or when there is room for it."""
        width, height = self.size
        room = width >= PANEL_FROM_WIDTH and height >= PANEL_FROM_HEIGHT
        wanted = room if self._panel_wanted is None else self._panel_wanted
        side = self.query_one("#side")
        folded = not side.display
        side.display = wanted and width >= PANEL_AT_ALL_FROM_WIDTH
        if folded and side.display:
            self.show_token()

    def show_legend(self) -> None:
        """Say what the colours mean."""
        text = self.legend_text()
        line = self.query_one("#legend", Static)
        line.display = bool(text)
        renew(line, text)

    def legend_text(self) -> Content:
        """The scale while tokens are coloured; empty for none."""
        if self.transcript.view != "tokens" and self.transcript.cursor is None:
            return Content("")
        return legend(self.transcript.scale, dark=self.app.current_theme.dark)

    async def _count_tokens(self, text: str) -> int | None:
        """How many tokens a text has; None while no model can tell."""
        if self.models.state is not ModelState.READY:
            return None
        try:
            return len(await self.session.engine.tokenize(text))
        except ChatappError:
            return None
