"""What a session asks of an engine and of a store, wherever they are and however they work.

The engine runs in another process today and may run on another machine tomorrow; tests script it.
Nothing above these Protocols can tell.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol, TypeVar

from chatapp.chat.bench import BenchEvent, BenchOptions
from chatapp.chat.conversation import Conversation, Message
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Report
from chatapp.chat.generation import GenerateOptions, GenerationEvent
from chatapp.chat.inspection import (
    CandidatePage,
    FoundToken,
    ReplyStep,
    ScoreEvent,
    SpeltText,
    TracedStep,
    WhatIf,
    WrittenReply,
)
from chatapp.chat.prompt import Prompt, RenderedPrompt, TokenPiece
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.search import (
    BeamEvent,
    BeamOptions,
    ContrastiveEvent,
    ContrastiveOptions,
    SeveralEvent,
)
from chatapp.chat.xray import (
    Analogy,
    Anatomy,
    Attention,
    Attribution,
    CacheRun,
    EmbeddingMap,
    HeadProfile,
    Lens,
    Matrix,
    Measure,
    Neighbors,
    Passage,
    Positions,
    Similarity,
)

_Event = TypeVar("_Event", covariant=True)


class Running(Protocol[_Event]):
    """Work under way that tells what comes of it. It begins when it is first iterated over.

    Iterating raises EngineError, and EngineDied when the engine ended.
    """

    def __aiter__(self) -> AsyncIterator[_Event]:
        """What comes of it, up to its last event."""

    def cancel(self) -> None:
        """End it soon; its last event still comes."""


class Generation(Running[GenerationEvent], Protocol):
    """A reply under way."""

    def set_sampling(self, sampling: SamplingParams) -> None:
        """Draw the next token with these."""

    def pause(self) -> None:
        """Hold it before its next token."""

    def resume(self) -> None:
        """Let it go on by itself."""

    def step(self, token_ids: Sequence[int] = ()) -> None:
        """Take one drawn token, or all of these in order, and hold again."""


class Comparison(Running[SeveralEvent], Protocol):
    """Several replies to one prompt, side by side."""

    def set_sampling(self, column: int, sampling: SamplingParams) -> None:
        """Draw the next token of a column with these."""

    def cancel(self, column: int | None = None) -> None:
        """End one column before its next token; None ends all of them."""


class Engine(Protocol):
    """What can read and write tokens, wherever it runs. Methods raise EngineError.

    `chatapp.link` calls these methods in another process by name, and reads arguments, answers and
    events by their type hints. The signature also says which thread answers: streams and what takes
    `on_progress` run the model in turn, a question about a `ReplyStep` or a `WrittenReply` looks at
    kept logits, any other asks the tokenizer alone.

    Questions about a reply don't disturb one that is under way. Where the logits of an older reply
    are gone the model reads it again, which waits until other long work is done. The step at which
    a reply is held is asked about like any other. Cancelling the task that awaits an answer
    withdraws the question.
    """

    async def load(
        self, source: ModelSource, options: LoadOptions, on_progress: Report
    ) -> ModelFacts:
        """Load a model."""

    def generate(self, prompt: Prompt, options: GenerateOptions) -> Generation:
        """Begin a reply."""

    async def tokenize(self, text: str, *, inside: bool = False) -> tuple[TokenPiece, ...]:
        """Split a text as ordinary text; `inside` is for one that goes on in a reply."""

    async def render(self, prompt: Prompt) -> RenderedPrompt:
        """What the model would read."""

    async def pieces(self, ids: Sequence[int]) -> tuple[TokenPiece, ...]:
        """The tokens of some ids."""

    async def trace(self, step: ReplyStep, ids: Sequence[int]) -> TracedStep:
        """What each stage of the sampler did to some tokens at one step."""

    async def candidates(self, step: ReplyStep, start: int, count: int) -> CandidatePage:
        """`count` candidates from place `start` on, the most probable by the model being at 0.

        Every token of the vocabulary has a place, so a list can be scrolled to its end.
        """

    async def find_tokens(
        self, step: ReplyStep, wanted: str | int, limit: int = 50
    ) -> tuple[FoundToken, ...]:
        """Tokens by their text, or the one of an id, at one step.

        Those whose text is just what is wanted stand first, then those that begin with it, then
        those that hold it; within each the most probable first. A space before a token doesn't
        count, unless the wanted text begins with one.
        """

    async def spell(self, step: ReplyStep, text: str) -> SpeltText:
        """A text in tokens, as ordinary text, that could be taken at one step."""

    async def what_if(self, reply: WrittenReply, sampling: SamplingParams) -> WhatIf:
        """A reply under other settings; quick when the same reply is asked about again."""

    def score_text(self, text: str, top_logprobs: int = 0) -> Running[ScoreEvent]:
        """How probable a text is by itself."""

    def score_prompt(
        self,
        prompt: Prompt,
        top_logprobs: int = 0,
        *,
        places: Sequence[int] | None = None,
        background: bool = False,
    ) -> Running[ScoreEvent]:
        """How probable each token of a rendered prompt is: of the user's own words, too.

        `places`: which tokens of the rendered prompt are wanted; None is all of them. `background`:
        score only where the engine remembers having read this very prompt, and give way (the end
        says `cancelled`) as soon as anything else is asked of the model.
        """

    def score_ids(
        self, prompt_ids: Sequence[int], ids: Sequence[int], top_logprobs: int = 0
    ) -> Running[ScoreEvent]:
        """How probable some ids are behind others."""

    def compare(self, prompt: Prompt, columns: Sequence[GenerateOptions]) -> Comparison:
        """Begin several replies to one prompt."""

    def beam(self, prompt: Prompt, options: BeamOptions) -> Running[BeamEvent]:
        """Begin a beam search."""

    def contrastive(
        self, prompt: Prompt, options: ContrastiveOptions, stop: Sequence[str] = ()
    ) -> Running[ContrastiveEvent]:
        """Begin a contrastive search."""

    def bench(self, options: BenchOptions) -> Running[BenchEvent]:
        """Measure how fast the model reads and writes on this machine."""

    # Inside the model: its float32 weights are loaded when first asked about.

    async def anatomy(self) -> Anatomy:
        """What the model is made of."""

    async def neighbors(
        self,
        word: str,
        matrix: Matrix = "input",
        by: Measure = "cosine",
        count: int = 10,
        *,
        on_progress: Report,
    ) -> Neighbors:
        """The tokens whose embeddings are nearest to a word's."""

    async def analogy(self, expression: str, count: int = 10, *, on_progress: Report) -> Analogy:
        """What is nearest to a sum of embeddings such as "woman - man + uncle"."""

    async def similarity(self, one: Passage, other: Passage, *, on_progress: Report) -> Similarity:
        """How alike two texts are."""

    async def embedding_map(
        self, words: Sequence[str], method: str = "pca", *, on_progress: Report
    ) -> EmbeddingMap:
        """Some words in two dimensions."""

    async def attention(
        self,
        passage: Passage,
        token: int = -1,
        layer: int = -1,
        head: int | None = None,
        every_row: bool = False,
        *,
        on_progress: Report,
    ) -> Attention:
        """What a token attends to, or every token; no head is the mean over all of them."""

    async def head_profiles(
        self, passage: Passage, token: int = -1, *, on_progress: Report
    ) -> tuple[HeadProfile, ...]:
        """What each head of each layer does at a token."""

    async def lens(
        self, passage: Passage, token: int = -1, count: int = 5, *, on_progress: Report
    ) -> Lens:
        """What would be predicted behind a token if the model ended after each layer."""

    async def attribution(
        self,
        passage: Passage,
        token: int = -1,
        target: str | None = None,
        by_head: bool = False,
        *,
        on_progress: Report,
    ) -> Attribution:
        """What each part of the model adds to the logit of a token behind another.

        The target is a word of one token, or "id:504"; None is the token that follows.
        """

    async def positions(self, position: int, *, on_progress: Report) -> Positions:
        """How the model knows that a token stands at a position."""

    async def cache_run(self, passage: Passage, *, on_progress: Report) -> CacheRun:
        """Read a growing text with and without the KV cache, and measure it."""

    async def passage(self, passage: Passage) -> tuple[TokenPiece, ...]:
        """The tokens of a passage, with what the model expects before any text."""

    async def close(self) -> None:
        """End it and wait for it."""


class ChatStore(Protocol):
    """Where conversations are kept. Every method raises StoreError.

    What a save could not write is held on to, and is written as soon as it can be.
    """

    async def save_conversation(self, conversation: Conversation) -> None:
        """Save everything but the messages: settings, title, current leaf."""

    async def save_message(self, conversation_id: str, message: Message) -> None:
        """Save a message, in place of the one of the same id; on disk when this returns."""

    async def append(self, conversation_id: str, message: Message) -> None:
        """Save a reply that has grown; of its records `message` holds only the new ones."""

    async def load(self, conversation_id: str) -> Conversation:
        """A conversation with all of its messages."""

    async def latest(self) -> str | None:
        """The id of the conversation that changed last."""

    async def resolve(self, prefix: str) -> str:
        """The id of the one conversation whose id begins so."""

    async def close(self) -> None:
        """Write what is left and let go of the file."""
