"""The engine's side: reads requests from standard input, writes events to standard output.

Four threads. The main one reads requests and never works. One does the long work, all that runs the
model, in turn. Two answer what must not wait for it: one what the tokenizer knows (counting tokens
while a reply streams), one what is asked about written replies. Such a question joins the long work
only where the logits are gone and the model has to run.

Native libraries print to file descriptor 1 when they please, so the real one is kept aside for
events and 1 is pointed to standard error, which the client sends to a log file. When standard input
ends, the interface is gone, and the process ends at once.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn, TypeVar

from chatapp.chat.errors import ChatappError, EngineError
from chatapp.chat.facts import Progress
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.link import frames, messages
from chatapp.link.wrap import Wrapped, wrap

if TYPE_CHECKING:
    from chatapp.engine.engine import LocalEngine


_R = TypeVar("_R", bound=messages.Message)

_Decoding = (
    messages.GenerateRequest
    | messages.CompareRequest
    | messages.BeamRequest
    | messages.ContrastiveRequest
    | messages.Scoring
    | messages.BenchRequest
)


class Server:
    """Dispatches requests to one engine and writes what comes of them."""

    def __init__(self, requests: BinaryIO, events: BinaryIO) -> None:
        self._requests = requests
        self._events = events
        self._write_lock = threading.Lock()
        self._engine: LocalEngine | None = None
        self._controls: dict[int, tuple[Controls, ...]] = {}
        self._long: queue.SimpleQueue[messages.LongWork | messages.Inspection] = queue.SimpleQueue()
        self._inspections: queue.SimpleQueue[messages.Inspection] = queue.SimpleQueue()
        self._questions: queue.SimpleQueue[messages.Question] = queue.SimpleQueue()

    def serve(self) -> None:
        """Read requests until the input ends."""
        for work in (self._work_long, self._work_inspections, self._work_questions):
            threading.Thread(target=work, daemon=True).start()
        while (request := self._read()) is not None:
            if isinstance(request, messages.Steering):
                self._steer(request)
                continue
            # Made here and not when its turn comes, so that a change or a stop that arrives while
            # it waits is not lost.
            self._controls[request.request] = _controls_for(request)
            if isinstance(request, messages.Question):
                self._questions.put(request)
            elif isinstance(request, messages.Inspection):
                self._inspections.put(request)
            else:
                self._long.put(request)

    def _steer(self, request: messages.Steering) -> None:
        """Change work that runs or waits; one that is over no longer cares."""
        all_controls = self._controls.get(request.request, ())
        column = getattr(request, "column", None)
        if column is not None:
            all_controls = all_controls[column : column + 1] if column >= 0 else ()
        for controls in all_controls:
            match request:
                case messages.SetSampling():
                    controls.sampling = request.sampling
                case messages.Cancel():
                    controls.cancel()
                case messages.Pause(paused=True):
                    controls.pause()
                case messages.Pause():
                    controls.resume()
                case messages.StepOnce():
                    controls.step(request.token_ids)

    def _read(self) -> messages.Request | None:
        header = self._requests.read(frames.LENGTH.size)
        if len(header) < frames.LENGTH.size:
            return None
        (length,) = frames.LENGTH.unpack(header)
        body = self._requests.read(length)
        return frames.read_request(body) if len(body) == length else None

    def _send(self, event: messages.Event) -> None:
        frame = frames.frame(event)
        with self._write_lock:
            self._events.write(frame)
            self._events.flush()

    def _work_long(self) -> None:
        while True:
            request = self._long.get()
            if isinstance(request, messages.LoadRequest):
                self._guard(self._load, request)
            elif isinstance(request, messages.Inspection):
                self._guard(self._recompute, request)
            else:
                self._guard(self._run, request)
            self._controls.pop(request.request, None)

    def _work_inspections(self) -> None:
        while True:
            self._guard(self._inspect, self._inspections.get())

    def _work_questions(self) -> None:
        while True:
            request = self._questions.get()
            self._guard(self._answer, request)
            self._controls.pop(request.request, None)

    def _guard(self, work: Callable[[_R], None], request: _R) -> None:
        """Do one piece of work; whatever it raises becomes an event, never the end."""
        number = request.request
        try:
            work(request)
        except BrokenPipeError:
            os._exit(0)  # the interface is gone
        except ChatappError as error:
            self._send(messages.FailedEvent(request=number, message=str(error)))
        except Exception as error:
            traceback.print_exc()
            words = f"the engine failed: {type(error).__name__}: {error}; see the log"
            self._send(messages.FailedEvent(request=number, message=words))

    def _load(self, request: messages.LoadRequest) -> None:
        # torch and transformers take seconds to import; nothing before a load needs them.
        from chatapp.engine.engine import LocalEngine

        report = self._reporter(request)
        report(Progress("starting the engine", 0, 0))
        engine = self._engine or LocalEngine(Path(request.prepared))
        facts = engine.load(request.source, request.options, report)
        self._engine = engine
        self._send(messages.LoadedEvent(request=request.request, facts=facts))

    def _run(self, request: _Decoding) -> None:
        """Write a reply, or several; search; score: everything that comes bit by bit."""
        number = request.request
        for event in self._events_of(request, self._controls[number]):
            self._send(wrap(number, event))

    def _events_of(self, request: _Decoding, controls: tuple[Controls, ...]) -> Iterator[Wrapped]:
        engine = self._running()
        report = self._reporter(request)

        background = isinstance(request, messages.ScorePromptRequest) and request.background

        def cancelled() -> bool:
            return controls[0].cancelled or (background and not self._long.empty())

        match request:
            case messages.GenerateRequest():
                return engine.generate(request.prompt, request.options, controls[0])
            case messages.CompareRequest():
                return engine.compare(request.prompt, request.columns, controls)
            case messages.BeamRequest():
                return engine.beam(request.prompt, request.options, cancelled)
            case messages.ContrastiveRequest():
                return engine.contrastive(request.prompt, request.options, request.stop, cancelled)
            case messages.ScoreTextRequest():
                return engine.score_text(request.text, request.top_logprobs, report, cancelled)
            case messages.ScorePromptRequest():
                return engine.score_prompt(
                    request.prompt,
                    request.top_logprobs,
                    report,
                    cancelled,
                    places=request.places,
                    kept_only=request.background,
                )
            case messages.ScoreIdsRequest():
                return engine.score_ids(
                    request.prompt_ids, request.ids, request.top_logprobs, report, cancelled
                )
            case messages.BenchRequest():
                return engine.bench(request.options, cancelled)

    def _inspect(self, request: messages.Inspection) -> None:
        """Answer out of the logits that are kept, or pass the question on to the long work."""
        from chatapp.engine.look.inspection import LogitsGone  # brings torch, as a loaded model has

        passed_on = False
        try:
            if not self._controls[request.request][0].cancelled:
                self._tell(request, recomputed=False)
        except LogitsGone:
            passed_on = True
            self._long.put(request)
        finally:
            if not passed_on:
                del self._controls[request.request]

    def _recompute(self, request: messages.Inspection) -> None:
        """Bring the logits back, then answer."""
        (controls,) = self._controls[request.request]
        if isinstance(request, messages.WhatIfRequest):
            reply, index = request.reply, None
        else:
            reply, index = request.step.reply, request.step.index
        report = self._reporter(request)
        inspection = self._running().inspection
        if inspection.recompute(reply, index, report, lambda: controls.cancelled):
            self._tell(request, recomputed=True)

    def _tell(self, request: messages.Inspection, *, recomputed: bool) -> None:
        number = request.request
        inspection = self._running().inspection
        event: messages.Event
        match request:
            case messages.TraceRequest():
                traced = inspection.trace(request.step, request.ids, recomputed=recomputed)
                event = messages.TracedEvent(request=number, traced=traced)
            case messages.CandidatesRequest():
                page = inspection.candidates(request.step, request.start, request.count)
                event = messages.CandidatesEvent(request=number, page=page)
            case messages.FindTokensRequest():
                found = inspection.find_tokens(request.step, request.wanted, request.limit)
                event = messages.FoundTokensEvent(request=number, found=found)
            case messages.SpellRequest():
                spelt = inspection.spell(request.step, request.text)
                event = messages.SpeltEvent(request=number, spelt=spelt)
            case messages.WhatIfRequest():
                what_if = inspection.what_if(request.reply, request.sampling)
                event = messages.WhatIfEvent(request=number, what_if=what_if)
        self._send(event)

    def _answer(self, request: messages.Question) -> None:
        number = request.request
        match request:
            case messages.TokenizeRequest():
                tokens = self._running().tokenize(request.text, inside=request.inside)
                self._send(messages.TokenizedEvent(request=number, tokens=tokens))
            case messages.RenderRequest():
                rendered = self._running().render(request.prompt)
                self._send(messages.RenderedEvent(request=number, rendered=rendered))
            case messages.PiecesRequest():
                tokens = self._running().pieces(request.ids)
                self._send(messages.PiecesEvent(request=number, tokens=tokens))

    def _reporter(self, request: messages.Message) -> Callable[[Progress], None]:
        def report(progress: Progress) -> None:
            self._send(messages.ProgressEvent(request=request.request, progress=progress))

        return report

    def _running(self) -> LocalEngine:
        if self._engine is None:
            raise EngineError("no model is loaded")
        return self._engine


def _controls_for(request: messages.Request) -> tuple[Controls, ...]:
    """What can be steered: a reply's controls, one for each of several, else whether to stop."""
    match request:
        case messages.GenerateRequest():
            return (Controls(request.options.sampling),)
        case messages.CompareRequest():
            return tuple(Controls(options.sampling) for options in request.columns)
    return (Controls(SamplingParams()),)


def main() -> NoReturn:
    """Serve over the standard streams until the input ends."""
    requests = os.fdopen(os.dup(0), "rb")
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    Server(requests, events).serve()
    sys.stderr.flush()
    # Work may be under way in a native call that no one waits for any more.
    os._exit(0)


if __name__ == "__main__":
    main()
