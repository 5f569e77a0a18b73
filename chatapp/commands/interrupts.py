"""Ctrl+C and SIGTERM while a command writes: the first ends the work, the second everything."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine

from chatapp.commands.status import INTERRUPTED


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
