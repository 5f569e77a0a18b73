"""`chatapp journey`: asks, and tells how one token of the answer came to be, stage by stage."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
from typing import Any

from chatapp.chat.errors import ChatappError, UsageError
from chatapp.commands.options import add_generation_options, add_json, add_subcommand, whole
from chatapp.commands.output import check_standard_output, write, write_json
from chatapp.commands.running import DONE, follow

WIDTH = 100
"""Lines of a pipe, and the widest on a terminal."""


def add_parser(commands: Any) -> None:
    """Add `journey` to the command line."""
    parser = add_subcommand(
        commands,
        "journey",
        run,
        "how one token of an answer came to be, stage by stage",
        "Ask the model, and follow one token of its answer from the text to the text: tokens,"
        " vectors, attention, layers, logits, probabilities, filters, the draw.",
    )
    parser.add_argument("text", metavar="TEXT", help="what to ask")
    parser.add_argument(
        "--token", type=whole("token", 0), default=0, metavar="N", help="of the answer, from 0 (0)"
    )
    add_json(parser, "one JSON object a stage")
    add_generation_options(parser)


def run(args: argparse.Namespace) -> int:
    """Tell the journey, and return the exit status."""
    check_standard_output()
    if not args.text.strip():
        raise UsageError('there is nothing to ask; give a text: chatapp journey "Why is it blue?"')
    return asyncio.run(_journey(args))


async def _journey(args: argparse.Namespace) -> int:
    from chatapp.commands.progress import ProgressLine
    from chatapp.commands.setup import Setup
    from chatapp.explain.journey import Journey
    from chatapp.session.session import ReplyEnded

    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    async with Setup.from_args(args).headless(keep=False) as session:
        ended: list[ReplyEnded] = []

        def take(event: object) -> None:
            if isinstance(event, ReplyEnded):
                ended.append(event)

        await follow(session.send(args.text), take)
        message = ended[-1].message
        reply = message.reply
        assert reply is not None  # a turn that ended has one
        if reply.error or not reply.records:
            raise ChatappError(reply.error or "the model wrote nothing; ask something else")
        if args.token >= len(reply.records):
            raise ChatappError(
                f"the answer has no token {args.token}; it has {len(reply.records)}, from 0"
            )
        for page in Journey(session, message.id, args.token).pages:
            with ProgressLine(sys.stderr) as line:
                view = (await page.make(line.update))(width)
            if args.json:
                write_json(
                    {
                        "type": "stage",
                        "name": page.name,
                        "title": view.title,
                        "sentence": view.sentence,
                        "lines": list(view.lines),
                        "remark": view.remark,
                    }
                )
            else:
                write("\n".join((view.title, "─" * len(view.title), *view.rows(width), "")))
    return DONE
