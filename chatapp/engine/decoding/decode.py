"""The loop: prefill, then predict, sample, append, one token a step.

One sampling path serves the first token and every later one. The sampling parameters are read once
at the top of every step, so a change made while a reply runs holds for the very next token.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator

from chatapp.chat.errors import EngineError
from chatapp.chat.generation import GenerationEvent, Paused, PromptRead
from chatapp.chat.record import FinishReason
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.decoding.ending import failure
from chatapp.engine.decoding.prefill import prefill
from chatapp.engine.decoding.reply import Reply, Task
from chatapp.engine.look.history import Held, LogitHistory
from chatapp.engine.runtimes.base import Floats, KVSequence, Runtime


def generate(
    runtime: Runtime,
    sequence: KVSequence,
    task: Task,
    controls: Controls,
    history: LogitHistory | None = None,
) -> Iterator[GenerationEvent]:
    """Write one reply.

    Yields `Progress` while the prompt is read, then `PromptRead`, a `TokenStep` for each token and
    a `GenerationEnd`; `Paused` while it is held. Nothing is raised for what can go wrong in a step:
    the end says it, and what came before stands. What each token was taken from goes into the
    history, where there is one, and so does what the next one may be taken from while it is held.
    """
    reply = Reply(runtime, task)
    try:
        yield from _write(reply, sequence, task, controls, history)
    except (EngineError, RuntimeError, MemoryError) as error:
        if not isinstance(error, EngineError):
            sequence.crop(0)
        yield reply.end(FinishReason.ERROR, failure(error))


def _write(
    reply: Reply,
    sequence: KVSequence,
    task: Task,
    controls: Controls,
    history: LogitHistory | None,
) -> Iterator[GenerationEvent]:
    if reply.finished:
        yield reply.end()
        return
    read = yield from prefill(sequence, task.prompt_ids, lambda: controls.cancelled)
    if read is None:
        yield reply.end(FinishReason.CANCELLED)
        return
    yield PromptRead(task.prompt_ids, read.cached_tokens, reply.seconds)
    logits = read.logits
    start = len(task.prompt_ids) - len(task.reply_ids)
    recording = (
        history.begin(task.prompt_ids[:start], task.reply_ids) if history is not None else None
    )
    while True:
        for span in task.options.schedule:
            if span.start == reply.count:
                controls.sampling = span.sampling
        forced = reply.forced
        if forced is None:
            forced = yield from _wait_for_leave(reply, sequence, logits, controls, history)
        if controls.cancelled:
            yield reply.end(FinishReason.CANCELLED)
            return
        step = reply.take(logits, controls.sampling, forced)
        if history is not None and recording is not None and reply.weighed is not None:
            history.append(recording, step.record.id, reply.weighed)
        yield step
        if reply.finished:
            yield reply.end(chosen=controls.chosen)
            return
        logits = sequence.read((step.record.id,)).logits[0]


def _wait_for_leave(
    reply: Reply,
    sequence: KVSequence,
    logits: Floats,
    controls: Controls,
    history: LogitHistory | None,
) -> Generator[GenerationEvent, None, int | None]:
    """While paused, show what could come next; return the token to take instead of drawing one."""
    while (leave := controls.leave()) is None:
        if history is not None:
            history.held = Held(tuple(sequence.ids), logits, reply.state)
        sampling = controls.sampling
        began = time.monotonic()
        yield Paused(reply.look(logits, sampling), sampling)
        controls.hold(sampling)
        reply.wait(time.monotonic() - began)
        if controls.cancelled:
            return None
    return leave.token_id
