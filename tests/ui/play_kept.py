"""The interface over a scripted engine and a real store: python -m tests.ui.play_kept FOLDER [-c]

Without -c a long reply comes word by word, for a test to interrupt; with it the last conversation
is opened again, and whatever is asked for is answered at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path

from chatapp.commands.setup import open_conversation
from chatapp.store.store import Store
from tests.ui.host import make_app
from tests.ui.scripted import ScriptedEngine

LONG = "".join(f" word{number}" for number in range(2000))
REST = " omega"
SECONDS_A_TOKEN = 0.02


async def main(folder: Path, resume: bool) -> int:
    store = await Store.open(folder / "chats.db")
    engine = ScriptedEngine(REST) if resume else ScriptedEngine(LONG, held=True)
    app = make_app(engine, store=store, clock=time.monotonic)

    async def let_come() -> None:
        while True:
            engine.allow()
            await asyncio.sleep(SECONDS_A_TOKEN)

    if resume:
        await open_conversation(app.services.session, None)
    coming = asyncio.create_task(let_come())
    try:
        await app.run_async()
        return app.return_code or 0
    finally:
        coming.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await coming
        await store.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), "-c" in sys.argv)))
