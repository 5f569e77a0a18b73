"""`chatapp ask --n`: several replies to one prompt, written side by side.

As text they come one below the other, each behind a line with its number: the first one streams,
those after it are held until the ones before are complete. As JSON every line says which reply it
belongs to ("choice", from 0).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from chatapp.chat.errors import EngineError, UsageError
from chatapp.commands.ask import start_session, wanted_candidates
from chatapp.commands.interrupts import Interrupts
from chatapp.commands.question import Question, prompt_with, tell_files
from chatapp.commands.reply_writers import JsonWriter, TextWriter
from chatapp.commands.status import DONE, FAILED

if TYPE_CHECKING:
    from chatapp.chat.conversation import Reply
    from chatapp.chat.generation import TokenStep
    from chatapp.commands.setup import Setup
    from chatapp.session.inspector import Columns


async def ask_several(
    setup: Setup, args: argparse.Namespace, question: Question, interrupts: Interrupts
) -> int:
    """Write so many replies. Returns the exit status."""
    from chatapp.chat.search import MOST_COLUMNS
    from chatapp.session.inspector import Columns

    if args.n > MOST_COLUMNS:
        raise UsageError(f"n must be between 1 and {MOST_COLUMNS}, not {args.n}")
    async with setup.headless(keep=False, top_logprobs=wanted_candidates(args)) as session:
        await start_session(session, args)
        await tell_files(session, question)
        options = session.options()
        # Seeds that follow from one number, so that it alone brings all of them back.
        every = [replace(options, seed=options.seed + place) for place in range(args.n)]
        running = session.engine.compare(prompt_with(session, question.message), every)
        columns = Columns(running, every, session.empty_reply())
        interrupts.stop_gently = columns.cancel
        writer = JsonColumns(sys.stdout, args.n) if args.json else TextColumns(sys.stdout, args.n)
        await _write(columns, writer)
        replies = [columns.reply(column) for column in range(args.n)]
    if not interrupts.interrupted and (errors := [one.error for one in replies if one.error]):
        raise EngineError(errors[0])
    return DONE if all(reply.records for reply in replies) else FAILED


async def _write(columns: Columns, writer: ColumnsWriter) -> None:
    from chatapp.chat.facts import Progress
    from chatapp.chat.generation import GenerationEnd, PromptRead, TokenStep
    from chatapp.chat.search import ColumnEvent
    from chatapp.commands.progress import ProgressLine

    line = ProgressLine(sys.stderr)
    async for event in columns:
        match event:
            case Progress():
                line.update(event)
            case PromptRead():
                line.close()
                for column in range(writer.count):
                    writer.start(column, columns.reply(column))
            case ColumnEvent(column, TokenStep() as step):
                writer.token(column, step)
            case ColumnEvent(column, GenerationEnd() as end):
                line.close()
                writer.end(column, columns.reply(column))
                if end.message and not columns.reply(column).error:
                    print(f"chatapp: reply {column + 1}: {end.message}", file=sys.stderr)


class TextColumns:
    """Several replies as text, one below the other."""

    def __init__(self, stream: TextIO, count: int) -> None:
        self.count = count
        self._stream = stream
        self._writers = [TextWriter(stream) for _ in range(count)]
        self._held = [""] * count
        self._ended = [False] * count
        self._shown = -1
        self._show_next()

    def start(self, _column: int, _reply: Reply) -> None:
        """Nothing is written before the first token."""

    def token(self, column: int, step: TokenStep) -> None:
        """Write what became printable, or hold it until it is this reply's turn."""
        if column == self._shown:
            self._writers[column].text(step.record.text)
        else:
            self._held[column] += step.record.text

    def end(self, column: int, _reply: Reply) -> None:
        """Go on to the next reply when the one that is shown is complete."""
        self._ended[column] = True
        while self._shown < self.count and self._ended[self._shown]:
            self._writers[self._shown].end()
            self._show_next()

    def _show_next(self) -> None:
        self._shown += 1
        if self._shown == self.count:
            return
        blank = "\n" if self._shown else ""
        self._stream.write(f"{blank}── {self._shown + 1} of {self.count} ──\n")
        self._writers[self._shown].text(self._held[self._shown])
        self._stream.flush()


class JsonColumns:
    """Several replies as JSON lines, as they come."""

    def __init__(self, stream: TextIO, count: int) -> None:
        self.count = count
        self._writers = [JsonWriter(stream, choice) for choice in range(count)]

    def start(self, column: int, reply: Reply) -> None:
        """Write the start of one reply."""
        self._writers[column].start(reply)

    def token(self, column: int, step: TokenStep) -> None:
        """Write one token."""
        self._writers[column].token(step)

    def end(self, column: int, reply: Reply) -> None:
        """Write the end of one reply."""
        self._writers[column].end(reply)


ColumnsWriter = TextColumns | JsonColumns
