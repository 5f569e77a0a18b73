"""Where commands write, and the one loop that their work's events pass through."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from chatapp.chat.errors import ChatappError
from chatapp.chat.facts import Progress
from chatapp.chat.generation import TokenStep
from chatapp.commands import output
from chatapp.commands.replies import TextReplies
from chatapp.commands.running import follow
from tests.ui.scripted import make_records


@dataclass(frozen=True)
class Inner:
    data: bytes
    share: float


@dataclass(frozen=True)
class Outer:
    name: str
    inner: tuple[Inner, ...]


def test_values_become_json_that_every_parser_reads(capsys: pytest.CaptureFixture[str]) -> None:
    output.write_json(Outer("a", (Inner(b"\xff", math.inf), Inner(b"", 0.5))))
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    inner = [{"data": [255], "share": None}, {"data": [], "share": 0.5}]
    assert told == {"name": "a", "inner": inner}


def test_a_terminal_is_shown_what_it_would_obey(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    value = {"token": "\x9b31m\u202e"}
    output.write_json(value)
    exact = capsys.readouterr().out
    assert json.loads(exact) == value and exact.isascii()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    output.write_json(value)
    output.tell("a file called \x1b[2J")
    out, err = capsys.readouterr()
    assert out == exact
    assert err == "chatapp: a file called ␛[2J\n"


def test_without_a_standard_output_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(ChatappError, match="standard output is closed"):
        output.check_standard_output()


async def test_progress_is_told_apart_and_what_fails_lets_go_of_the_work() -> None:
    closed = False

    async def work() -> AsyncIterator[object]:
        nonlocal closed
        try:
            yield Progress("reading", 1, 2)
            yield "first"
            yield "second"
        finally:
            closed = True

    seen: list[object] = []

    def write(event: object) -> None:
        seen.append(event)
        if event == "second":
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await follow(work(), write)
    assert seen == ["first", "second"]
    assert closed


def test_later_replies_wait_for_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    replies = TextReplies(3)
    for column, text in ((1, "bb"), (0, "aa"), (2, "cc\n")):
        for record in make_records(text):
            replies.token(column, TokenStep(record))
    assert capsys.readouterr().out == "── 1 of 3 ──\naa"
    replies.end(2)
    assert capsys.readouterr().out == ""
    replies.end(0)
    assert capsys.readouterr().out == "\n\n── 2 of 3 ──\nbb"
    replies.end(1)
    assert capsys.readouterr().out == "\n\n── 3 of 3 ──\ncc\n"
