"""A reply is saved by a clock of its own, beside the stream of its tokens.

Were it saved only when a token comes, an engine that stalls would keep the last ones from the disk
for as long as it stalls; were the stream to wait for the disk, every save would be a hitch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

_Event = TypeVar("_Event")


@dataclass(frozen=True, slots=True)
class SaveFailed:
    """Something could not be written; the store holds on to it and the conversation goes on."""

    message: str


async def saved_meanwhile(
    events: AsyncIterable[_Event],
    save: Callable[[], Awaitable[SaveFailed | None]],
    seconds: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[_Event | SaveFailed]:
    """Pass on what comes, and save every so many seconds; a save that failed is passed on at once.

    What comes in one go is passed on in one go: no task is made and none is woken for each event.
    Closing this early ends the wait for the next event.

    Args:
        events: what to pass on; what it raises is raised here.
        save: does nothing where nothing is new.
        seconds: from the end of one save to the next.
    """
    came, coming = asyncio.Event(), list[_Event | SaveFailed]()

    async def read() -> None:
        async for event in events:
            coming.append(event)
            came.set()

    async def keep() -> None:
        while True:
            await sleep(seconds)
            if failed := await save():
                coming.append(failed)
                came.set()

    reading, keeping = asyncio.create_task(read()), asyncio.create_task(keep())
    reading.add_done_callback(lambda _: came.set())
    keeping.add_done_callback(lambda _: came.set())
    try:
        while coming or not reading.done():
            await came.wait()
            came.clear()
            while coming:
                yield coming.pop(0)
            if keeping.done():
                keeping.result()
        reading.result()
    finally:
        for task in (reading, keeping):
            task.cancel()
        await asyncio.wait((reading, keeping))
