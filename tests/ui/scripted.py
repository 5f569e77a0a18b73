"""An engine that writes what a test tells it, token by token, when the test lets it.

It implements the Engine Protocol without a model: every number of a record follows from the
token's position, so that screens and panels are the same on every run.
"""

from __future__ import annotations

import asyncio
import math
import re
import zlib
from collections.abc import AsyncIterator, Callable, Sequence

from chatapp.chat.errors import EngineDied, EngineError
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Progress
from chatapp.chat.generation import (
    GenerateOptions,
    GenerationEnd,
    GenerationEvent,
    PromptRead,
    TokenStep,
)
from chatapp.chat.prompt import Prompt, RenderedPrompt, TokenPiece
from chatapp.chat.record import Candidate, FinishReason, Removal, TokenRecord
from chatapp.chat.sampling import SamplingParams

END_ID = 2
FACTS = ModelFacts(
    name="Scripted-1M",
    runtime="transformers",
    architecture="scripted",
    weight_format="Q4_1",
    dtype="float32",
    device="cpu",
    threads=2,
    parameters=1_000_000,
    context_length=2048,
    context_bytes=1_000_000,
    vocab_size=50_000,
    layers=2,
    heads=2,
    kv_heads=1,
    hidden_size=8,
    end_ids=(END_ID,),
    control_ids=(1, END_ID),
    has_chat_template=True,
    sha256="5c",
    load_seconds=0.1,
)

Script = str | Sequence[bytes]


def split(text: str) -> list[bytes]:
    """A text in tokens: words with the space before them, other characters one by one."""
    return [piece.encode() for piece in re.findall(r" ?\w+|\s|[^\w\s]", text)]


def token_id(token: bytes) -> int:
    """Always the same number for the same token."""
    return 10 + zlib.crc32(token) % 49_000


def make_record(index: int, token: bytes, text: str, sampling: SamplingParams) -> TokenRecord:
    """A record whose numbers follow from the position alone; the sums are 1."""
    likely = (0.9, 0.62, 0.35, 0.12, 0.03)[index % 5]
    rest = 1 - likely
    weights = [likely, rest * 0.5, rest * 0.3, rest * 0.1]
    kept = weights[0] + weights[1]
    names = [token, b" other", b" else", b" cut"]
    candidates = tuple(
        Candidate(
            id=token_id(name),
            token=name.decode("utf-8", "backslashreplace"),
            bytes=name,
            logprob=math.log(weight),
            tempered_prob=weight,
            prob=weight / kept if place < 2 else 0.0,
            rank=place + 1,
            removed_by=None if place < 2 else Removal("top_p", 0.95, 0.95, 0.97),
        )
        for place, (name, weight) in enumerate(zip(names, weights, strict=True))
    )
    other = 1 - sum(weights)
    return TokenRecord(
        index=index,
        id=token_id(token),
        token=token.decode("utf-8", "backslashreplace"),
        bytes=token,
        text=text,
        logprob=math.log(likely),
        tempered_prob=likely,
        prob=weights[0] / kept,
        rank=1,
        entropy_bits=1 + index % 3,
        final_entropy_bits=0.5,
        p_end=0.001,
        temperature=sampling.temperature,
        candidates=candidates,
        other_count=49_996,
        other_model_prob=other,
        other_tempered_prob=other,
        other_prob=0.0,
        draw=0.25,
    )


def printable(tokens: Sequence[bytes]) -> list[str]:
    """What becomes printable with each token: unfinished characters wait for their rest."""
    texts: list[str] = []
    held = b""
    for token in tokens:
        held += token
        try:
            texts.append(held.decode())
            held = b""
        except UnicodeDecodeError:
            texts.append("")
    if held:
        texts[-1] += held.decode("utf-8", "replace")
    return texts


def make_records(text: str, sampling: SamplingParams | None = None) -> tuple[TokenRecord, ...]:
    """The records of a whole reply."""
    tokens = split(text)
    return tuple(
        make_record(index, token, printed, sampling or SamplingParams())
        for index, (token, printed) in enumerate(zip(tokens, printable(tokens), strict=True))
    )


class ScriptedEngine:
    """Writes the scripts it was given, one a reply; nothing more once they are used up."""

    def __init__(self, *scripts: Script, held: bool = False, loads: bool = True) -> None:
        """`held`: every token waits for `allow`. `loads` False: the model waits for `loaded`."""
        self.scripts = list(scripts)
        self.requests: list[tuple[Prompt, GenerateOptions]] = []
        self.drawn_with: list[SamplingParams] = []
        """The parameters of every token, in order."""
        self.loads = 0
        self.load_error: EngineError | None = None
        self.may_load = asyncio.Event()
        if loads:
            self.may_load.set()
        self.dead = False
        self.reason = FinishReason.STOP
        self.end_message = ""
        self._allowed = asyncio.Semaphore(0)
        self._held = held

    def allow(self, tokens: int = 1) -> None:
        """Let so many more tokens (or an end) come."""
        for _ in range(tokens):
            self._allowed.release()

    def hold(self) -> None:
        """Let every token wait for leave from here on."""
        self._held = True
        self._allowed = asyncio.Semaphore(0)

    def allow_all(self) -> None:
        """Hold nothing back any more."""
        self._held = False
        self.allow(10_000)

    async def turn(self) -> None:
        """Wait for leave to go on."""
        if self._held:
            await self._allowed.acquire()

    async def load(
        self, source: ModelSource, options: LoadOptions, on_progress: Callable[[Progress], None]
    ) -> ModelFacts:
        on_progress(Progress("weights", 45, 100, "tensors"))
        await self.may_load.wait()
        if self.load_error is not None:
            raise self.load_error
        self.loads += 1
        self.dead = False
        return FACTS

    def generate(self, prompt: Prompt, options: GenerateOptions) -> ScriptedGeneration:
        self.requests.append((prompt, options))
        script = self.scripts.pop(0) if self.scripts else ""
        tokens = split(script) if isinstance(script, str) else list(script)
        return ScriptedGeneration(self, tokens, prompt, options)

    async def tokenize(self, text: str, *, inside: bool = False) -> tuple[TokenPiece, ...]:
        self._live()
        return tuple(TokenPiece(token_id(token), token.decode(), token) for token in split(text))

    async def render(self, prompt: Prompt) -> RenderedPrompt:
        self._live()
        pieces: list[TokenPiece] = []
        if prompt.system:
            pieces.append(TokenPiece(1, "<|turn|>", b"<|turn|>", True))
            pieces.extend(await self.tokenize(prompt.system))
        for turn in prompt.turns:
            pieces.append(TokenPiece(1, "<|turn|>", b"<|turn|>", True))
            pieces.extend(await self.tokenize(f"{turn.role}\n{turn.text}"))
        text = "".join(piece.token for piece in pieces)
        return RenderedPrompt("scripted", text, tuple(pieces))

    async def close(self) -> None:
        self.dead = True

    def _live(self) -> None:
        if self.dead:
            raise EngineDied("the engine process ended: it was killed")


class ScriptedGeneration:
    """One reply under way."""

    def __init__(
        self,
        engine: ScriptedEngine,
        tokens: list[bytes],
        prompt: Prompt,
        options: GenerateOptions,
    ) -> None:
        self._engine = engine
        self._tokens = tokens
        self._prompt = prompt
        self._sampling = options.sampling
        self._before: SamplingParams | None = options.sampling
        self._forced = options.forced_ids
        self._cancelled = asyncio.Event()

    def set_sampling(self, sampling: SamplingParams) -> None:
        self._sampling = sampling

    def cancel(self) -> None:
        self._cancelled.set()

    async def __aiter__(self) -> AsyncIterator[GenerationEvent]:
        self._engine._live()
        last = self._prompt.turns[-1]
        start = len(last.ids or ()) if self._prompt.continue_reply else 0
        length = sum(len(split(turn.text)) for turn in self._prompt.turns)
        yield Progress("reading the prompt", length, length, "tokens")
        yield PromptRead(tuple(range(length)), 0, 0.01)
        tokens = [b" forced" for _ in self._forced] + self._tokens
        for index, (token, text) in enumerate(zip(tokens, printable(tokens), strict=True)):
            if await self._stopped():
                yield GenerationEnd(FinishReason.CANCELLED, 0.1 * index, 0.1)
                return
            changed = self._sampling if self._sampling != self._before else None
            self._before = self._sampling
            self._engine.drawn_with.append(self._sampling)
            yield TokenStep(make_record(start + index, token, text, self._sampling), changed)
        if await self._stopped():
            yield GenerationEnd(FinishReason.CANCELLED, 0.1 * len(tokens), 0.1)
            return
        engine = self._engine
        yield GenerationEnd(engine.reason, 0.1 * len(tokens), 0.1, engine.end_message)

    async def _stopped(self) -> bool:
        """Wait for leave to go on or for a stop. Raises EngineDied."""
        turn = asyncio.ensure_future(self._engine.turn())
        stop = asyncio.ensure_future(self._cancelled.wait())
        await asyncio.wait([turn, stop], return_when=asyncio.FIRST_COMPLETED)
        for task in (turn, stop):
            task.cancel()
        self._engine._live()
        return self._cancelled.is_set()
