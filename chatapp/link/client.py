"""The interface's side of the engine: typed requests out, typed answers in.

Every method is one message of `chatapp.link.messages` and what comes back for it. Nothing is
computed here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from chatapp.chat.bench import BenchEvent, BenchOptions
from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Progress
from chatapp.chat.generation import GenerateOptions
from chatapp.chat.inspection import (
    CandidatePage,
    FoundToken,
    ReplyStep,
    SpeltText,
    TracedStep,
    WrittenReply,
)
from chatapp.chat.prompt import Prompt, RenderedPrompt, TokenPiece
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.scoring import ScoreEvent
from chatapp.chat.search import BeamEvent, BeamOptions, ContrastiveEvent, ContrastiveOptions
from chatapp.chat.whatif import WhatIf
from chatapp.link import messages
from chatapp.link.connection import Connection
from chatapp.link.streams import (
    RemoteComparison,
    RemoteGeneration,
    RemoteStream,
    beam_event,
    bench_event,
    contrastive_event,
    score_event,
)
from chatapp.settings.paths import Paths

_Answer = TypeVar("_Answer", bound=messages.Message)


class EngineClient:
    """An engine in a process of its own; implements `chatapp.session.protocols.Engine`."""

    def __init__(self, paths: Paths, on_death: Callable[[str], None] | None = None) -> None:
        """Nothing is started before the first `load`.

        Args:
            paths: where logs and prepared models go.
            on_death: told in words when the process ends unasked.
        """
        self._prepared = str(paths.prepared)
        self._connection = Connection(paths.logs, on_death)

    @property
    def process_id(self) -> int | None:
        """The process while it runs."""
        return self._connection.process_id

    @property
    def on_death(self) -> Callable[[str], None] | None:
        """Who is told in words when the process ends unasked."""
        return self._connection.on_death

    @on_death.setter
    def on_death(self, on_death: Callable[[str], None] | None) -> None:
        self._connection.on_death = on_death

    async def load(
        self, source: ModelSource, options: LoadOptions, on_progress: Callable[[Progress], None]
    ) -> ModelFacts:
        """Load a model; starts the process when none runs. Raises EngineError."""
        await self._connection.start()
        request = messages.LoadRequest(
            request=self._number(), source=source, options=options, prepared=self._prepared
        )
        async with contextlib.aclosing(self._connection.ask(request)) as events:
            async for event in events:
                match event:
                    case messages.ProgressEvent():
                        on_progress(event.progress)
                    case messages.LoadedEvent():
                        return event.facts
        raise EngineError("the engine did not load the model")

    def generate(self, prompt: Prompt, options: GenerateOptions) -> RemoteGeneration:
        """Begin a reply; it starts when it is first iterated over."""
        request = messages.GenerateRequest(request=self._number(), prompt=prompt, options=options)
        return RemoteGeneration(self._connection, request)

    async def tokenize(self, text: str, *, inside: bool = False) -> tuple[TokenPiece, ...]:
        """Split a text as ordinary text. Raises EngineError."""
        request = messages.TokenizeRequest(request=self._number(), text=text, inside=inside)
        return (await self._answer(request, messages.TokenizedEvent)).tokens

    async def render(self, prompt: Prompt) -> RenderedPrompt:
        """What the model would read. Raises EngineError."""
        request = messages.RenderRequest(request=self._number(), prompt=prompt)
        return (await self._answer(request, messages.RenderedEvent)).rendered

    async def pieces(self, ids: Sequence[int]) -> tuple[TokenPiece, ...]:
        """The tokens of some ids. Raises EngineError."""
        request = messages.PiecesRequest(request=self._number(), ids=tuple(ids))
        return (await self._answer(request, messages.PiecesEvent)).tokens

    async def trace(self, step: ReplyStep, ids: Sequence[int]) -> TracedStep:
        """What each stage did to some tokens at one step. Raises EngineError."""
        request = messages.TraceRequest(request=self._number(), step=step, ids=tuple(ids))
        return (await self._answer(request, messages.TracedEvent)).traced

    async def candidates(self, step: ReplyStep, start: int, count: int) -> CandidatePage:
        """Some ranks of the vocabulary at one step. Raises EngineError."""
        request = messages.CandidatesRequest(
            request=self._number(), step=step, start=start, count=count
        )
        return (await self._answer(request, messages.CandidatesEvent)).page

    async def find_tokens(
        self, step: ReplyStep, wanted: str | int, limit: int = 50
    ) -> tuple[FoundToken, ...]:
        """Tokens at one step by text, or by id. Raises EngineError."""
        request = messages.FindTokensRequest(
            request=self._number(), step=step, wanted=wanted, limit=limit
        )
        return (await self._answer(request, messages.FoundTokensEvent)).found

    async def spell(self, step: ReplyStep, text: str) -> SpeltText:
        """The tokens of a text that could be taken at one step. Raises EngineError."""
        request = messages.SpellRequest(request=self._number(), step=step, text=text)
        return (await self._answer(request, messages.SpeltEvent)).spelt

    async def what_if(self, reply: WrittenReply, sampling: SamplingParams) -> WhatIf:
        """A reply under other settings. Raises EngineError."""
        request = messages.WhatIfRequest(request=self._number(), reply=reply, sampling=sampling)
        return (await self._answer(request, messages.WhatIfEvent)).what_if

    def score_text(self, text: str, top_logprobs: int = 0) -> RemoteStream[ScoreEvent]:
        """How probable a text is by itself."""
        request = messages.ScoreTextRequest(
            request=self._number(), text=text, top_logprobs=top_logprobs
        )
        return RemoteStream(self._connection, request, score_event)

    def score_prompt(
        self,
        prompt: Prompt,
        top_logprobs: int = 0,
        *,
        places: Sequence[int] | None = None,
        background: bool = False,
    ) -> RemoteStream[ScoreEvent]:
        """How probable each token of a rendered prompt is."""
        request = messages.ScorePromptRequest(
            request=self._number(),
            prompt=prompt,
            top_logprobs=top_logprobs,
            places=None if places is None else tuple(places),
            background=background,
        )
        return RemoteStream(self._connection, request, score_event)

    def score_ids(
        self, prompt_ids: Sequence[int], ids: Sequence[int], top_logprobs: int = 0
    ) -> RemoteStream[ScoreEvent]:
        """How probable some ids are behind others."""
        request = messages.ScoreIdsRequest(
            request=self._number(),
            prompt_ids=tuple(prompt_ids),
            ids=tuple(ids),
            top_logprobs=top_logprobs,
        )
        return RemoteStream(self._connection, request, score_event)

    def compare(self, prompt: Prompt, columns: Sequence[GenerateOptions]) -> RemoteComparison:
        """Begin several replies to one prompt."""
        request = messages.CompareRequest(
            request=self._number(), prompt=prompt, columns=tuple(columns)
        )
        return RemoteComparison(self._connection, request)

    def beam(self, prompt: Prompt, options: BeamOptions) -> RemoteStream[BeamEvent]:
        """Begin a beam search."""
        request = messages.BeamRequest(request=self._number(), prompt=prompt, options=options)
        return RemoteStream(self._connection, request, beam_event)

    def contrastive(
        self, prompt: Prompt, options: ContrastiveOptions, stop: Sequence[str] = ()
    ) -> RemoteStream[ContrastiveEvent]:
        """Begin a contrastive search."""
        request = messages.ContrastiveRequest(
            request=self._number(), prompt=prompt, options=options, stop=tuple(stop)
        )
        return RemoteStream(self._connection, request, contrastive_event)

    def bench(self, options: BenchOptions) -> RemoteStream[BenchEvent]:
        """Measure how fast the model reads and writes on this machine."""
        request = messages.BenchRequest(request=self._number(), options=options)
        return RemoteStream(self._connection, request, bench_event)

    async def close(self) -> None:
        """End the process and wait for it; kill it when it does not listen."""
        await self._connection.close()

    def _number(self) -> int:
        return self._connection.new_request()

    async def _answer(self, request: messages.Request, kind: type[_Answer]) -> _Answer:
        """Wait for the one event of a kind; a caller who no longer waits withdraws the question."""
        async with contextlib.aclosing(self._connection.ask(request)) as events:
            async for event in events:
                if isinstance(event, kind):
                    return event
        raise EngineError("the engine did not answer")
