"""A text that the model writes beside the conversation: a title, a summary. The likeliest one."""

from __future__ import annotations

from dataclasses import dataclass

from chatapp.chat.generation import GenerateOptions, GenerationEnd, TokenStep
from chatapp.chat.prompt import Prompt
from chatapp.chat.record import FinishReason
from chatapp.chat.sampling import SamplingParams
from chatapp.session.protocols import Engine

_GREEDY = SamplingParams(temperature=0.0)


@dataclass(frozen=True, slots=True)
class Written:
    """What the model wrote, and how it ended."""

    text: str
    reason: FinishReason | None
    """None where the engine told no end."""
    message: str
    """Why it failed; empty where it didn't."""


class Aside:
    """Writes one such text, and gives way at any time."""

    def __init__(
        self, engine: Engine, prompt: Prompt, max_tokens: int, stop: tuple[str, ...] = ()
    ) -> None:
        options = GenerateOptions(
            sampling=_GREEDY, max_tokens=max_tokens, stop=stop, top_logprobs=0, is_aside=True
        )
        self._generation = engine.generate(prompt, options)

    def cancel(self) -> None:
        self._generation.cancel()

    async def write(self) -> Written:
        """Raises EngineError, EngineDied."""
        text: list[str] = []
        end: GenerationEnd | None = None
        try:
            async for event in self._generation:
                if isinstance(event, TokenStep):
                    text.append(event.record.text)
                elif isinstance(event, GenerationEnd):
                    end = event
        finally:
            self._generation.cancel()
        if end is None:
            return Written("".join(text), None, "")
        return Written("".join(text), end.reason, end.message)
