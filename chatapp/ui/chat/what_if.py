"""What if: a finished reply under settings that are being turned; the reply itself stays as it is.

The engine is asked again whenever something is turned, but never twice at once: while an answer is
under way only the newest settings wait, so that a slider held down cannot queue up questions.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from textual.content import Content

from chatapp.chat.errors import ChatappError
from chatapp.chat.inspection import WhatIf as Answer
from chatapp.chat.inspection import WhatIfToken
from chatapp.chat.numbers import count, decimal
from chatapp.chat.record import Candidate, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.ui.actions import CommandError, action
from chatapp.ui.chat.base import ChatBase
from chatapp.ui.drawing import MUTED
from chatapp.ui.token_colours import DIFFERS, IMPOSSIBLE, legend, what_if_look

_CANDIDATES, _CANDIDATES_MOST = 50, 1000
TITLE = "what if: sampling"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked."""

    message_id: str
    sampling: SamplingParams


class WhatIf:
    """Which reply is looked at, under which settings, and the newest answer."""

    def __init__(self, chat: ChatBase) -> None:
        self._chat = chat
        self._task: asyncio.Task[None] | None = None
        self.question: Question | None = None
        """None while it is off."""
        self.answered: Question | None = None
        self.result: Answer | None = None
        """To the question `answered`; an older answer stands until the next one is here."""

    @property
    def on(self) -> bool:
        """Whether settings turned now are only tried."""
        return self.question is not None

    @property
    def tried(self) -> SamplingParams | None:
        """What is being tried, where the reply pointed at shows it; else None."""
        question, pointed = self.question, self._chat.transcript.pointed
        if question is None or pointed is None or pointed[0].message.id != question.message_id:
            return None
        return question.sampling

    @action(
        "whatif",
        usage="[keep]",
        keys="f9",
        key_id="reply.what_if",
        values=lambda _: ("keep", "back"),
    )
    def what_if(self, argument: str = "") -> None:
        """Try settings on the reply at the cursor; keep draws with them from then on."""
        if argument == "keep":
            self.keep()
        elif argument not in ("", "back") or (argument and not self.on):
            raise CommandError(
                f"/whatif takes keep or back while settings are tried, not {argument!r}"
            )
        elif not self.go_back():
            self._begin_at_cursor()

    def _begin_at_cursor(self) -> None:
        transcript = self._chat.transcript
        pointed = transcript.pointed
        if pointed is None or pointed[0].message.reply is None:
            self._chat.say("point at a token of a reply first", "warning")
            return
        block, index = pointed
        if block.live:
            self._chat.say("this reply is not finished yet; Esc stops it", "warning")
            return
        if transcript.cursor is None:
            transcript.point(block.message.id, index)
        self._chat.unfold_panel()
        self._begin(block.message.id, self._chat.session.sampling)
        self._chat.say(
            "turn any control: the reply itself does not change; F10 keeps them, F9 goes back"
        )

    @action("keep", keys="f10", key_id="reply.keep")
    def keep(self, _: str = "") -> None:
        """Draw with the settings that are tried."""
        question = self.question
        if question is None:
            self._chat.say("nothing is being tried; F9 begins", "warning")
            return
        self.end()
        self._chat.set_sampling(question.sampling)
        self._chat.say("kept: the next reply is drawn with these")

    def go_back(self) -> bool:
        """Go back to what holds. Returns whether anything was being tried."""
        if not self.on:
            return False
        self.end()
        self._chat.say("back to the settings that hold")
        return True

    def turn(self, sampling: SamplingParams) -> None:
        """Look at the same reply under other settings."""
        if self.question is not None:
            self._ask(Question(self.question.message_id, sampling))

    def end(self) -> None:
        """Look at the reply as it is."""
        if self.question is None:
            return
        self.question = self.answered = self.result = None
        self._show()

    async def close(self) -> None:
        self.question = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    # Asking

    def _begin(self, message_id: str, sampling: SamplingParams) -> None:
        """Look at a reply, or at another one."""
        if self.question is None or self.question.message_id != message_id:
            self.result = None
        self._ask(Question(message_id, sampling))
        self._show()

    def _ask(self, question: Question) -> None:
        self.question = question
        if self._task is None:
            self._task = self._chat.begin_task(self._answer())

    async def _answer(self) -> None:
        try:
            while (asked := self.question) is not None and asked != self.answered:
                result = await self._chat.inspector.what_if(asked.message_id, asked.sampling)
                if self.question is None or self.question.message_id != asked.message_id:
                    continue
                self.answered, self.result = asked, result
                self._show()
        except ChatappError as error:
            self.question = self.answered = self.result = None
            self._chat.say_error(str(error))
            self._show()
        finally:
            self._task = None

    # What is shown

    def _show(self) -> None:
        transcript = self._chat.transcript
        if self.question is None:
            transcript.looks = {}
        elif self.result is not None and self.answered is not None:
            dark = self._chat.app.current_theme.dark
            look = what_if_look(self.result, dark=dark)
            transcript.looks = {self.answered.message_id: look}
        self._chat.show_sampling()
        self._chat.show_legend()
        self._chat.show_token()

    def legend(self) -> Content:
        """The scale, and the totals of what is tried."""
        scale = legend("probability", dark=self._chat.app.current_theme.dark)
        named = Content("final probability") + scale[len("model probability") :]
        return named + Content("\n") + self._totals(self.result)

    def _totals(self, result: Answer | None) -> Content:
        question = self.question
        if result is None or question is None:
            return Content.styled("what if: asking …", MUTED)
        block = self._chat.transcript.block_of(question.message_id)
        drawn = [record.prob for record in block.records] if block is not None else []
        before = math.fsum(map(math.log, drawn)) if all(drawn) else -math.inf
        return Content(
            f"total ln p {decimal(result.total_logprob, 1)} (drawn with {decimal(before, 1)})"
            f" · {count(result.impossible_count)} impossible {IMPOSSIBLE}"
            f" · {count(result.different_count)} not the model's first choice {DIFFERS}"
        )

    def show_token(self) -> bool:
        """Show the token pointed at under the settings that are tried.

        Returns:
            Whether that is what is shown, now or once the answer is here.
        """
        question, pointed = self.question, self._chat.transcript.pointed
        if question is None or pointed is None:
            return False
        block, index = pointed
        reply = block.message.reply
        if reply is not None and block.message.id != question.message_id and not block.live:
            self._begin(block.message.id, question.sampling)
            return True
        result = self.result
        if result is None or self.answered != question or index >= len(result.tokens):
            return True  # the answer is on its way
        token, sampling = result.tokens[index], question.sampling
        asked = partial(self._show_tried, block.message.id, index, token, sampling)
        # The reply's colours first: the engine would take the cores that paint them.
        self._chat.call_after_refresh(self._chat.work, asked, "what-if-token")
        return True

    async def _show_tried(
        self, message_id: str, index: int, token: WhatIfToken, sampling: SamplingParams
    ) -> None:
        if (reply := self._pointed_at(message_id, index, sampling)) is None:
            return
        panel, inspector = self._chat.panel, self._chat.inspector
        wanted = min(max(panel.candidates.depth(reply[index]), _CANDIDATES), _CANDIDATES_MOST)
        step = inspector.step(message_id, index, sampling)
        page = await inspector.candidates(step, 0, wanted)
        candidates = page.candidates
        if all(one.id != token.id for one in candidates):
            found = await inspector.find_tokens(step, token.id)
            candidates = (*candidates, *(one.candidate for one in found))
        if (reply := self._pointed_at(message_id, index, sampling)) is None:
            return  # the user has gone on meanwhile
        record = tried_record(reply[index], token, candidates, page.vocabulary, sampling)
        panel.show(reply, index, other=record, words=f"what if · token {count(index + 1)}")

    def _pointed_at(
        self, message_id: str, index: int, sampling: SamplingParams
    ) -> Sequence[TokenRecord] | None:
        """The records of a reply while the token is pointed at and tried under these settings."""
        question, pointed = self.question, self._chat.transcript.pointed
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
