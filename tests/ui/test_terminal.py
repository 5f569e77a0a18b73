"""In a real pseudo-terminal: the terminal is left as it was found, whatever ends the program."""

from __future__ import annotations

import json
import os
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import psutil
import pyte
import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 60

pytestmark = pytest.mark.terminal


class Terminal:
    """A program in a terminal of its own, and what its screen shows."""

    def __init__(self, file: Path, *options: str) -> None:
        self.file = file
        self.screen = pyte.Screen(100, 30)
        self._stream = pyte.ByteStream(self.screen)
        self.written = b""
        # Who runs tests in several processes tells each that its screen is small.
        known = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "tests.ui.play", str(file), *options],
            cwd=str(ROOT),
            dimensions=(30, 100),
            timeout=SECONDS,
            env={**known, "TERM": "xterm-256color", "COLORTERM": "truecolor"},
        )
        self.before = termios.tcgetattr(self.child.child_fd)

    def read(self) -> None:
        """Take in what was written for a moment."""
        try:
            data = self.child.read_nonblocking(65536, timeout=0.05)
        except pexpect.TIMEOUT:
            return
        except pexpect.EOF:
            return
        self.written += data
        self._stream.feed(data)

    def wait_for(self, text: str) -> None:
        """Read until the screen shows a text. Fails when it does not."""
        self.wait(lambda shown: text in shown, repr(text))

    def wait(self, condition: Callable[[str], bool], what: str) -> None:
        """Read until what the screen shows fulfils a condition. Fails when it does not."""
        end = time.monotonic() + SECONDS
        while not condition(shown := "\n".join(self.screen.display)):
            if time.monotonic() > end:
                raise AssertionError(f"no {what} on:\n{shown}")
            self.read()

    def resize(self, width: int, height: int) -> None:
        """Change the size, and take in what is drawn."""
        self.child.setwinsize(height, width)
        self.screen.resize(height, width)
        self.read()

    def wait_for_end(self) -> int:
        """Read until the program has ended. Returns its exit status."""
        end = time.monotonic() + SECONDS
        while self.child.isalive():
            if time.monotonic() > end:
                raise AssertionError("the program did not end")
            self.read()
        self.read()
        status = self.child.exitstatus
        return status if status is not None else -(self.child.signalstatus or 0)

    def saved(self) -> list[str]:
        """The texts that are on disk."""
        texts: list[str] = json.loads(self.file.read_text())
        return texts


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Terminal]:
    """A reply that stays in the middle of itself."""
    terminal = Terminal(tmp_path / "saved.json", "--held")
    terminal.wait_for("Scripted-1M")
    terminal.child.send("Name colours\r")
    terminal.wait_for("primary colours")
    yield terminal
    terminal.child.close(force=True)


def left_as_found(terminal: Terminal) -> None:
    """The modes of the terminal and of its line are what they were."""
    after = termios.tcgetattr(terminal.child.child_fd)
    assert after[:4] == terminal.before[:4]
    for off in (b"\x1b[?1049l", b"\x1b[?1000l", b"\x1b[?25h", b"\x1b[?2004l"):
        on = off[:-1] + (b"h" if off.endswith(b"l") else b"l")
        assert terminal.written.rfind(off) > terminal.written.rfind(on), off


def test_ctrl_q_leaves_the_terminal_as_it_was(held: Terminal) -> None:
    held.child.send("\x11")
    assert held.wait_for_end() == 0
    left_as_found(held)
    assert held.saved()[0] == "Name colours"
    assert held.saved()[1].startswith("The **primary** colours")


def test_sigterm_saves_and_leaves_the_terminal_as_it_was(held: Terminal) -> None:
    held.child.kill(signal.SIGTERM)
    assert held.wait_for_end() == 128 + signal.SIGTERM
    left_as_found(held)
    assert held.saved()[1].startswith("The **primary** colours")


def end_of_closed(terminal: Terminal) -> None:
    """Close the window, and wait for the end of the program."""
    terminal.child.ptyproc.fileobj.close()  # the kernel sends SIGHUP
    end = time.monotonic() + SECONDS
    while terminal.child.isalive():
        assert time.monotonic() < end, "the program lives on without its terminal"
        time.sleep(0.02)  # nothing tells of an end but asking: the terminal is gone


def test_a_closed_terminal_ends_the_program_and_what_came_is_saved(held: Terminal) -> None:
    end_of_closed(held)
    assert held.saved()[1].startswith("The **primary** colours")


def test_a_closed_terminal_ends_a_program_that_is_stuck(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "saved.json", "--stuck")
    terminal.wait_for("Scripted-1M")
    terminal.child.send("/theme\r")
    terminal.wait(lambda _: terminal.file.exists(), "beginning of what never ends")
    end_of_closed(terminal)


def test_a_chat_with_a_storm_of_sizes(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "saved.json")
    try:
        terminal.wait_for("Scripted-1M")
        terminal.child.send("Name colours\r")
        for size in ((1, 1), (200, 60), (3, 50), (80, 24), (1, 1), (100, 30)):
            terminal.resize(*size)
        terminal.wait_for("yellow.")
        terminal.child.send("\x1b[1;5A")  # Ctrl+Up
        terminal.wait_for("T 0.75")
        terminal.child.send("\x1b")
        terminal.child.send("\x11")
        assert terminal.wait_for_end() == 0
        left_as_found(terminal)
    finally:
        terminal.child.close(force=True)


def test_keys_in_one_burst_are_a_paste_that_sends_nothing(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "saved.json")
    try:
        terminal.wait_for("Scripted-1M")
        lines = [f"line {number} of what is typed without any brackets" for number in range(1200)]
        burst = "\r".join(lines) + "\r\x11the end"  # Ctrl+Q among them is no key either
        assert len(burst) > 50_000
        writer = threading.Thread(target=terminal.child.send, args=(burst,))
        writer.start()
        terminal.wait_for("the end")
        writer.join()
        assert not terminal.file.exists()
        terminal.child.send("\x7f\x7f\x7f")  # Backspace: typed keys are keys again
        terminal.wait_for("line 1199 of")
        terminal.wait(lambda text: "the end" not in text, "the end rubbed out")
        terminal.child.send("\r")
        terminal.wait_for("not sent")
        terminal.child.send("\x11")
        assert terminal.wait_for_end() == 0
        left_as_found(terminal)
    finally:
        terminal.child.close(force=True)


def test_ctrl_z_gives_the_terminal_back_and_goes_on_when_it_is_continued(held: Terminal) -> None:
    program = psutil.Process(held.child.pid)
    held.child.send("\x1a")
    held.wait(lambda _: program.status() == psutil.STATUS_STOPPED, "a stop")
    held.read()
    left_as_found(held)
    held.screen.reset()
    program.send_signal(signal.SIGCONT)
    held.wait_for("primary colours")
    held.wait_for("Scripted-1M")
    held.child.send("more")
    held.wait_for("› more")
    held.child.send("\x1f")  # Ctrl+_: undo
    held.wait(lambda text: "› more" not in text, "nothing typed")
    held.child.send("\x11")
    assert held.wait_for_end() == 0
    left_as_found(held)


def test_a_window_that_is_closed_while_the_program_is_suspended_ends_it(held: Terminal) -> None:
    program = psutil.Process(held.child.pid)
    held.child.send("\x1a")
    held.wait(lambda _: program.status() == psutil.STATUS_STOPPED, "a stop")
    end_of_closed(held)  # the kernel continues it
    assert held.saved()[1].startswith("The **primary** colours")
