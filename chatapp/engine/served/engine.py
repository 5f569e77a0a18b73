"""A model on a server, asked like one that is here: what it cannot tell it refuses in one line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NoReturn

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Progress, Report
from chatapp.chat.generation import GenerateOptions, GenerationEvent
from chatapp.chat.prompt import Prompt, RenderedPrompt, TokenPiece
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.served import http
from chatapp.engine.served.connect import connect
from chatapp.engine.served.http import Unreached
from chatapp.engine.served.kinds import LlamaServer, Server
from chatapp.engine.served.reply import Reply, complete_turns


class ServedEngine:
    """One model of one server, as `session.protocols.Engine`; what it has no method for, it refuses
    in `xray`."""

    def __init__(self) -> None:
        self._loaded: Server | None = None

    def load(self, source: ModelSource, options: LoadOptions, on_progress: Report) -> ModelFacts:
        self.unload()
        on_progress(Progress("asking the server", 0, 0))
        for number, seconds in enumerate((*http.WAITS, None)):
            try:
                self._loaded = connect(source, options)
                break
            except Unreached as error:  # llama-server says so while it loads its model
                if not error.is_busy or seconds is None:
                    raise
                on_progress(Progress(f"{error}; try", number + 2, len(http.WAITS) + 1))
                time.sleep(seconds)
        return self._server.facts

    def unload(self) -> None:
        if self._loaded is not None:
            self._loaded.http.close()
        self._loaded = None

    def generate(
        self, prompt: Prompt, options: GenerateOptions, controls: Controls
    ) -> Iterator[GenerationEvent]:
        yield from Reply(self._server, prompt, options, controls).events()

    def tokenize(self, text: str, *, inside: bool = False) -> tuple[TokenPiece, ...]:
        return self._with_tokens("how it splits a text").tokenize(text)

    def render(self, prompt: Prompt) -> RenderedPrompt:
        server = self._with_tokens("what the model reads")
        pieces = tuple(map(server.piece, server.turns_ids(complete_turns(prompt))))
        text = b"".join(piece.bytes for piece in pieces).decode("utf-8", "replace")
        return RenderedPrompt("the server's own", text, pieces)

    def pieces(self, ids: tuple[int, ...]) -> tuple[TokenPiece, ...]:
        return tuple(map(self._with_tokens("its tokens").piece, ids))

    @property
    def xray(self) -> NoReturn:
        """What this class has no method for is asked for here. Raises EngineError."""
        raise EngineError(
            f"{self._server.facts.runtime} writes one reply at a time and shows neither logits nor"
            " weights; load the model on this machine for that"
        )

    inspection = xray

    @property
    def _server(self) -> Server:
        if self._loaded is None:
            raise EngineError("no model is loaded")
        return self._loaded

    def _with_tokens(self, what: str) -> LlamaServer:
        if not isinstance(self._server, LlamaServer):
            raise EngineError(
                f"{self._server.facts.runtime} does not tell {what}; load the model on this machine"
                " for that"
            )
        return self._server
