"""A real pseudo-terminal with the program in it, read through a terminal emulator."""

from __future__ import annotations

import os
import sys
import termios
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import pexpect
import psutil
import pyte

LIMIT_SECONDS = 90.0
"""How long anything may take before a wait fails."""

PRIVATE_MODES = {"alternate screen": 1049, "mouse": 1000, "all motion": 1003, "paste": 2004}


class Terminal:
    """Runs the program below a shell that outlives it, so its terminal can be looked at after."""

    def __init__(
        self, *arguments: str, rows: int = 30, columns: int = 110, module: str = "chatapp"
    ) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = bytearray()
        program = [sys.executable, "-m", module, *arguments]
        # Who runs tests in several processes tells each that its screen is small.
        known = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self._child = pexpect.spawn(
            "/bin/sh",
            ["-c", '"$@"; echo "left with status $?"; read -r _', "sh", *program],
            dimensions=(rows, columns),
            env={**known, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
            timeout=LIMIT_SECONDS,
        )
        self._before = termios.tcgetattr(self._child.child_fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            print(self.text)
        self._child.close(force=True)

    @property
    def text(self) -> str:
        """The screen as lines of text."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait(self, condition: Callable[[str], bool], what: str) -> str:
        """Read until the screen fulfils the condition; fails when it never does."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not condition(self.text):
            left = deadline - time.monotonic()
            assert left > 0, f"waited in vain for {what}; the screen was:\n{self.text}"
            self.read(min(left, 1.0))
        return self.text

    def wait_for(self, words: str) -> str:
        """Read until the screen shows the words."""
        return self.wait(lambda text: words in text, repr(words))

    def read(self, seconds: float) -> None:
        """Take in what has been written, waiting at most so long for the first byte."""
        try:
            data = self._child.read_nonblocking(65536, seconds)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return
        self.raw += data
        self._stream.feed(data)

    def send(self, keys: str) -> None:
        """Type."""
        self._child.send(keys)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size, as a window does."""
        self._child.setwinsize(rows, columns)
        self.screen.resize(rows, columns)

    def hang_up(self) -> None:
        """Close the window."""
        self._child.ptyproc.fileobj.close()

    def processes(self) -> list[psutil.Process]:
        """The program and everything below it."""
        return psutil.Process(self._child.pid).children(recursive=True)

    def program(self) -> psutil.Process:
        """The interface process itself."""
        return next(p for p in self.processes() if "chatapp.link.server" not in p.cmdline())

    def wait_until_left(self) -> int:
        """Wait until the program has ended; returns its exit status."""
        text = self.wait_for("left with status")
        return int(text.split("left with status", 1)[1].split()[0])

    def check_left_as_found(self) -> None:
        """The terminal's settings and modes are what they were before the program ran."""
        assert termios.tcgetattr(self._child.child_fd) == self._before
        for name, mode in PRIVATE_MODES.items():
            on, off = f"\x1b[?{mode}h".encode(), f"\x1b[?{mode}l".encode()
            assert self.raw.rfind(off) >= self.raw.rfind(on), f"{name} is still on"
        assert self.raw.rfind(b"\x1b[?25h") >= self.raw.rfind(b"\x1b[?25l"), "no cursor"
