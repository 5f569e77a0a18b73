"""`chatapp ask`: one reply to standard output, as text or as one JSON line a token.

Standard output carries only the answer; progress and notices go to standard error. Several replies
(--n), other decoders (--decoder) and replays (--replay) are in modules of their own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatapp.chat.errors import ChatappError, EngineError, UsageError
from chatapp.commands.interrupts import Interrupts
from chatapp.commands.options import add_generation_options, whole
from chatapp.commands.question import Question, read_question, tell_files
from chatapp.commands.reply_writers import JsonWriter, TextWriter, Writer
from chatapp.commands.status import DONE, FAILED
from chatapp.commands.token_rules import add_token_rules, with_token_rules

if TYPE_CHECKING:
    from chatapp.chat.conversation import Reply
    from chatapp.commands.setup import Setup
    from chatapp.session.session import Session

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
    parser.add_argument(
        "-f",
        "--file",
        dest="files",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a text file to send with the prompt; may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--trace", action="store_true", help="with --json: every stage of the sampler, a token"
    )
    parser.add_argument(
        "--n", type=whole("n", 1), default=1, metavar="N", help="write N replies at once"
    )
    parser.add_argument(
        "--replay",
        metavar="FILE",
        help="write a recorded reply (JSON lines) again, and say where it differs",
    )
    _add_decoders(parser)
    add_generation_options(parser)
    add_token_rules(parser)
    parser.add_argument(
        "--top-logprobs",
        type=whole("top-logprobs", 0),
        default=argparse.SUPPRESS,
        metavar="N",
        help="candidates a token in --json (5); as many as the vocabulary has lists all",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-c",
        "--continue",
        dest="latest",
        action="store_true",
        default=argparse.SUPPRESS,
        help="in the last conversation",
    )
    where.add_argument(
        "--resume", metavar="ID", default=argparse.SUPPRESS, help="in that conversation"
    )
    parser.set_defaults(run=run)


def _add_decoders(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("other decoders").add_argument
    add("--decoder", choices=("sample", "beam", "contrastive"), default="sample", help="(sample)")
    add("--beams", type=whole("beams", 1), default=4, metavar="N", help="of a beam search (4)")
    add(
        "--length-penalty",
        type=float,
        default=1.0,
        metavar="X",
        help="of a beam search: above 0 favours long replies, below 0 short ones (1)",
    )
    add(
        "--penalty-alpha",
        type=float,
        default=0.6,
        metavar="X",
        help="of a contrastive search: 0 is greedy, 1 looks at the penalty alone (0.6)",
    )
    add(
        "--contrastive-k",
        type=whole("contrastive-k", 1),
        default=4,
        metavar="K",
        help="candidates of a contrastive search (4)",
    )


def run(args: argparse.Namespace) -> int:
    """Ask, stream, and return the exit status."""
    from chatapp.commands.setup import Setup

    if sys.stdout is None:
        raise ChatappError("standard output is closed; there is nowhere to write the reply")
    _check(args)
    interrupts = Interrupts()
    if args.replay is not None:
        from chatapp.commands.replay import read_recorded, replay

        recorded = read_recorded(args.replay)
        return interrupts.run(replay(Setup.from_args(args), args, recorded, interrupts))
    question = read_question(args.prompt, sys.stdin, args.files)
    setup = Setup.from_args(args)
    if args.decoder == "beam":
        from chatapp.commands.ask_search import ask_beam

        return interrupts.run(ask_beam(setup, args, question, interrupts))
    if args.decoder == "contrastive":
        from chatapp.commands.ask_search import ask_contrastive

        return interrupts.run(ask_contrastive(setup, args, question, interrupts))
    if args.n > 1:
        from chatapp.commands.ask_several import ask_several

        return interrupts.run(ask_several(setup, args, question, interrupts))
    writer = JsonWriter(sys.stdout) if args.json else TextWriter(sys.stdout)
    return interrupts.run(_ask(setup, args, question, writer, interrupts))


def _check(args: argparse.Namespace) -> None:
    """Refuse what does not go together. Raises UsageError."""
    resumed = bool(args.latest or args.resume)
    sampling = args.decoder == "sample"
    if args.trace and not args.json:
        raise UsageError("--trace needs --json")
    if args.trace and (args.n > 1 or args.replay or not sampling):
        raise UsageError("--trace goes with one sampled reply; leave out --n, --replay, --decoder")
    if resumed and (args.n > 1 or args.replay or not sampling):
        raise UsageError("-c and --resume keep one sampled reply; leave out --n and --decoder")
    if args.replay and (args.n > 1 or not sampling or args.prompt or args.files):
        raise UsageError(
            "--replay writes what was recorded; leave out the prompt, --file, --n, --decoder"
        )
    if args.n > 1 and args.decoder == "contrastive":
        raise UsageError("a contrastive search has one result; leave out --n")


async def start_session(session: Session, args: argparse.Namespace) -> None:
    """Give a session with a loaded model the rules that need its tokenizer. Raises UsageError."""
    assert session.facts is not None  # its model is loaded
    session.set_sampling(
        await with_token_rules(session.sampling, args, session.engine, session.facts)
    )


def wanted_candidates(args: argparse.Namespace) -> int:
    """How many candidates the records have to carry."""
    count: int = getattr(args, "top_logprobs", JSON_TOP_LOGPROBS) if args.json else 0
    return count


async def _ask(
    setup: Setup,
    args: argparse.Namespace,
    question: Question,
    writer: Writer,
    interrupts: Interrupts,
) -> int:
    """Answer once."""
    from chatapp.commands.setup import open_conversation

    resumed = bool(args.latest or args.resume)
    async with setup.headless(keep=resumed, top_logprobs=wanted_candidates(args)) as session:
        await start_session(session, args)
        if resumed:
            await open_conversation(session, args.resume)
            setup.change_as_flagged(session)
        await tell_files(session, question)
        session.trace = args.trace
        interrupts.stop_gently = session.cancel
        reply = await _turn(session, question.message, writer)
    if reply.error and not interrupts.interrupted:
        raise EngineError(reply.error)
    return DONE if reply.records else FAILED


async def _turn(session: Session, prompt: str, writer: Writer) -> Reply:
    """Send, and write what comes."""
    from chatapp.chat.facts import Progress
    from chatapp.chat.generation import PromptRead, TokenStep
    from chatapp.commands.progress import ProgressLine
    from chatapp.session.saving import SaveFailed
    from chatapp.session.session import MessageAdded, ReplyEnded

    line = ProgressLine(sys.stderr)
    message_id = ""
    async for event in session.send(prompt):
        match event:
            case Progress():
                line.update(event)
            case SaveFailed():
                print(f"chatapp: {event.message}", file=sys.stderr)
            case MessageAdded():
                message_id = event.message.id
            case PromptRead():
                line.close()
                writer.start(session.reply(message_id))
            case TokenStep():
                writer.token(event)
            case ReplyEnded():
                line.close()
                reply = event.message.reply
                assert reply is not None  # a reply's message always has one
                writer.end(reply)
                if event.notice and not reply.error:
                    print(f"chatapp: {event.notice}", file=sys.stderr)
                return reply
    raise EngineError("the reply did not end")
