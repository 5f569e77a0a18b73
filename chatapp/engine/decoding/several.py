"""Several replies to one prompt, side by side.

The prompt is read once; then one forward pass a step serves all replies, each a row of a batch with
its own parameters, seed and text. A reply that ends leaves the batch. Decoding waits for the
weights to be read from memory, so two to four replies take little longer than one.

Where a model's state can't be split into rows the replies are written one after the other, with the
same events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from chatapp.chat.errors import EngineError
from chatapp.chat.generation import PromptRead
from chatapp.chat.record import FinishReason
from chatapp.chat.search import MOST_COLUMNS, ColumnEvent, SearchError, SeveralEvent
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.decoding.ending import failure
from chatapp.engine.decoding.prefill import prefill
from chatapp.engine.decoding.reply import Reply, Task
from chatapp.engine.look.history import LogitHistory, Recording
from chatapp.engine.runtimes.base import CannotFork, Floats, KVSequence, Rows, Runtime


def generate_several(
    runtime: Runtime,
    sequence: KVSequence,
    tasks: Sequence[Task],
    controls: Sequence[Controls],
    history: LogitHistory | None = None,
    *,
    batched: bool = True,
) -> Iterator[SeveralEvent]:
    """Write several replies to one prompt.

    Yields `Progress` while the prompt is read (again, where replies are written in turn),
    `PromptRead` once, then for every column its `TokenStep`s and one `GenerationEnd`, which also
    tells of what went wrong in mid-reply. A column whose own settings leave it no token takes none
    of the others with it.

    `sequence`: holds the prompt afterwards, and may hold some of it before. `tasks`: one a column;
    options, end ids and stop sequences may differ, the prompt may not. Raises SearchError: no
    columns, too many, not as many controls, or prompts that differ.
    """
    if not 1 <= len(tasks) <= MOST_COLUMNS:
        raise SearchError(
            f"between 1 and {MOST_COLUMNS} replies can be written side by side, not {len(tasks)}"
        )
    if len(controls) != len(tasks):
        raise SearchError(f"{len(tasks)} replies need as many controls, not {len(controls)}")
    prompt_ids = tasks[0].prompt_ids
    if any(task.prompt_ids != prompt_ids for task in tasks):
        raise SearchError("replies side by side must have the same prompt")
    columns = [
        _Column(
            number,
            Reply(runtime, task),
            mine,
            history,
            history.begin(prompt_ids) if history is not None else None,
        )
        for number, (task, mine) in enumerate(zip(tasks, controls, strict=True))
    ]
    try:
        yield from _write(sequence, prompt_ids, columns, batched)
    except (RuntimeError, MemoryError, EngineError) as error:
        sequence.crop(0)
        for column in columns:
            if not column.over:
                yield column.end(FinishReason.ERROR, failure(error))


@dataclass(slots=True)
class _Column:
    """One reply, its controls, and whether its end has been told."""

    number: int
    reply: Reply
    controls: Controls
    history: LogitHistory | None
    recording: Recording | None
    over: bool = False
    last_id: int = -1
    """The token taken last."""

    def is_cancelled(self) -> bool:
        return self.controls.cancelled

    def step(self, logits: Floats) -> Iterator[ColumnEvent]:
        """Take one token and say so, or end."""
        if self.is_cancelled():
            yield self.end(FinishReason.CANCELLED)
            return
        try:
            taken = self.reply.take(logits, self.controls.sampling, self.reply.forced)
        except EngineError as error:  # its own bans may leave it nothing
            yield self.end(FinishReason.ERROR, str(error))
            return
        self.last_id = taken.record.id
        if self.history is not None and self.recording is not None:
            self.history.append(self.recording, self.last_id, logits)
        yield ColumnEvent(self.number, taken)
        if self.reply.finished:
            yield self.end()

    def end(self, reason: FinishReason | None = None, words: str = "") -> ColumnEvent:
        self.over = True
        return ColumnEvent(self.number, self.reply.end(reason, words))


def _write(
    sequence: KVSequence, prompt_ids: tuple[int, ...], columns: Sequence[_Column], batched: bool
) -> Iterator[SeveralEvent]:
    first = columns[0]
    if first.reply.finished:  # the prompt fills the context
        yield from (column.end() for column in columns)
        return
    read = yield from prefill(
        sequence, prompt_ids, lambda: all(column.is_cancelled() for column in columns)
    )
    if read is None:
        yield from (column.end(FinishReason.CANCELLED) for column in columns)
        return
    yield PromptRead(prompt_ids, read.cached_tokens, first.reply.seconds)
    if batched and len(columns) > 1:
        try:
            rows = sequence.rows()
        except CannotFork:
            pass
        else:
            with closing(rows):
                yield from _write_together(rows, columns, read.logits)
            return
    # One column after the other; each goes back to the prompt in the same sequence.
    for column in columns:
        if column is not first:
            read = yield from prefill(sequence, prompt_ids, column.is_cancelled)
        if read is None:
            yield column.end(FinishReason.CANCELLED)
            continue
        yield from column.step(read.logits)
        while not column.over:
            yield from column.step(sequence.read((column.last_id,)).logits[0])


def _write_together(
    rows: Rows, columns: Sequence[_Column], logits: Floats
) -> Iterator[SeveralEvent]:
    """Decode all columns in one batch; rows whose reply is over are dropped from it.

    `rows`: one row, which has read the prompt. `logits`: after the prompt, (V,).
    """
    running = list(columns)
    rows.select([0] * len(running))
    behind = np.broadcast_to(logits, (len(running), logits.size))
    while True:
        for row, column in enumerate(running):
            yield from column.step(behind[row])
        staying = [row for row, column in enumerate(running) if not column.over]
        if not staying:
            return
        if len(staying) < len(running):
            rows.select(staying)
            running = [running[row] for row in staying]
        behind = rows.read([column.last_id for column in running]).logits
