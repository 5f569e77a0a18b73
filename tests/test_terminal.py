"""The program in a real pseudo-terminal, with the real model."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.terminal import Terminal

pytestmark = [pytest.mark.model, pytest.mark.terminal, pytest.mark.usefixtures("home_with_model")]

CTRL_UP, CTRL_DOWN, ESCAPE = "\x1b[1;5A", "\x1b[1;5B", "\x1b"
LONG = ("--min-tokens", "2000")
"""A reply that does not come to its end by itself while it is being tried."""

STORY = "Tell me a very long story about a lighthouse and the sea.\r"


def ready(terminal: Terminal) -> None:
    """The model is loaded: the header shows the context."""
    terminal.wait_for("ctx ")


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=60)
    return not alive


def test_chat_stop_temperature_resize_and_quit() -> None:
    with Terminal(*LONG) as terminal:
        ready(terminal)
        processes = terminal.processes()
        assert len(processes) == 2

        terminal.send(STORY)
        terminal.wait_for("tok/s")
        terminal.send(CTRL_UP * 2)
        terminal.wait_for("T 0.80")
        terminal.send(CTRL_DOWN * 4)
        terminal.wait_for("T 0.60")
        for rows, columns in ((1, 1), (2, 200), (60, 3), (10, 40), (24, 80), (60, 200), (30, 110)):
            terminal.resize(rows, columns)
            terminal.read(0.2)
        terminal.wait_for("T 0.60")
        terminal.send(ESCAPE)
        terminal.wait_for("stopped")

        terminal.send("Say hello.\r")
        terminal.wait_for("Say hello.")
        terminal.send("\x11")  # Ctrl+Q
        assert terminal.wait_until_left() == 0
        terminal.check_left_as_found()
        assert gone(processes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_mid_reply_leaves_nothing_behind(number: signal.Signals) -> None:
    with Terminal(*LONG) as terminal:
        ready(terminal)
        processes = terminal.processes()
        terminal.send(STORY)
        terminal.wait_for("tok/s")
        terminal.program().send_signal(number)
        terminal.wait_until_left()
        terminal.check_left_as_found()
        assert gone(processes)


def test_a_killed_interface_takes_the_engine_with_it() -> None:
    with Terminal(*LONG) as terminal:
        ready(terminal)
        processes = terminal.processes()
        terminal.send(STORY)
        terminal.wait_for("tok/s")
        terminal.program().kill()
        assert gone(processes)


def test_a_killed_engine_is_said_and_started_again(home: Path) -> None:
    with Terminal(*LONG) as terminal:
        ready(terminal)
        terminal.send(STORY)
        terminal.wait_for("tok/s")
        engine = next(p for p in terminal.processes() if "chatapp.link.server" in p.cmdline())
        engine.kill()
        terminal.wait_for("engine")
        terminal.wait_for("ended")
        assert "lighthouse" in terminal.text  # the conversation stands
        terminal.send("\x11")
        assert terminal.wait_until_left() == 0
        terminal.check_left_as_found()
    assert (home / "data" / "chats.db").is_file()


@pytest.fixture
def dead_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model hub that takes every call and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield


@pytest.mark.parametrize(
    ("model", "sent", "shown"),
    [
        ("", "", "loading"),
        ("", STORY, "tok/s"),
        ("", "one line\rmore text " * 20_000, "more text"),
        ("nobody/nothing", "", "nobody/nothing"),
    ],
    ids=["loading", "streaming", "pasting", "pulling"],
)
@pytest.mark.usefixtures("dead_server")
def test_a_closed_terminal_leaves_no_process(
    model: str, sent: str, shown: str, tiny_gguf: str
) -> None:
    with Terminal("--model", model or tiny_gguf, *LONG) as terminal:
        if sent:
            ready(terminal)
            writer = threading.Thread(target=terminal.send, args=(sent,), daemon=True)
            writer.start()
        terminal.wait_for(shown)
        processes = terminal.processes()
        assert processes
        if sent:
            writer.join()
        terminal.hang_up()
        assert gone(processes)
