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

    What comes in one go is passed on in one go: no task is made and none is woken for each event.
    Closing this early ends the wait for the next event.

    Args:
        events: what to pass on; what it raises is raised here.
        seconds: from one tick to the next, at least; ticks that nobody took do not pile up.
        sleep: waits so many seconds.
    """
    came, coming, due = asyncio.Event(), list[_Event](), False

    async def read() -> None:
        async for event in events:
            coming.append(event)
            came.set()

    async def beat() -> None:
        nonlocal due
        while True:
            await sleep(seconds)
            due = True
            came.set()

    reading, beating = asyncio.create_task(read()), asyncio.create_task(beat())
    reading.add_done_callback(lambda _: came.set())
    try:
        while coming or not reading.done():
            await came.wait()
            came.clear()
            if due:
                due = False
                yield Tick()
            while coming:
                yield coming.pop(0)
        reading.result()
    finally:
        for task in (reading, beating):
            task.cancel()
        await asyncio.wait((reading, beating))
