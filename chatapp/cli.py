"""The command line: reads it, runs the one command it names, turns failures into one line.

Nothing here imports more than argparse; each command imports what it needs when it runs, so that
`chatapp --help` answers at once.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from chatapp import __version__
from chatapp.chat.errors import ChatappError, UsageError
from chatapp.chat.text import sanitise
from chatapp.commands import ask, bench, chat, chats, inspect, journey, models, paths, score
from chatapp.commands.options import Parser
from chatapp.commands.running import BROKEN_PIPE, FAILED, INTERRUPTED, WRONG_USAGE


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="chatapp",
        description="Chat with a language model on your own machine, and see how it writes.",
        epilog="Without a command: the terminal interface.",
    )
    parser.add_argument("--version", action="version", version=f"chatapp {__version__}")
    chat.add_options(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for command in (ask, score, inspect, journey, models, chats, bench, paths):
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # In a locale that cannot write a character, it is escaped instead of fatal; what goes
            # into a pipe or a file is UTF-8 whatever the locale is, and exact.
            terminal = stream.isatty()
            stream.reconfigure(
                errors="backslashreplace",
                encoding=stream.encoding if terminal else "utf-8",
                newline=None if terminal else "",
            )
    try:
        args = build_parser().parse_args(argv)
        status: int = getattr(args, "run", chat.run)(args)
        if sys.stdout is not None:
            sys.stdout.flush()
    except UsageError as error:
        return _fail(str(error), WRONG_USAGE)
    except ChatappError as error:
        return _fail(str(error), FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has gone; there is no one to tell, and nothing left to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE
    except OSError as error:
        if error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror or error}", FAILED)
        # What has no name is the stream that all commands write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _fail(f"cannot write standard output: {error.strerror or error}", FAILED)
    return status


def _fail(message: str, status: int) -> int:
    if sys.stderr is not None:
        print(f"chatapp: {sanitise(message)}", file=sys.stderr)
    return status
