"""`chatapp score`: how probable each token of a given text is to the model.

Standard output is a table, or with --json one object a line, flushed as it comes: a start, the
tokens with the keys of `ask --json`, and an end with the perplexity. The first token of a text has
no context where the model puts none before it; its numbers are then null.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from chatapp.chat.errors import ChatappError, EngineError, UsageError
from chatapp.commands.options import add_model_options, whole
from chatapp.commands.status import DONE

if TYPE_CHECKING:
    from chatapp.chat.jsonlines import JsonObject
    from chatapp.chat.prompt import TokenPiece
    from chatapp.chat.record import TokenRecord
    from chatapp.chat.scoring import ScoreEnd, ScoreStart
    from chatapp.commands.setup import Setup

JSON_TOP_LOGPROBS = 5
"""How many candidates a token has in --json, when it isn't said."""

TOKEN_CELLS = 24
"""Longer tokens are shortened in the table."""


def add_parser(commands: Any) -> None:
    """Add `score` to the command line."""
    parser = commands.add_parser(
        "score",
        help="the probability of each token of a given text",
        description="Read a text and tell how probable each of its tokens is to the model."
        " The text is an argument, a file, or standard input.",
    )
    parser.add_argument("text", nargs="?", metavar="TEXT", help="what to score")
    parser.add_argument("-f", "--file", metavar="FILE", help="a file to score, in UTF-8")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_model_options(parser)
    parser.add_argument(
        "--top-logprobs",
        type=whole("top-logprobs", 0),
        default=JSON_TOP_LOGPROBS,
        metavar="N",
        help="candidates a token in --json (5); as many as the vocabulary has lists all",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score, and return the exit status."""
    from chatapp.commands.setup import Setup

    if sys.stdout is None:
        raise ChatappError("standard output is closed; there is nowhere to write the numbers")
    text = read_text(args.text, args.file, sys.stdin)
    setup = Setup.from_args(args)
    writer = JsonScores(sys.stdout) if args.json else ScoreTable(sys.stdout)
    return asyncio.run(_score(setup, text, args.top_logprobs if args.json else 0, writer))


def read_text(given: str | None, file: str | None, stream: TextIO | None) -> str:
    """The text to score, exactly as it is.

    Raises:
        UsageError: there is none, or two.
        ChatappError: the file cannot be read, or it is not UTF-8 text.
    """
    if given is not None and file is not None:
        raise UsageError("give a text or a file, not both")
    try:
        if file is not None:
            text = Path(file).read_bytes().decode("utf-8-sig")
        elif given is not None:
            text = given
            given.encode()
        elif stream is not None and not stream.isatty():
            text = stream.buffer.read().decode("utf-8")
        else:
            text = ""
    except UnicodeError:
        source = file or ("the text" if given is not None else "standard input")
        raise ChatappError(f"{source} is not UTF-8 text") from None
    except OSError as error:
        raise ChatappError(f"cannot read {file}: {error.strerror}") from None
    if not text:
        raise UsageError('there is no text to score; give one: chatapp score "The sky is blue."')
    return text


async def _score(setup: Setup, text: str, top_logprobs: int, writer: ScoreWriter) -> int:
    from chatapp.chat.facts import Progress
    from chatapp.chat.record import TokenRecord
    from chatapp.chat.scoring import ScoreEnd, ScoreStart
    from chatapp.commands.progress import ProgressLine

    line = ProgressLine(sys.stderr)
    async with setup.headless(keep=False) as session:
        assert session.facts is not None  # a headless session has its model loaded
        async for event in session.engine.score_text(text, top_logprobs):
            match event:
                case Progress():
                    line.update(event)
                case ScoreStart():
                    line.close()
                    writer.start(event, session.facts.name)
                case TokenRecord():
                    line.close()
                    writer.token(event)
                case ScoreEnd():
                    line.close()
                    writer.end(event)
                    return DONE
    raise EngineError("scoring did not end")


class ScoreTable:
    """The scores as an aligned table, for people."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def start(self, start: ScoreStart, _model: str) -> None:
        """Write the heading, and the token that has no context."""
        self._row("token", "id", "p", "bits", "rank", "text")
        for index, piece in enumerate(start.tokens[: start.first]):
            self._row(str(index), str(piece.id), "-", "-", "-", _shown(piece.bytes))

    def token(self, record: TokenRecord) -> None:
        """Write one row."""
        self._row(
            str(record.index),
            str(record.id),
            _percent(record.model_prob),
            f"{record.surprisal_bits:.2f}",
            str(record.rank),
            _shown(record.bytes),
        )

    def end(self, end: ScoreEnd) -> None:
        """Write what holds for the whole."""
        if not end.scored:
            self._line("one token without a context: the model says nothing about it")
            return
        bits = -end.total_logprob / math.log(2)
        self._line("")
        self._line(
            f"{end.scored} tokens scored · perplexity {end.perplexity:.4g} ·"
            f" {bits / end.scored:.3f} bits a token · {bits:.2f} bits in all"
        )

    def _row(self, *cells: str) -> None:
        widths = (6, 8, 9, 7, 7)
        numbers = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False))
        self._line(f"{numbers}  {cells[-1]}")

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class JsonScores:
    """The scores as JSON lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def start(self, start: ScoreStart, model: str) -> None:
        """Write the start, and the token that has no context with nulls for its numbers."""
        tokens = len(start.tokens)
        self._line(
            {"type": "start", "model": model, "tokens": tokens, "context": start.context_tokens}
        )
        for index, piece in enumerate(start.tokens[: start.first]):
            self._line(_unscored(index, piece))

    def token(self, record: TokenRecord) -> None:
        """Write one token."""
        from chatapp.chat.jsonlines import token_json

        self._line(token_json(record))

    def end(self, end: ScoreEnd) -> None:
        """Write what holds for the whole."""
        self._line(
            {
                "type": "end",
                "scored_tokens": end.scored,
                "total_logprob": end.total_logprob if end.scored else None,
                "perplexity": end.perplexity if math.isfinite(end.perplexity) else None,
                "seconds": end.seconds,
            }
        )

    def _line(self, value: JsonObject) -> None:
        from chatapp.chat.jsonlines import json_line

        self._stream.write(json_line(value) + "\n")
        self._stream.flush()


ScoreWriter = ScoreTable | JsonScores


def _unscored(index: int, piece: TokenPiece) -> JsonObject:
    """A token that nothing stands before: the keys of the others, without numbers."""
    numbers = ("logprob", "tempered_prob", "prob", "rank", "entropy_bits", "p_end", "temperature")
    return {
        "type": "token",
        "index": index,
        "id": piece.id,
        "token": piece.token,
        "bytes": list(piece.bytes),
        "text": piece.bytes.decode("utf-8", "ignore"),
        **dict.fromkeys(numbers),
        "top_logprobs": [],
        "other_prob": None,
    }


def _percent(probability: float) -> str:
    """Three significant digits; what is too small for them says so."""
    percent = 100 * probability
    if 0 < percent < 0.01:
        return "<0.01 %"
    return f"{percent:.3g} %" if percent < 99.95 else f"{percent:.1f} %"


def _shown(data: bytes) -> str:
    from chatapp.chat.text import visible_token

    text = visible_token(data)
    return text if len(text) <= TOKEN_CELLS else text[: TOKEN_CELLS - 1] + "…"
