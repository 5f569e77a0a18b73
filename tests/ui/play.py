"""The interface over a scripted engine, in a real terminal: python -m tests.ui.play FILE [--held]

Every text that is saved is written to FILE as JSON, so that a test can see what would be on disk
after the program has been ended by a signal.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from chatapp.chat.conversation import Message
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


async def main(file: Path, held: bool) -> int:
    engine = ScriptedEngine(*[REPLY] * 5, held=held)
    engine.allow(8)  # a held reply stops streaming after these, and goes on waiting
    app = make_app(engine, store=FileStore(file), clock=time.monotonic)
    await app.run_async()
    return app.return_code or 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), "--held" in sys.argv)))
