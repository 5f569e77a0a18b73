"""`chatapp score`: what it writes, and how it fails."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from chatapp.chat.errors import ChatappError, UsageError
from chatapp.chat.inspection import ScoreEnd, ScoreStart
from chatapp.chat.prompt import TokenPiece
from chatapp.commands.score import read_text, write_lines, write_rows
from tests.conftest import Call, one_line
from tests.ui.scripted import make_records

START = ScoreStart(
    tuple(TokenPiece(place, text, text.encode()) for place, text in enumerate(("The", " sky"))),
    context_tokens=0,
    first=1,
)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "there is no text to score"),
        ([""], 2, "there is no text to score"),
        (["text", "-f", "file"], 2, "not both"),
        (["text", "--top-logprobs", "-1"], 2, "top-logprobs must be"),
        (["-f", "missing.txt"], 1, "cannot read missing.txt"),
    ],
)
def test_wrong_calls(call: Call, arguments: list[str], status: int, words: str) -> None:
    assert words in one_line(call("score", *arguments), status)


def test_a_text_is_taken_exactly_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(b"  two lines\n\n")
    assert read_text(None, str(file), None) == "  two lines\n\n"
    assert read_text(" a ", None, None) == " a "
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ChatappError, match="not UTF-8"):
        read_text(None, str(file), None)
    with pytest.raises(UsageError):
        read_text(None, None, None)


def test_the_table_is_aligned_and_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    for event in (START, *make_records("a \x1b[31m"), ScoreEnd(6, -6.0, math.e, 0.1)):
        write_rows(event)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    lines = text.splitlines()
    rows = lines[: lines.index("")]
    assert len({row.index("  ", 36) for row in rows}) == 1
    assert "perplexity 2.718" in lines[-1]


def test_a_token_without_a_context_has_the_same_keys_and_no_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for event in (START, make_records("x")[0], ScoreEnd(0, 0.0, math.nan, 0.1)):
        write_lines(event, "m")
    lines = capsys.readouterr().out.splitlines()
    start, first, token, end = (json.loads(line) for line in lines)
    assert start["tokens"] == 2
    assert first.keys() == token.keys()
    assert first["logprob"] is None and first["token"] == "The"
    assert end["perplexity"] is None


def test_through_the_whole_program(call: Call, tiny_gguf: str) -> None:
    done = call("score", "-m", tiny_gguf, "--json", "--threads", "1", piped="héllo")
    assert done.returncode == 0, done.stderr
    start, *tokens, end = (json.loads(line) for line in done.stdout.splitlines())
    assert start["type"] == "start"
    assert b"".join(bytes(token["bytes"]) for token in tokens) == "héllo".encode()
    scored = [token["logprob"] for token in tokens if token["logprob"] is not None]
    assert end["scored_tokens"] == len(scored)
    assert end["perplexity"] == pytest.approx(math.exp(-sum(scored) / len(scored)))
    assert [token["index"] for token in tokens] == list(range(len(tokens)))


def test_what_the_model_rules_out_is_told_as_json_can(capsys: pytest.CaptureFixture[str]) -> None:
    write_lines(ScoreEnd(3, -math.inf, math.inf, 0.1), "model")
    write_rows(ScoreEnd(3, -math.inf, math.inf, 0.1))
    line, *table = capsys.readouterr().out.splitlines()
    end = json.loads(line, parse_constant=pytest.fail)
    assert (end["total_logprob"], end["perplexity"]) == (None, None)
    assert "perplexity inf" in table[-1]
