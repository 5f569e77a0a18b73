"""Events with the beats of a timer between them, so that time is noticed while nothing comes.

A reply is saved as it comes. Were it saved only when a token comes, an engine that stalls would
keep the last tokens from the disk for as long as it stalls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

_Event = TypeVar("_Event")


@dataclass(frozen=True, slots=True)
class Tick:
    """Some time has passed."""


async def with_ticks(
    events: AsyncIterable[_Event],
    seconds: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[_Event | Tick]:
    """Pass on what comes, and a `Tick` each time so many seconds have passed.

    Closing this early ends the wait for the next event.

    Args:
        events: what to pass on; what it raises is raised here.
        seconds: from one tick to the next, at least; ticks that nobody took do not pile up.
        sleep: waits so many seconds.
    """
    iterator = aiter(events)
    coming: asyncio.Future[_Event] | None = None
    tick = asyncio.ensure_future(sleep(seconds))
    try:
        while True:
            if coming is None:
                coming = asyncio.ensure_future(anext(iterator))
            await asyncio.wait((coming, tick), return_when=asyncio.FIRST_COMPLETED)
            if tick.done():
                tick.result()
                tick = asyncio.ensure_future(sleep(seconds))
                yield Tick()
            if coming.done():
                try:
                    event = coming.result()
                except StopAsyncIteration:
                    return
                coming = None
                yield event
    finally:
        waits = [wait for wait in (coming, tick) if wait is not None and not wait.done()]
        for wait in waits:
            wait.cancel()
        if waits:
            await asyncio.wait(waits)
