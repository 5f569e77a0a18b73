"""What if: a finished reply under settings that are being turned.

The engine is asked again whenever something is turned, but never twice at once: while an answer is
under way only the newest settings wait, so that a slider held down cannot queue up questions.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from chatapp.chat.errors import ChatappError
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.whatif import WhatIf
from chatapp.session.inspector import Inspector


class WhatIfView(Protocol):
    """Where the answer is shown."""

    def what_if_changed(self) -> None:
        """It began, ended, or another answer is here."""

    def say_error(self, words: str) -> None:
        """Something failed."""

    def fault(self, error: BaseException) -> None:
        """The program itself is wrong."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked."""

    message_id: str
    sampling: SamplingParams


class WhatIfControl:
    """Which reply is looked at, under which settings, and the newest answer."""

    def __init__(self, inspector: Inspector, view: WhatIfView) -> None:
        self._inspector = inspector
        self._view = view
        self._task: asyncio.Task[None] | None = None
        self.question: Question | None = None
        """None while it is off."""
        self.answered: Question | None = None
        self.result: WhatIf | None = None
        """To the question `answered`; an older answer stands until the next one is here."""

    @property
    def on(self) -> bool:
        """Whether settings turned now are only tried."""
        return self.question is not None

    def begin(self, message_id: str, sampling: SamplingParams) -> None:
        """Look at a reply, or at another one."""
        if self.question is None or self.question.message_id != message_id:
            self.result = None
        self._ask(Question(message_id, sampling))
        self._view.what_if_changed()

    def turn(self, sampling: SamplingParams) -> None:
        """Look at the same reply under other settings."""
        if self.question is not None:
            self._ask(Question(self.question.message_id, sampling))

    def end(self) -> None:
        """Look at the reply as it is."""
        if self.question is None:
            return
        self.question = self.answered = self.result = None
        self._view.what_if_changed()

    def _ask(self, question: Question) -> None:
        self.question = question
        if self._task is None:
            self._task = asyncio.create_task(self._answer())
            self._task.add_done_callback(self._surface)

    async def _answer(self) -> None:
        try:
            while (asked := self.question) is not None and asked != self.answered:
                result = await self._inspector.what_if(asked.message_id, asked.sampling)
                if self.question is None or self.question.message_id != asked.message_id:
                    continue
                self.answered, self.result = asked, result
                self._view.what_if_changed()
        except ChatappError as error:
            self.question = self.answered = self.result = None
            self._view.say_error(str(error))
            self._view.what_if_changed()
        finally:
            self._task = None

    def _surface(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._view.fault(error)

    async def close(self) -> None:
        """Ask nothing any more."""
        self.question = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
