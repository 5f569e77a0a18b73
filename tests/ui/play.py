"""The interface over a scripted engine, in a real terminal: python -m tests.ui.play FILE [OPTION]

--held: a reply stays in the middle of itself. --stuck: /theme never comes back.

Every text that is saved is written to FILE as JSON, so that a test can see what would be on disk
after the program has been ended by a signal.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from pathlib import Path

from chatapp.chat.conversation import Message
from chatapp.ui import driver
from chatapp.ui.app import ChatApp
from tests.ui.host import MemoryStore, make_app
from tests.ui.scripted import ScriptedEngine

REPLY = "The **primary** colours are red, blue and yellow. " * 8


class FileStore(MemoryStore):
    """Writes every text it keeps to a file."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    async def save_message(self, conversation_id: str, message: Message) -> None:
        await super().save_message(conversation_id, message)
        texts = [kept.text for kept in self.messages[conversation_id].values()]
        self._file.write_text(json.dumps(texts))


async def main(file: Path, held: bool, stuck: bool) -> int:
    if stuck:
        driver.END_SECONDS = 0.5
        ChatApp.search_themes = lambda _: print(file.write_text("[]"), threading.Event().wait())
    engine = ScriptedEngine(*[REPLY] * 5, held=held)
    engine.allow(8)  # a held reply stops streaming after these, and goes on waiting
    app = make_app(engine, store=FileStore(file), clock=time.monotonic)
    await app.run_async()
    return app.return_code or 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), "--held" in sys.argv, "--stuck" in sys.argv)))
