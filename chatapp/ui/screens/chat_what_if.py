"""What if: the controls turn only in thought, and the reply pointed at shows what would change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content

from chatapp.chat.conversation import Message
from chatapp.chat.errors import ChatappError
from chatapp.chat.record import Candidate, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.whatif import WhatIf, WhatIfToken
from chatapp.ui.control.whatif import WhatIfControl
from chatapp.ui.drawing import MUTED
from chatapp.ui.look import DIFFERS, IMPOSSIBLE, what_if_look
from chatapp.ui.numbers import count, decimal
from chatapp.ui.screens.chat_inspect import ChatInspect
from chatapp.ui.token_colours import legend

_CANDIDATES, _CANDIDATES_MOST = 50, 1000
TITLE = "what if: sampling"


class ChatWhatIf(ChatInspect):
    """Tries settings on a finished reply, without the model."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f9", "what_if", "what if: try settings", id="reply.what_if", priority=True),
        Binding("f10", "keep_what_if", "keep what was tried", id="reply.keep", priority=True),
    ]

    _what_if: WhatIfControl | None = None

    @property
    def what_if(self) -> WhatIfControl:
        """What is being tried."""
        if self._what_if is None:
            self._what_if = WhatIfControl(self.inspector, self)
        return self._what_if

    @property
    def sampling(self) -> SamplingParams:
        """What the controls show: what is tried, or what holds."""
        question = self.what_if.question
        return question.sampling if question is not None else super().sampling

    @property
    def tried(self) -> SamplingParams | None:
        """What is being tried, where the reply pointed at shows it."""
        question, pointed = self.what_if.question, self.transcript.pointed
        if question is None or pointed is None or pointed[0].message.id != question.message_id:
            return None
        return question.sampling

    def set_sampling(self, sampling: SamplingParams) -> None:
        """Draw with these from the next token on, or only try them."""
        if self.what_if.on:
            self.what_if.turn(sampling)
            self.show_sampling()
        else:
            super().set_sampling(sampling)

    def action_what_if(self) -> None:
        """Begin to try settings on the reply pointed at, or go back."""
        if self.what_if.on:
            self.end_what_if()
            return
        pointed = self.transcript.pointed
        if pointed is None or pointed[0].message.reply is None:
            self.say("point at a token of a reply first", "warning")
            return
        block, index = pointed
        if block.live:
            self.say("this reply is not finished yet; Esc stops it", "warning")
            return
        if self.transcript.cursor is None:
            self.transcript.point(block.message.id, index)
        self.unfold_panel()
        self.what_if.begin(block.message.id, super().sampling)
        self.say("turn any control: the reply itself does not change; F10 keeps them, F9 goes back")

    def action_keep_what_if(self) -> None:
        """Draw with what was tried."""
        question = self.what_if.question
        if question is None:
            self.say("nothing is being tried; F9 begins", "warning")
            return
        self.what_if.end()
        self.set_sampling(question.sampling)
        self.say("kept: the next reply is drawn with these")

    def end_what_if(self) -> bool:
        """Go back to what holds. Returns whether anything was being tried."""
        if not self.what_if.on:
            return False
        self.what_if.end()
        self.say("back to the settings that hold")
        return True

    # What else ends it, and what moves it

    def message_added(self, message: Message) -> None:
        """A new message ends it."""
        self.what_if.end()
        super().message_added(message)

    def conversation_changed(self) -> None:
        """So does another path."""
        self.what_if.end()
        super().conversation_changed()

    async def stop_everything(self) -> None:
        """Ask nothing any more."""
        await self.what_if.close()
        await super().stop_everything()

    # What is shown

    def what_if_changed(self) -> None:
        """Show the newest answer."""
        control = self.what_if
        result, answered = control.result, control.answered
        if control.question is None:
            self.transcript.look = None
        elif result is not None and answered is not None:
            dark = self.app.current_theme.dark
            self.transcript.look = what_if_look(answered.message_id, result, dark=dark)
        self.show_sampling()
        self.show_legend()
        self.show_token()

    def legend_text(self) -> Content:
        """The scale, and the totals of what is tried."""
        if not self.what_if.on:
            return super().legend_text()
        scale = legend("probability", dark=self.app.current_theme.dark)
        named = Content("final probability") + scale[len("model probability") :]
        return named + Content("\n") + self._totals(self.what_if.result)

    def _totals(self, result: WhatIf | None) -> Content:
        question = self.what_if.question
        if result is None or question is None:
            return Content.styled("what if: asking …", MUTED)
        block = self.transcript.block_of(question.message_id)
        drawn = [record.prob for record in block.records] if block is not None else []
        before = math.fsum(map(math.log, drawn)) if all(drawn) else -math.inf
        return Content(
            f"total ln p {decimal(result.total_logprob, 1)} (drawn with {decimal(before, 1)})"
            f" · {count(result.impossible_count)} impossible {IMPOSSIBLE}"
            f" · {count(result.different_count)} not the model's first choice {DIFFERS}"
        )

    def show_token(self) -> None:
        """Show the token pointed at under the settings that are tried."""
        question = self.what_if.question
        pointed = self.transcript.pointed
        if question is None or pointed is None or self.held is not None:
            super().show_token()
            return
        block, index = pointed
        reply = block.message.reply
        if reply is not None and block.message.id != question.message_id and not block.live:
            self.what_if.begin(block.message.id, question.sampling)
            return
        result = self.what_if.result
        if result is None or self.what_if.answered != question or index >= len(result.tokens):
            return  # the answer is on its way
        token, sampling = result.tokens[index], question.sampling
        asked = partial(self._show_tried, block.message.id, index, token, sampling)
        # The reply's colours first: the engine would take the cores that paint them.
        self.call_after_refresh(self.run_worker, asked, group="what-if-token", exclusive=True)

    async def _show_tried(
        self, message_id: str, index: int, token: WhatIfToken, sampling: SamplingParams
    ) -> None:
        if (reply := self._pointed_at(message_id, index, sampling)) is None:
            return
        depth = self.panel.candidates.depth(reply[index])
        wanted = min(max(depth, _CANDIDATES), _CANDIDATES_MOST)
        try:
            step = self.inspector.step(message_id, index, sampling)
            page = await self.inspector.candidates(step, 0, wanted)
            candidates = page.candidates
            if all(one.id != token.id for one in candidates):
                found = await self.inspector.find_tokens(step, token.id)
                candidates = (*candidates, *(one.candidate for one in found))
        except ChatappError as error:
            self.say(str(error), "warning")
            return
        if (reply := self._pointed_at(message_id, index, sampling)) is None:
            return  # the person has gone on meanwhile
        record = tried_record(reply[index], token, candidates, page.vocabulary, sampling)
        self.panel.show_other(reply, index, record, f"what if · token {count(index + 1)}")

    def _pointed_at(
        self, message_id: str, index: int, sampling: SamplingParams
    ) -> Sequence[TokenRecord] | None:
        """The records of a reply while the token is pointed at and tried under these settings."""
        question, pointed = self.what_if.question, self.transcript.pointed
        if question is None or pointed is None or question.sampling != sampling:
            return None
        block, place = pointed
        return block.records if (block.message.id, place) == (message_id, index) else None


def tried_record(
    record: TokenRecord,
    token: WhatIfToken,
    candidates: tuple[Candidate, ...],
    vocabulary: int,
    sampling: SamplingParams,
) -> TokenRecord:
    """A record as it would stand under other settings; nothing was drawn with them.

    The entropy of the final distribution is not asked for, and NaN here.
    """
    return replace(
        record,
        tempered_prob=token.tempered_prob,
        prob=token.prob,
        temperature=sampling.temperature,
        final_entropy_bits=math.nan,
        candidates=candidates,
        other_count=vocabulary - len(candidates),
        other_model_prob=max(0.0, 1 - math.fsum(one.model_prob for one in candidates)),
        other_tempered_prob=max(0.0, 1 - math.fsum(one.tempered_prob for one in candidates)),
        other_prob=max(0.0, 1 - math.fsum(one.prob for one in candidates)),
        draw=None,
    )
