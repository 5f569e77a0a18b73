"""`chatapp ask`: one reply to standard output, as text or as one JSON line a token.

Standard output carries only the answer; progress and notices go to standard error. The reply is
sampled; several are (--n), it is searched for (--decoder), or a recorded one is written again
(--replay): whichever it is, it comes as events, and `replies` writes them.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatapp.chat.errors import EngineError, UsageError
from chatapp.commands.options import (
    add_generation_options,
    add_json,
    add_resume,
    add_subcommand,
    add_top_logprobs,
    whole,
)
from chatapp.commands.output import check_standard_output
from chatapp.commands.question import Question, prompt_with, read_question, tell_files
from chatapp.commands.replies import write_replies, write_search
from chatapp.commands.running import DONE, FAILED, Interrupts
from chatapp.commands.token_rules import add_token_rules, use_token_rules

if TYPE_CHECKING:
    from chatapp.chat.conversation import Reply
    from chatapp.chat.search import BeamEvent, BeamOptions, ContrastiveEvent, ContrastiveOptions
    from chatapp.commands.setup import Setup
    from chatapp.session.protocols import Running


def add_parser(commands: Any) -> None:
    parser = add_subcommand(
        commands,
        "ask",
        run,
        "one reply to standard output; reads standard input when it is not a terminal",
        "Ask once. Text on standard input is put behind the prompt.",
    )
    add = parser.add_argument
    add("prompt", nargs="?", metavar="PROMPT", help="what to say")
    add(
        "-f",
        "--file",
        dest="files",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a text file to send with the prompt; may be given several times",
    )
    add_json(parser, "one JSON object a line")
    add("--trace", action="store_true", help="with --json: every stage of the sampler, a token")
    add("--n", type=whole("n", 1), default=1, metavar="N", help="write N replies at once")
    add(
        "--replay",
        metavar="FILE",
        help="write a recorded reply (JSON lines) again, and say where it differs",
    )
    _add_decoders(parser)
    add_generation_options(parser)
    add_token_rules(parser)
    add_top_logprobs(parser)
    add_resume(parser, "in the last conversation", "in that conversation")


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
    from chatapp.commands.replay import read_recorded, replay
    from chatapp.commands.setup import Setup

    check_standard_output()
    _check(args)
    interrupts = Interrupts()
    if args.replay is not None:
        recorded = read_recorded(args.replay)
        return interrupts.run(replay(Setup.from_args(args), args, recorded, interrupts))
    question = read_question(args.prompt, sys.stdin, args.files)
    setup = Setup.from_args(args)
    search = _search_options(setup, args)
    return interrupts.run(_ask(setup, args, question, search, interrupts))


def _check(args: argparse.Namespace) -> None:
    """Refuse what does not go together. Raises UsageError."""
    from chatapp.chat.search import MOST_COLUMNS

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
    if args.schema and (args.replay or not sampling):
        raise UsageError("--schema goes with sampled replies; leave out --replay, --decoder")
    if args.n > 1 and args.decoder == "contrastive":
        raise UsageError("a contrastive search has one result; leave out --n")
    if sampling and args.n > MOST_COLUMNS:
        raise UsageError(f"n must be between 1 and {MOST_COLUMNS}, not {args.n}")


def _search_options(
    setup: Setup, args: argparse.Namespace
) -> BeamOptions | ContrastiveOptions | None:
    """How to search; None where replies are sampled. Raises UsageError."""
    from chatapp.chat.search import BeamOptions, ContrastiveOptions, SearchError

    most: Any = {"max_tokens": setup.settings.max_tokens} if setup.settings.max_tokens else {}
    try:
        if args.decoder == "beam":
            return BeamOptions(
                num_beams=args.beams,
                length_penalty=args.length_penalty,
                num_return=args.n,
                **most,
            )
        if args.decoder == "contrastive":
            return ContrastiveOptions(
                top_k=args.contrastive_k, penalty_alpha=args.penalty_alpha, **most
            )
    except SearchError as error:
        raise UsageError(str(error)) from None
    return None


async def _ask(
    setup: Setup,
    args: argparse.Namespace,
    question: Question,
    search: BeamOptions | ContrastiveOptions | None,
    interrupts: Interrupts,
) -> int:
    from chatapp.chat.search import BeamOptions
    from chatapp.commands.setup import open_conversation
    from chatapp.session.inspector import Columns

    resumed = bool(args.latest or args.resume)
    top_logprobs = args.top_logprobs if args.json else 0
    async with setup.headless(keep=resumed, top_logprobs=top_logprobs) as session:
        if resumed:
            await open_conversation(session, args.resume)
            setup.change_as_flagged(session)
        await use_token_rules(session, args)
        await tell_files(session, question)
        if search is not None:
            assert session.facts is not None  # its model is loaded
            prompt, engine = prompt_with(session, question.message), session.engine
            searching: Running[BeamEvent] | Running[ContrastiveEvent]
            if isinstance(search, BeamOptions):
                searching = engine.beam(prompt, search)
            else:
                searching = engine.contrastive(prompt, search, session.options().stop)
            interrupts.stop_gently = searching.cancel
            name = session.facts.name
            found = await write_search(searching, args.decoder, name, as_json=args.json)
            return DONE if found else FAILED
        if args.n > 1:
            # Seeds that follow from one number, so that it alone brings all of them back.
            first = session.options()
            every = [replace(first, seed=first.seed + place) for place in range(args.n)]
            running = session.engine.compare(prompt_with(session, question.message), every)
            columns = Columns(running, every, session.empty_reply())
            interrupts.stop_gently = columns.cancel
            work = write_replies(columns, columns.reply, count=args.n, as_json=args.json)
        else:
            session.trace = args.trace
            interrupts.stop_gently = session.cancel
            turn = session.send(question.message)

            def newest(_place: int) -> Reply:
                assert session.conversation.leaf is not None  # the reply's message
                return session.reply(session.conversation.leaf)

            work = write_replies(turn, newest, as_json=args.json)
        replies = await work
    if not interrupts.interrupted and (errors := [one.error for one in replies if one.error]):
        raise EngineError(errors[0])
    return DONE if all(reply.records for reply in replies) else FAILED
