"""The terminal, as one that may be gone at any moment, and that may send faster than hands type.

When a window is closed, writing to its terminal fails. Textual's writing thread dies of that, its
queue fills up, and the program waits for ever to put in one more row, so that it could neither
save nor end. Here such a failure is the end of the drawing and of nothing else. Reading fails too,
for which Textual's reading thread would ask again and again; here it ends the program as SIGHUP
does, and by force where the program is too busy to end by itself.

A terminal without bracketed paste sends a pasted text as keys. Taken as keys, its first line end
would send a message, and thousands of them would each be drawn. So keys that come at once are text.
"""

from __future__ import annotations

import codecs
import itertools
import os
import re
import selectors
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

from textual import events
from textual.message import Message

if TYPE_CHECKING:
    from textual.driver import Driver

QUIET_SECONDS = 0.15
"""A burst is over when nothing came for so long: its parts may come through a slow network."""
BURST_LENGTH = 256
"""No hand types as many characters before they are read; one line of fewer is sent as typed."""
END_SECONDS = 10.0
"""How long the program may take to end in order once its terminal is gone."""

_TICK_SECONDS = 0.1
_READ_BYTES = 1 << 16
_LINE_AND_MORE = re.compile(r"[\r\n][^\r\n]")


class Bursts:
    """Makes one paste of keys that came at once: it is text, and none of it sends or does a thing.

    A burst begins where text goes on behind a line end in one reading, or is very long. What comes
    before it is quiet belongs to it.
    """

    def __init__(self) -> None:
        self._text: list[str] | None = None

    @property
    def patience(self) -> float:
        """Seconds to wait for more before `end` is due."""
        return _TICK_SECONDS if self._text is None else QUIET_SECONDS

    def take(self, messages: Iterable[Message]) -> Iterator[Message]:
        """What came in one reading, without what is kept for a paste."""
        for is_text, run in itertools.groupby(messages, _is_text):
            together = list(run)
            if self._text is None and is_text and _is_burst(_text(together)):
                self._text = []
            if self._text is None:
                yield from together
                continue
            for message in together:
                if isinstance(message, events.Paste):
                    yield from self.end()
                if isinstance(message, events.Key) and self._text is not None:
                    self._text.append(message.character or "")
                else:
                    yield message

    def end(self) -> Iterator[Message]:
        """It is quiet: the paste, if there was a burst."""
        if self._text is not None:
            text, self._text = "".join(self._text), None
            yield events.Paste(text)


def _is_text(message: Message) -> bool:
    return isinstance(message, events.Key) and (
        message.is_printable or message.character in ("\r", "\n", "\t")
    )


def _text(keys: Iterable[Message]) -> str:
    return "".join(key.character or "" for key in keys if isinstance(key, events.Key))


def _is_burst(text: str) -> bool:
    return len(text) >= BURST_LENGTH or _LINE_AND_MORE.search(text) is not None


def end_by_force() -> None:
    """End the process after `END_SECONDS`, if it has not ended in order by then.

    Something may hold it that nobody can stop: a drawing that takes minutes, a download that waits
    for its server. What was said is on disk already, and the engine ends with this process.
    """
    timer = threading.Timer(END_SECONDS, os._exit, (128 + signal.SIGHUP,))
    timer.daemon = True
    timer.start()


class LossyFile:
    """A file that takes everything, and drops it once the terminal behind it is gone."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._gone = False
        self.fileno, self.isatty = file.fileno, file.isatty

    def write(self, text: str) -> int:
        self._try(self._file.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._file.flush)

    def _try(self, do: Callable[..., object], *arguments: str) -> None:
        if not self._gone:
            try:
                do(*arguments)
            except (OSError, ValueError):  # ValueError: it was closed
                self._gone = True


def driver_class() -> type[Driver] | None:
    """The driver for this system; None leaves the choice to Textual."""
    if sys.platform == "win32" or os.environ.get("TEXTUAL_DRIVER"):
        return None
    from textual._xterm_parser import XTermParser
    from textual.drivers.linux_driver import LinuxDriver

    class LossyDriver(LinuxDriver):
        """Draws and reads as long as there is a terminal."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            if self._file is not None:
                self._file = LossyFile(self._file)  # type: ignore[assignment] # all it needs

        def run_input_thread(self) -> None:
            """Read until the terminal is given back, or gone."""
            parser, bursts = XTermParser(self._debug), Bursts()
            decode = codecs.getincrementaldecoder("utf-8")("replace").decode
            with selectors.SelectSelector() as selector:
                selector.register(self.fileno, selectors.EVENT_READ)
                while not self.exit_event.is_set():
                    came: Iterable[Message] = bursts.end()
                    if selector.select(bursts.patience):
                        if not (data := self._read()):
                            end_by_force()
                            os.kill(os.getpid(), signal.SIGHUP)
                            return
                        came = bursts.take(parser.feed(decode(data)))
                    for message in itertools.chain(came, parser.tick()):
                        self.process_message(message)

        def _read(self) -> bytes:
            try:
                return os.read(self.fileno, _READ_BYTES)
            except OSError:  # EIO
                return b""

    return LossyDriver
