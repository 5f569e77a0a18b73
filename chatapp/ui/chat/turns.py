"""One turn at a time: consumes what the session yields and hands it to the screen in batches.

Tokens come up to a few hundred times a second; the screen is drawn some twenty times. Where drawing
itself is slow (a small machine, a huge code block), it is done less often, never queued.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from chatapp.chat.errors import ChatappError
from chatapp.chat.generation import Paused, PromptRead, TokenStep
from chatapp.chat.record import TokenRecord
from chatapp.session.session import MessageAdded, Session, TurnEvent
from chatapp.ui.actions import CommandError
from chatapp.ui.speed import Speed

DRAWS_PER_SECOND = 12
"""How often what streamed is drawn. Each drawing takes its time from decoding where all cores are
busy, so the words alone are drawn at this pace; the numbers beside them have a slower one."""
STOP_SECONDS = 3.0
"""How long the engine may take to obey a stop before the turn is abandoned (and saved)."""
BUSY = "a reply is under way; Esc stops it first"
_DRAWING_SHARE = 3.0
"""Drawing may take one part in so many and one of the time."""


class TurnOver:
    """Nothing more comes of the turn."""


News = TurnEvent | list[TokenRecord] | BaseException | TurnOver
"""What is shown of a turn: tokens by the batch, and an error where it failed."""


class Turns:
    """The turn under way, if there is one."""

    def __init__(
        self,
        session: Session,
        show: Callable[[News], None],
        ready: Callable[[], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        """`ready` waits until a model can reply; raises ChatappError where none will."""
        self._session = session
        self._show = show
        self._ready = ready
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._waiting = False
        self._stopped = False
        self._pending: list[TokenRecord] = []
        self._not_before = 0.0
        self._speed = Speed()
        self._count = 0
        self.prompt_tokens = 0
        """Of the reply under way or the last one."""

    @property
    def busy(self) -> bool:
        return self._task is not None

    def refuse_busy(self, words: str = BUSY) -> None:
        """Raises CommandError while a turn is under way."""
        if self.busy:
            raise CommandError(words)

    @property
    def tokens(self) -> int:
        """How many tokens the reply under way has."""
        return self._count

    @property
    def tokens_per_second(self) -> float:
        """The present speed; 0 before there is one."""
        return self._speed.rate

    def start(self, events: AsyncGenerator[TurnEvent], *, sends: bool = False) -> None:
        """Take a turn. `sends` when it begins with a message of the user's.

        Such a message is on disk and on the screen before the model is waited for. While another
        turn is under way it is not taken, which is said.
        """
        if self.busy:
            self._show(ChatappError(BUSY))
            return
        self._stopped = False
        self._count = 0
        self._speed = Speed()
        self._task = asyncio.create_task(self._run(events, sends))
        self._task.add_done_callback(self._surface)

    def cancel(self) -> None:
        """Stop the reply within one token; what came is kept."""
        self._stopped = True  # it may not have been asked for yet
        if self._waiting and self._task is not None:
            self._task.cancel()
        self._session.cancel()

    async def stop(self) -> None:
        """Stop the turn, and wait until it is over and saved.

        None is under way when this returns: one that began meanwhile is stopped too.
        """
        while (task := self._task) is not None:
            self.cancel()
            done, _ = await asyncio.wait([task], timeout=STOP_SECONDS)
            if not done:
                task.cancel()
                await asyncio.wait([task])

    def flush(self) -> None:
        """Hand on the tokens that came since the last time, unless drawing takes too much."""
        now = self._clock()
        if self._pending and now >= self._not_before:
            self._hand_on()
            self._not_before = now + _DRAWING_SHARE * (self._clock() - now)

    async def _run(self, events: AsyncGenerator[TurnEvent], sends: bool) -> None:
        try:
            async with contextlib.aclosing(events):
                if not sends:
                    await self._wait_for_model()
                async for event in events:
                    self._take(event)
                    if sends and isinstance(event, MessageAdded):
                        if self._stopped:
                            break
                        sends = False
                        await self._wait_for_model()
                    elif self._stopped:
                        self._session.cancel()
        except ChatappError as error:
            self._show(error)
        except asyncio.CancelledError:
            pass  # the session has kept what came
        finally:
            self._task = None
            self._hand_on()
            self._show(TurnOver())

    def _surface(self, task: asyncio.Task[None]) -> None:
        """A fault of the program must not vanish in a task nobody waits for."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._show(error)

    async def _wait_for_model(self) -> None:
        self._waiting = True
        try:
            await self._ready()
        finally:
            self._waiting = False

    def _take(self, event: TurnEvent) -> None:
        if isinstance(event, TokenStep):
            self._pending.append(event.record)
            self._count += 1
            self._speed.count(self._clock(), self._count)
            return
        if isinstance(event, PromptRead):
            self.prompt_tokens = len(event.prompt_ids)
        elif isinstance(event, Paused):
            self._speed = Speed()  # the user's own time is not the model's
        self._hand_on()
        self._show(event)

    def _hand_on(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, []
            self._show(pending)
