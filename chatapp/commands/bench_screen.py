"""`chatapp bench --screen`: the rate at which a reply is written inside the interface.

The program is run as people run it, in a pseudo-terminal of its own, and asked by keystrokes; what
it writes to its screen is read as quickly as a terminal would. The same question with the same seed
goes to `chatapp ask` in turn, and both tell how long decoding took.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from chatapp.chat.bench import BenchOptions
from chatapp.chat.conversation import Reply
from chatapp.chat.errors import ChatappError
from chatapp.settings.paths import default_paths

COLUMNS, ROWS = 140, 42
WAIT_SECONDS = 300.0
"""What takes longer than this has failed."""
_QUESTION = "Tell me a long story about a lighthouse."
_READY = b"ctx "
"""What the header shows once the model is loaded."""


@dataclass(frozen=True, slots=True)
class ScreenRate:
    """Tokens a second of each round, on the screen and without one."""

    screen: tuple[float, ...]
    headless: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return median(one / other for one, other in zip(self.screen, self.headless, strict=True))


def measure_screen(model: str, options: BenchOptions) -> ScreenRate:
    """Write the same reply with and without the screen, in turn.

    Raises ChatappError: there are no pseudo-terminals here, or the program did not answer.
    """
    if os.name != "posix":
        raise ChatappError("the screen can be measured where there are pseudo-terminals: not here")
    arguments = ["-m", model, "--seed", "1", "--max-tokens", str(options.new_tokens)]
    # The first round warms the files up.
    screen, headless = zip(
        *(
            (asyncio.run(_rate_on_screen(arguments)), _rate_headless(arguments))
            for _ in range(options.rounds + 1)
        ),
        strict=True,
    )
    return ScreenRate(screen[1:], headless[1:])


def _rate_headless(arguments: Sequence[str]) -> float:
    command = [sys.executable, "-m", "chatapp", "ask", _QUESTION, "--json", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=WAIT_SECONDS, check=False)
    if done.returncode:
        raise ChatappError(done.stderr.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1])
    end = json.loads(done.stdout.splitlines()[-1])
    return _rate(end["completion_tokens"], end["seconds"])


def _rate(tokens: int, seconds: float) -> float:
    if tokens < 2 or seconds <= 0:
        raise ChatappError("the reply was too short to be timed; take more --new-tokens")
    return (tokens - 1) / seconds


async def _rate_on_screen(arguments: Sequence[str]) -> float:
    import pty
    import termios

    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (ROWS, COLUMNS))
    with tempfile.TemporaryDirectory() as home:
        terminal = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "chatapp", *arguments),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "CHATAPP_HOME": home, **terminal},
            start_new_session=True,
        )
        os.close(slave)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await _drain_until_ready(master)
                os.write(master, _QUESTION.encode() + b"\r")
                reply = await _finished_reply(default_paths(home).database)
        except (TimeoutError, OSError):
            raise ChatappError("the program did not answer on the screen") from None
        finally:
            asyncio.get_running_loop().remove_reader(master)
            if process.returncode is None:
                process.send_signal(signal.SIGHUP)
            try:
                await asyncio.wait_for(process.wait(), 10)
            except TimeoutError:
                process.kill()
                await process.wait()
            os.close(master)
    return _rate(len(reply.records), reply.seconds)


async def _drain_until_ready(master: int) -> None:
    """Read all that the program writes, at once and from here on; wait until its model is loaded.

    Raises OSError: the program ended.
    """
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    seen = bytearray()

    def drain() -> None:
        try:
            data = os.read(master, 1 << 16)
        except OSError as error:
            loop.remove_reader(master)
            if not ready.done():
                ready.set_exception(error)
            return
        if not ready.done():
            seen.extend(data)
            if _READY in seen:
                ready.set_result(None)

    loop.add_reader(master, drain)
    await ready


async def _finished_reply(database: Path) -> Reply:
    """The reply in the only conversation there, once it is whole."""
    from chatapp.store.store import Store

    store = await Store.open(database)
    try:
        while True:
            await asyncio.sleep(1)
            if (latest := await store.latest()) is None:
                continue
            conversation = await store.load(latest)
            replies = [m.reply for m in conversation.messages.values() if m.reply is not None]
            if replies and replies[0].finish_reason is not None:
                return replies[0]
    finally:
        await store.close()
