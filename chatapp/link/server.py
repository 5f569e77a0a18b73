"""The engine's side: reads calls from standard input, writes what comes of them to standard output.

Five threads. The main one reads and never works. One does the long work, all that runs the model,
in turn. Two answer what must not wait for it: one what the tokenizer knows (counting tokens while a
reply streams), one what is asked about written replies. Such a question joins the long work only
where the logits are gone and the model has to run. The last one writes, many tokens at a time.

Native libraries print to file descriptor 1 when they please, so the real one is kept aside for
events and 1 is pointed to standard error, which the client sends to a log file. When standard input
ends, the interface is gone, and the process ends at once.
"""

from __future__ import annotations

import inspect
import logging
import os
import queue
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from chatapp.chat.errors import ChatappError, EngineError
from chatapp.chat.facts import ModelSource, Progress
from chatapp.chat.generation import GenerateOptions
from chatapp.chat.inspection import ReplyStep, WrittenReply
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.link.wire import (
    ANSWER,
    BROKEN,
    CALLS,
    END,
    FAILED,
    STEERING,
    BrokenFrame,
    Call,
    Frame,
    FrameReader,
    Worker,
    encode,
    event_frame,
)

if TYPE_CHECKING:
    from chatapp.engine.engine import LocalEngine
    from chatapp.engine.served.engine import ServedEngine

BATCH_SECONDS = 0.025
"""How long a token that follows another may wait for those behind it: each waking of the interface
costs both processes time, and the screen is drawn less often than this."""

_READ_BYTES = 1 << 16


class Outbox:
    """Frames on their way to the interface, many in one write."""

    def __init__(self, events: BinaryIO) -> None:
        self._events = events
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._frames: list[bytes] = []
        self._urgent = False

    def put(self, frame: bytes, *, urgent: bool = True) -> None:
        """Send a frame, at once or within `BATCH_SECONDS`; their order is kept."""
        with self._changed:
            self._frames.append(frame)
            if urgent or len(self._frames) == 1:
                self._urgent |= urgent
                self._changed.notify()

    def flush(self) -> None:
        with self._writing:
            with self._changed:
                frames, self._frames, self._urgent = self._frames, [], False
            self._events.write(b"".join(frames))
            self._events.flush()

    def run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._frames)
                self._changed.wait_for(lambda: self._urgent, BATCH_SECONDS)
            self.flush()


@dataclass(frozen=True, slots=True)
class Work:
    """A call that waits or is under way."""

    number: int
    call: Call
    arguments: inspect.BoundArguments
    controls: tuple[Controls, ...]
    """Made when the call comes and not when its turn does, so that a change or a stop that arrives
    while it waits is not lost: one for each reply, and one for work that has only to be stopped."""

    @classmethod
    def of(cls, number: int, call: Call, arguments: inspect.BoundArguments) -> Work:
        replies: list[GenerateOptions] = []
        for value in arguments.arguments.values():
            several = value if isinstance(value, list | tuple) else (value,)
            replies += [one for one in several if isinstance(one, GenerateOptions)]
        samplings = [options.sampling for options in replies] or [SamplingParams()]
        return cls(number, call, arguments, tuple(map(Controls, samplings)))

    @property
    def step(self) -> tuple[WrittenReply, int | None]:
        """What an inspection looks at: a reply, and which token of it, or all."""
        for value in self.arguments.arguments.values():
            if isinstance(value, ReplyStep):
                return value.reply, value.index
            if isinstance(value, WrittenReply):
                return value, None
        raise TypeError(f"{self.call.name} asks about no reply")


class Server:
    """Hands calls to one engine, and what comes of them to the interface."""

    def __init__(
        self,
        requests: BinaryIO,
        events: BinaryIO,
        prepared: Path,
        engine: LocalEngine | None = None,
    ) -> None:
        """Read and write nothing yet.

        `engine`: what does the work; None makes one for the first model.
        """
        self._requests = requests
        self._outbox = Outbox(events)
        self._prepared = prepared
        self._engine: LocalEngine | ServedEngine | None = engine
        self._is_served = False
        self._under_way: dict[int, Work] = {}
        self._queues: dict[Worker, queue.SimpleQueue[Work]] = {
            worker: queue.SimpleQueue() for worker in Worker
        }

    def serve(self) -> None:
        """Read calls until the input ends, or what comes is none."""
        threading.Thread(target=_end_with, args=(self._outbox.run,), daemon=True).start()
        for worker in Worker:
            arguments = (self._work, worker)
            threading.Thread(target=_end_with, args=arguments, daemon=True).start()
        reader = FrameReader()
        try:
            while data := self._requests.read1(_READ_BYTES):  # type: ignore[attr-defined]
                for frame in reader.feed(data):
                    self._take(frame)
        except (BrokenFrame, ValueError, RecursionError) as error:
            words = f"it was sent something that is no request ({error})"
            sys.stderr.write(f"{words}\n")
            self._outbox.put(encode(0, BROKEN, words))
            self._outbox.flush()

    def _take(self, frame: Frame) -> None:
        if (steering := STEERING.get(frame.kind)) is not None:
            work = self._under_way.get(frame.request)  # None where it is over
            if work is not None:
                self._steer(work, steering.name, frame.column, steering.unpack(frame.payload))
        elif (call := CALLS.get(frame.kind)) is not None:
            work = Work.of(frame.request, call, call.unpack(frame.payload))
            self._under_way[work.number] = work
            self._queues[call.worker].put(work)
        else:
            raise BrokenFrame(f"no method is called {frame.kind!r}")

    def _steer(
        self, work: Work, name: str, column: int | None, arguments: inspect.BoundArguments
    ) -> None:
        for index, controls in enumerate(work.controls):
            if column is None or index == column:
                if name == "set_sampling":
                    (controls.sampling,) = arguments.args
                else:
                    getattr(controls, name)(*arguments.args)

    def _work(self, worker: Worker) -> None:
        while True:
            work = self._queues[worker].get()
            if not self._guard(work, worker):
                self._queues[Worker.MODEL].put(work)
            else:
                del self._under_way[work.number]

    def _guard(self, work: Work, worker: Worker) -> bool:
        """Do one piece of work; whatever it raises becomes words, and never ends the thread.

        That includes what is no `Exception`: a panic in a Rust library, or sys.exit in a model's.
        False where the model has to run first.
        """
        try:
            return self._do(work, worker)
        except ChatappError as error:
            self._outbox.put(encode(work.number, FAILED, str(error)))
        except BaseException as error:
            traceback.print_exc()
            words = f"the engine failed: {type(error).__name__}: {error}; see the log"
            words = words.encode("utf-8", "replace").decode()
            self._outbox.put(encode(work.number, FAILED, words))
        return True

    def _do(self, work: Work, worker: Worker) -> bool:
        if work.call.name == "load":
            self._report(work, Progress("starting the engine", 0, 0))
            self._engine = self._engine_for(work.arguments.arguments["source"])
        if (engine := self._engine) is None:
            raise EngineError("no model is loaded")
        if work.call.worker is Worker.INSPECTION:
            return self._inspect(work, engine, may_run_model=worker is Worker.MODEL)
        asks_engine = hasattr(type(engine), work.call.name)
        result = self._call(work, engine if asks_engine else engine.xray)
        if work.call.answer is not None:
            self._outbox.put(encode(work.number, ANSWER, result))
            return True
        before = ""
        for event in result:
            kind, frame = event_frame(work.number, event)
            self._outbox.put(frame, urgent=kind != before)
            before = kind
        self._outbox.put(encode(work.number, END))
        return True

    def _engine_for(self, source: ModelSource) -> LocalEngine | ServedEngine:
        """The engine that such a model needs; the other one lets go of its own."""
        is_served = source.kind == "server"
        if self._engine is not None and self._is_served == is_served:
            return self._engine
        if self._engine is not None:
            self._engine.unload()
        self._is_served = is_served
        # Each brings libraries that take their time to import, and that the other has no use for.
        if is_served:
            from chatapp.engine.served.engine import ServedEngine

            return ServedEngine()
        from chatapp.engine.engine import LocalEngine

        return LocalEngine(self._prepared)

    def _inspect(
        self, work: Work, engine: LocalEngine | ServedEngine, *, may_run_model: bool
    ) -> bool:
        """Answer out of the logits that are kept; bring them back first where that may be done."""
        from chatapp.engine.look.inspection import LogitsGone  # brings torch, as a loaded model has

        inspection, cancelled = engine.inspection, self._cancelled(work)
        if may_run_model:
            reply, index = work.step
            inspection.recompute(reply, index, lambda done: self._report(work, done), cancelled)
        if cancelled():
            self._outbox.put(encode(work.number, END))
            return True
        try:
            answer = self._call(work, inspection, recomputed=may_run_model)
        except LogitsGone:
            if may_run_model:
                raise
            return False
        self._outbox.put(encode(work.number, ANSWER, answer))
        return True

    def _call(self, work: Work, owner: object, *, recomputed: bool = False) -> Any:
        """Call the method, with what else its signature wants to be told or to ask."""
        method = getattr(owner, work.call.name)
        several = len(work.controls) > 1 or work.call.name == "compare"
        offered = {
            "controls": work.controls if several else work.controls[0],
            "cancelled": self._cancelled(work),
            "on_progress": lambda progress: self._report_or_stop(work, progress),
            "recomputed": recomputed,
        }
        wanted = inspect.signature(method).parameters
        extra = {name: value for name, value in offered.items() if name in wanted}
        return method(*work.arguments.args, **work.arguments.kwargs, **extra)

    def _cancelled(self, work: Work) -> Any:
        """Asks whether to stop; work in the background also gives way to any other."""
        background = work.arguments.arguments.get("background", False)
        waiting = self._queues[Worker.MODEL]
        return lambda: work.controls[0].cancelled or (background and not waiting.empty())

    def _report_or_stop(self, work: Work, progress: Progress) -> None:
        """Tell how far it is; a question that nobody waits for any more ends here."""
        if work.call.answer is not None and work.call.name != "load" and self._cancelled(work)():
            raise EngineError("nobody waits for the answer any more")
        self._report(work, progress)

    def _report(self, work: Work, progress: Progress) -> None:
        _, frame = event_frame(work.number, progress)
        self._outbox.put(frame)


def _end_with(work: Any, *arguments: Any) -> None:
    """Do the work of a thread; the process does not outlive it, for requests would wait for ever.

    It ends in silence where the interface is gone.
    """
    try:
        work(*arguments)
    except BrokenPipeError:
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def main(engine: LocalEngine | None = None) -> NoReturn:
    requests = os.fdopen(os.dup(0), "rb")
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    # To standard error, which the client sends to the log file: llama.cpp's lines, for one.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    Server(requests, events, Path(sys.argv[1]), engine).serve()
    sys.stderr.flush()
    # Work may be under way in a native call that no one waits for any more.
    os._exit(0)


if __name__ == "__main__":
    main()
