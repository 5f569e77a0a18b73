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

from chatapp.chat.errors import ChatappError, UsageError
from chatapp.commands.options import add_json, add_model_options, add_subcommand, add_top_logprobs
from chatapp.commands.output import check_standard_output, plain, write, write_json
from chatapp.commands.question import read_pipe
from chatapp.commands.running import DONE, follow

if TYPE_CHECKING:
    from chatapp.chat.inspection import ScoreEvent
    from chatapp.chat.prompt import TokenPiece
    from chatapp.commands.setup import Setup

TOKEN_CELLS = 24
"""Longer tokens are shortened in the table."""


def add_parser(commands: Any) -> None:
    parser = add_subcommand(
        commands,
        "score",
        run,
        "the probability of each token of a given text",
        "Read a text and tell how probable each of its tokens is to the model."
        " The text is an argument, a file, or standard input.",
    )
    parser.add_argument("text", nargs="?", metavar="TEXT", help="what to score")
    parser.add_argument("-f", "--file", metavar="FILE", help="a file to score, in UTF-8")
    add_json(parser, "one JSON object a line")
    add_model_options(parser)
    add_top_logprobs(parser)


def run(args: argparse.Namespace) -> int:
    from chatapp.commands.setup import Setup

    check_standard_output()
    text = read_text(args.text, args.file, sys.stdin)
    return asyncio.run(_score(Setup.from_args(args), text, args))


def read_text(given: str | None, file: str | None, stream: TextIO | None) -> str:
    """The text to score, exactly as it is.

    Raises UsageError: there is none, or two. Raises ChatappError: the file cannot be read, or it is
    not UTF-8 text.
    """
    if given is not None and file is not None:
        raise UsageError("give a text or a file, not both")
    try:
        if file is not None:
            text = Path(file).read_bytes().decode("utf-8-sig")
        elif given is not None:
            text = given
            given.encode()
        else:
            text = read_pipe(stream)
    except UnicodeError:
        raise ChatappError(f"{file or 'the text'} is not UTF-8 text") from None
    except OSError as error:
        raise ChatappError(f"cannot read {file}: {error.strerror}") from None
    if not text:
        raise UsageError('there is no text to score; give one: chatapp score "The sky is blue."')
    return text


async def _score(setup: Setup, text: str, args: argparse.Namespace) -> int:
    top_logprobs = args.top_logprobs if args.json else 0
    async with setup.headless(keep=False) as session:
        assert session.facts is not None  # a headless session has its model loaded
        name = session.facts.name
        write_event = (lambda event: write_lines(event, name)) if args.json else write_rows
        await follow(session.engine.score_text(text, top_logprobs), write_event)
    return DONE


def write_rows(event: ScoreEvent) -> None:
    from chatapp.chat.inspection import ScoreEnd, ScoreStart
    from chatapp.chat.record import TokenRecord

    match event:
        case ScoreStart():
            _row("token", "id", "p", "bits", "rank", "text")
            for index, piece in enumerate(event.tokens[: event.first]):
                _row(str(index), str(piece.id), "-", "-", "-", _shown(piece.bytes))
        case TokenRecord():
            share, bits = _percent(event.model_prob), f"{event.surprisal_bits:.2f}"
            _row(str(event.index), str(event.id), share, bits, str(event.rank), _shown(event.bytes))
        case ScoreEnd(scored=0):
            write("one token without a context: the model says nothing about it")
        case ScoreEnd():
            bits_in_all = -event.total_logprob / math.log(2)
            write(
                f"\n{event.scored} tokens scored · perplexity {event.perplexity:.4g} ·"
                f" {bits_in_all / event.scored:.3f} bits a token · {bits_in_all:.2f} bits in all"
            )


def write_lines(event: ScoreEvent, model: str) -> None:
    from chatapp.chat.inspection import ScoreEnd, ScoreStart
    from chatapp.chat.jsonlines import token_json
    from chatapp.chat.record import TokenRecord

    match event:
        case ScoreStart():
            tokens, context = len(event.tokens), event.context_tokens
            write_json({"type": "start", "model": model, "tokens": tokens, "context": context})
            for index, piece in enumerate(event.tokens[: event.first]):
                write_json(_unscored(index, piece))
        case TokenRecord():
            write_json(token_json(event))
        case ScoreEnd():
            write_json(
                {
                    "type": "end",
                    "scored_tokens": event.scored,
                    "total_logprob": plain(event.total_logprob) if event.scored else None,
                    "perplexity": plain(event.perplexity),
                    "seconds": event.seconds,
                }
            )


def _row(*cells: str) -> None:
    widths = (6, 8, 9, 7, 7)
    numbers = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False))
    write(f"{numbers}  {cells[-1]}")


def _unscored(index: int, piece: TokenPiece) -> dict[str, Any]:
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
