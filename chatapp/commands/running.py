"""Running a command: what its exit status means, the one loop over what its work tells, and stops.

Ctrl+C and SIGTERM end work in two steps: the first time in order, the second time at once.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine
from typing import Any

from chatapp.chat.facts import Progress
from chatapp.commands.progress import ProgressLine

DONE = 0
FAILED = 1
"""With one line that says what happened and what to do."""
WRONG_USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
"""Whoever read standard output has gone."""


async def follow(events: AsyncIterable[Any], write: Callable[[Any], None]) -> None:
    """Pass on what comes of some work; how far it is goes to standard error instead.

    Raises what iterating or writing raises.
    """
    stream = aiter(events)
    with ProgressLine(sys.stderr) as line:
        try:
            async for event in stream:
                if isinstance(event, Progress):
                    line.update(event)
                else:
                    line.close()
                    write(event)
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()  # what it holds is let go of here, not at the program's end


class Interrupts:
    """Turns signals into stops. The work tells it how it can be stopped gently, once it can."""

    def __init__(self) -> None:
        self.stop_gently: Callable[[], None] | None = None
        """Ends the work soon and in order; None while it can only be broken off."""
        self.interrupted = False

    def run(self, work: Coroutine[None, None, int]) -> int:
        """Run a command's work. Returns its exit status, or that of an interrupted command."""
        return asyncio.run(self._run(work))

    async def _run(self, work: Coroutine[None, None, int]) -> int:
        task = asyncio.ensure_future(work)

        def stop() -> None:
            if self.interrupted or self.stop_gently is None:
                task.cancel()
            else:
                self.stop_gently()
            self.interrupted = True

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        try:
            status = await task
        except asyncio.CancelledError:
            return INTERRUPTED
        return INTERRUPTED if self.interrupted else status
