"""`chatapp bench --screen`: the rate at which a reply is written inside the interface.

The program is run as people run it, in a pseudo-terminal of its own, and asked by keystrokes; what
it writes to its screen is read as quickly as a terminal would. The same question with the same seed
goes to `chatapp ask` in turn, and both tell how long decoding took.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

    Args:
        model: a path that the program takes for a model.
        options: how many tokens, and how many rounds.

    Raises:
        ChatappError: there are no pseudo-terminals here, or the program did not answer.
    """
    if os.name != "posix":
        raise ChatappError("the screen can be measured where there are pseudo-terminals: not here")
    arguments = ["-m", model, "--seed", "1", "--max-tokens", str(options.new_tokens)]
    screen, headless = [], []
    for number in range(options.rounds + 1):
        one, other = _rate_on_screen(arguments), _rate_headless(arguments)
        if number:  # the first round warms the files up
            screen.append(one)
            headless.append(other)
    return ScreenRate(tuple(screen), tuple(headless))


def _rate_headless(arguments: Sequence[str]) -> float:
    import subprocess

    command = [sys.executable, "-m", "chatapp", "ask", _QUESTION, "--json", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=WAIT_SECONDS, check=False)
    if done.returncode:
        raise ChatappError(done.stderr.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1])
    end = json.loads(done.stdout.splitlines()[-1])
    return _rate(end["completion_tokens"], end["seconds"])


def _rate_on_screen(arguments: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory() as home, _terminal(Path(home), arguments) as terminal:
        terminal.wait_for(_READY)
        terminal.write(_QUESTION.encode() + b"\r")
        reply = asyncio.run(_finished_reply(Path(home)))
        return _rate(len(reply.records), reply.seconds)


def _rate(tokens: int, seconds: float) -> float:
    if tokens < 2 or seconds <= 0:
        raise ChatappError("the reply was too short to be timed; take more --new-tokens")
    return (tokens - 1) / seconds


async def _finished_reply(home: Path) -> Reply:
    """The reply in the only conversation of that home, once it is whole."""
    from chatapp.store.store import Store

    store = await Store.open(default_paths(str(home)).database)
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            await asyncio.sleep(1)
            if (latest := await store.latest()) is None:
                continue
            conversation = await store.load(latest)
            replies = [m.reply for m in conversation.messages.values() if m.reply is not None]
            if replies and replies[0].finish_reason is not None:
                return replies[0]
    finally:
        await store.close()
    raise ChatappError("the program did not finish its reply on the screen")


class _Terminal:
    """A pseudo-terminal with the program in it; all that it writes is read at once."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._seen = bytearray()
        self._ended = False
        self._news = threading.Condition()
        threading.Thread(target=self._drain, daemon=True).start()

    def write(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def wait_for(self, text: bytes) -> None:
        with self._news:
            self._news.wait_for(lambda: text in self._seen or self._ended, WAIT_SECONDS)
            if text not in self._seen:
                raise ChatappError("the program did not get ready on the screen")

    def _drain(self) -> None:
        while True:
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:  # the program has ended
                data = b""
            with self._news:
                self._ended = not data
                self._seen += data
                del self._seen[: -(1 << 20)]
                self._news.notify_all()
            if not data:
                return


@contextmanager
def _terminal(home: Path, arguments: Sequence[str]) -> Iterator[_Terminal]:
    import fcntl
    import pty
    import signal
    import struct
    import subprocess
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "CHATAPP_HOME": str(home), "TERM": "xterm-256color"}
    environment["COLORTERM"] = "truecolor"
    process = subprocess.Popen(
        [sys.executable, "-m", "chatapp", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield _Terminal(master)
    finally:
        process.send_signal(signal.SIGHUP)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(master)
