"""The line on standard error: a bar in a terminal, a few plain lines anywhere else."""

from __future__ import annotations

import io

import pytest

from chatapp.chat.facts import Progress
from chatapp.commands.progress import BAR_CELLS, QUIET_SECONDS, ProgressLine, duration

MB = 1_000_000


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def fetching(done: int, total: int = 100 * MB) -> Progress:
    return Progress("fetching", done, total, "bytes")


def test_terminal() -> None:
    clock, stream = Clock(), Terminal()
    line = ProgressLine(stream, clock)
    line.update(fetching(0))
    clock.now = 2
    line.update(fetching(50 * MB))
    line.close()
    drawn = stream.getvalue().split("\r\x1b[K")
    half = "█" * (BAR_CELLS // 2) + "░" * (BAR_CELLS // 2)
    assert drawn == [
        "",
        f"fetching {'░' * BAR_CELLS}   0 % 0 B of 100.0 MB",
        f"fetching {half}  50 % 50.0 MB of 100.0 MB · 25.0 MB/s · 2 s left",
        "",
    ]


def test_terminal_is_not_drawn_at_each_piece() -> None:
    clock, stream = Clock(), Terminal()
    line = ProgressLine(stream, clock)
    for done in range(1000):
        clock.now = done / 1000
        line.update(fetching(done * 1000))
    assert stream.getvalue().count("\r") <= 11


def test_narrow_terminal_keeps_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    line = ProgressLine(stream, Clock())
    line.update(Progress("fetching " * 30, 50 * MB, 100 * MB, "bytes"))
    drawn = stream.getvalue().removeprefix("\r\x1b[K")
    assert len(drawn) == 79  # a terminal of unknown width counts as 80
    assert drawn.endswith("…" + drawn.partition("…")[2])
    assert "50 % 50.0 MB of 100.0 MB" in drawn


def test_elsewhere_a_handful_of_lines() -> None:
    clock, stream = Clock(), io.StringIO()
    line = ProgressLine(stream, clock)
    for done in range(0, 100 * MB + 1, 100_000):
        line.update(fetching(done))
    line.close()
    lines = stream.getvalue().splitlines()
    assert [row.split("%")[0].split()[-1] for row in lines] == ["0", "25", "50", "75", "100"]
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_elsewhere_a_slow_one_gives_signs_of_life() -> None:
    clock, stream = Clock(), io.StringIO()
    line = ProgressLine(stream, clock)
    for second in range(31):
        clock.now = second
        line.update(fetching(second * 1000))
    assert len(stream.getvalue().splitlines()) == 4


def test_unknown_end() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream, Clock())
    line.update(Progress("asking", 0, 0, "bytes"))
    line.update(Progress("reading", 3 * MB, 0, "bytes"))
    assert stream.getvalue() == "asking\nreading 3.0 MB\n"


def test_other_units() -> None:
    """Short work other than fetching is not told of in a log; long work is."""
    clock, stream = Clock(), io.StringIO()
    line = ProgressLine(stream, clock)
    line.update(Progress("reading the prompt", 0, 2048, "tokens"))
    assert stream.getvalue() == ""
    clock.now = QUIET_SECONDS
    line.update(Progress("reading the prompt", 1024, 2048, "tokens"))
    assert stream.getvalue() == (
        "reading the prompt  50 % 1,024 tokens of 2,048 tokens · 341 tokens/s · 3 s left\n"
    )


def test_closed_streams_do_no_harm() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream, Clock())
    stream.close()
    line.update(fetching(1))
    line.close()
    ProgressLine(None).update(fetching(1))


def test_stream_that_knows_no_blocks() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    ProgressLine(stream, Clock()).update(Progress("Q4 · x", 1, 2, "bytes"))
    stream.seek(0)
    assert stream.read() == "Q4 ? x  50 % 1 B of 2 B\n"


def test_words() -> None:
    assert [duration(seconds) for seconds in (0.2, 59, 61, 3725)] == [
        "0 s",
        "59 s",
        "1 min 01 s",
        "1 h 02 min",
    ]
