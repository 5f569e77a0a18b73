"""`chatapp ask`: one reply to standard output, as text or as one JSON line a token.

Standard output carries only the answer; progress and notices go to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any, TextIO

from chatapp.chat.errors import ChatappError, EngineError, UsageError
from chatapp.commands.options import add_generation_options
from chatapp.commands.status import DONE, FAILED, INTERRUPTED

if TYPE_CHECKING:
    from chatapp.chat.conversation import Reply
    from chatapp.chat.jsonlines import JsonObject
    from chatapp.commands.setup import Setup
    from chatapp.session import Session

JSON_TOP_LOGPROBS = 5
"""How many candidates a token has in --json, when it isn't said."""


def add_parser(commands: Any) -> None:
    """Add `ask` to the command line."""
    parser = commands.add_parser(
        "ask",
        help="one reply to standard output; reads standard input when it is not a terminal",
        description="Ask once. Text on standard input is put behind the prompt.",
    )
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to say")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    add_generation_options(parser)
    parser.add_argument(
        "--top-logprobs",
        type=_count,
        default=argparse.SUPPRESS,
        metavar="N",
        help="candidates a token in --json (5)",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-c", "--continue", dest="latest", action="store_true", help="in the last conversation"
    )
    where.add_argument("--resume", metavar="ID", help="in that conversation")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, stream, and return the exit status."""
    from chatapp.commands.setup import Setup

    if sys.stdout is None:
        raise ChatappError("standard output is closed; there is nowhere to write the reply")
    prompt = read_prompt(args.prompt, sys.stdin)
    setup = Setup.from_args(args)
    writer = JsonWriter(sys.stdout) if args.json else TextWriter(sys.stdout)
    return asyncio.run(_ask(setup, args, prompt, writer))


def read_prompt(given: str | None, stream: TextIO | None) -> str:
    """The prompt of the command line, with what a pipe brings behind it.

    Raises:
        UsageError: there is neither.
        ChatappError: standard input is not text.
    """
    piped = ""
    if stream is not None and not stream.isatty():
        try:
            # The locale may be any; text in a pipe is UTF-8.
            piped = stream.buffer.read().decode("utf-8")
        except UnicodeDecodeError:
            raise ChatappError("standard input is not UTF-8 text") from None
    if given and any("\ud800" <= character <= "\udfff" for character in given):
        raise UsageError("the prompt is not UTF-8 text")
    parts = [part for part in (given, piped.strip("\r\n")) if part and part.strip()]
    if not parts:
        raise UsageError('there is no prompt; give one: chatapp ask "Why is the sky blue?"')
    return "\n\n".join(parts)


async def _ask(setup: Setup, args: argparse.Namespace, prompt: str, writer: Writer) -> int:
    """Answer once; the first SIGINT or SIGTERM ends the reply, the second one everything."""
    running: list[Session] = []
    turn = asyncio.ensure_future(_turn(setup, args, prompt, writer, running))
    interrupted = False

    def stop() -> None:
        nonlocal interrupted
        if interrupted or not running or not running[0].replying:
            turn.cancel()
        else:
            running[0].cancel()
        interrupted = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        reply = await turn
    except asyncio.CancelledError:
        return INTERRUPTED
    if interrupted:
        return INTERRUPTED
    if reply.error:
        raise EngineError(reply.error)
    return DONE if reply.records else FAILED


async def _turn(
    setup: Setup, args: argparse.Namespace, prompt: str, writer: Writer, running: list[Session]
) -> Reply:
    """Load, open what is to be continued, send, and write what comes."""
    from chatapp.chat.facts import Progress
    from chatapp.commands.progress import ProgressLine
    from chatapp.commands.setup import open_conversation
    from chatapp.session import ReplyEnded, SaveFailed

    resumed = bool(args.latest or args.resume)
    wanted = getattr(args, "top_logprobs", JSON_TOP_LOGPROBS) if args.json else 0
    async with setup.headless(keep=resumed, top_logprobs=wanted) as session:
        running.append(session)
        if resumed:
            await open_conversation(session, args.resume)
        line = ProgressLine(sys.stderr)
        async for event in session.send(prompt):
            match event:
                case Progress():
                    line.update(event)
                case SaveFailed():
                    print(f"chatapp: {event.message}", file=sys.stderr)
                case ReplyEnded():
                    line.close()
                    reply = event.message.reply
                    assert reply is not None  # a reply's message always has one
                    writer.end(reply)
                    if event.notice and not reply.error:
                        print(f"chatapp: {event.notice}", file=sys.stderr)
                    return reply
                case _:
                    line.close()
                    writer.write(event, session)
    raise EngineError("the reply did not end")


class TextWriter:
    """The reply as text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._wrote_newline = True

    def write(self, event: object, _session: Session) -> None:
        """Write what became printable with a token."""
        from chatapp.chat.generation import TokenStep
        from chatapp.chat.text import sanitise

        if isinstance(event, TokenStep) and (text := event.record.text):
            # A pipe gets the exact text; a terminal would obey what is in it.
            self._stream.write(sanitise(text) if self._terminal else text)
            self._stream.flush()
            self._wrote_newline = text.endswith("\n")

    def end(self, reply: Reply) -> None:
        """Leave the cursor at the start of a line."""
        if reply.records and not self._wrote_newline:
            self._stream.write("\n")
            self._stream.flush()


class JsonWriter:
    """The reply as JSON lines, flushed as they come."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, event: object, session: Session) -> None:
        """Write the start when the prompt is read, then a line a token."""
        from chatapp.chat import jsonlines
        from chatapp.chat.generation import PromptRead, TokenStep

        match event:
            case PromptRead():
                reply = session.conversation.path()[-1].reply
                assert reply is not None  # a PromptRead belongs to the reply under way
                self._line(
                    jsonlines.start_json(
                        model=reply.model,
                        prompt_tokens=len(event.prompt_ids),
                        cached_tokens=event.cached_tokens,
                        sampling=session.sampling,
                        seed=reply.seed,
                    )
                )
            case TokenStep():
                self._line(jsonlines.token_json(event.record))

    def end(self, reply: Reply) -> None:
        """Write why and how fast it ended."""
        from chatapp.chat import jsonlines

        self._line(jsonlines.end_json(reply))

    def _line(self, value: JsonObject) -> None:
        from chatapp.chat.jsonlines import json_line

        self._stream.write(json_line(value) + "\n")
        self._stream.flush()


Writer = TextWriter | JsonWriter


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(
            f"top-logprobs must be a whole number of at least 0, not {text!r}"
        )
    return value
