"""What crosses between the two processes: one tagged, typed value a message.

Every message carries the number of the request it belongs to, so that several can be under way at
once: tokens are counted while a reply streams. `chatapp.link.frames` puts them on the wire.
"""

from __future__ import annotations

import msgspec

from chatapp.chat.bench import BenchOptions, BenchResult
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Progress
from chatapp.chat.generation import GenerateOptions, GenerationEnd, Paused, PromptRead, TokenStep
from chatapp.chat.inspection import (
    CandidatePage,
    FoundToken,
    ReplyStep,
    SpeltText,
    TracedStep,
    WrittenReply,
)
from chatapp.chat.prompt import Prompt, RenderedPrompt, TokenPiece
from chatapp.chat.record import TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.scoring import ScoreEnd, ScoreStart
from chatapp.chat.search import (
    BeamEnd,
    BeamOptions,
    BeamStep,
    ContrastiveEnd,
    ContrastiveOptions,
    ContrastiveStep,
)
from chatapp.chat.whatif import WhatIf


class Message(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What all messages have."""

    request: int


class LoadRequest(Message, frozen=True, tag=True, kw_only=True):
    """Load a model, in place of the one that is loaded."""

    source: ModelSource
    options: LoadOptions
    prepared: str
    """The folder prepared models are kept in."""


class GenerateRequest(Message, frozen=True, tag=True, kw_only=True):
    """Write a reply."""

    prompt: Prompt
    options: GenerateOptions


class SetSampling(Message, frozen=True, tag=True, kw_only=True):
    """From the next token of a running reply on, draw with these. `request` is the reply's."""

    sampling: SamplingParams
    column: int = 0
    """Which one, where several are written side by side."""


class Cancel(Message, frozen=True, tag=True, kw_only=True):
    """Stop the work of that request as soon as may be."""

    column: int | None = None
    """Only this one of several replies; None is all of it."""


class Pause(Message, frozen=True, tag=True, kw_only=True):
    """Hold a running reply before its next token, or let it go on."""

    paused: bool


class StepOnce(Message, frozen=True, tag=True, kw_only=True):
    """Let a held reply take one drawn token, or those the person chose, in order."""

    token_ids: tuple[int, ...] = ()


class TokenizeRequest(Message, frozen=True, tag=True, kw_only=True):
    """Split a text into tokens, as ordinary text."""

    text: str
    inside: bool = False
    """Whether it goes on in a reply: then no vocabulary puts a space before it."""


class RenderRequest(Message, frozen=True, tag=True, kw_only=True):
    """Show what the model would read."""

    prompt: Prompt


class PiecesRequest(Message, frozen=True, tag=True, kw_only=True):
    """Tell the tokens of some ids."""

    ids: tuple[int, ...]


class TraceRequest(Message, frozen=True, tag=True, kw_only=True):
    """Tell one step of a reply stage by stage."""

    step: ReplyStep
    ids: tuple[int, ...]
    """The tokens to follow."""


class CandidatesRequest(Message, frozen=True, tag=True, kw_only=True):
    """List the vocabulary at one step, by rank."""

    step: ReplyStep
    start: int
    count: int


class FindTokensRequest(Message, frozen=True, tag=True, kw_only=True):
    """Find tokens at one step, by text or by id."""

    step: ReplyStep
    wanted: str | int
    limit: int


class SpellRequest(Message, frozen=True, tag=True, kw_only=True):
    """Tell the tokens of a text that could be taken at one step."""

    step: ReplyStep
    text: str


class WhatIfRequest(Message, frozen=True, tag=True, kw_only=True):
    """Look at a reply under other settings."""

    reply: WrittenReply
    sampling: SamplingParams


class ScoreTextRequest(Message, frozen=True, tag=True, kw_only=True):
    """Tell how probable a text is."""

    text: str
    top_logprobs: int


class ScorePromptRequest(Message, frozen=True, tag=True, kw_only=True):
    """Tell how probable each token of a prompt is."""

    prompt: Prompt
    top_logprobs: int
    places: tuple[int, ...] | None = None
    """Which of the tokens are wanted; None is all of them."""
    background: bool = False
    """Only where the model need not be run, and only until anything else is asked of it."""


class ScoreIdsRequest(Message, frozen=True, tag=True, kw_only=True):
    """Tell how probable some ids are behind others."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    top_logprobs: int


class CompareRequest(Message, frozen=True, tag=True, kw_only=True):
    """Write several replies to one prompt."""

    prompt: Prompt
    columns: tuple[GenerateOptions, ...]


class BeamRequest(Message, frozen=True, tag=True, kw_only=True):
    """Search with beams."""

    prompt: Prompt
    options: BeamOptions


class ContrastiveRequest(Message, frozen=True, tag=True, kw_only=True):
    """Search contrastively."""

    prompt: Prompt
    options: ContrastiveOptions
    stop: tuple[str, ...]


class BenchRequest(Message, frozen=True, tag=True, kw_only=True):
    """Measure how fast the model reads and writes."""

    options: BenchOptions


class ProgressEvent(Message, frozen=True, tag=True, kw_only=True):
    """Long work goes on."""

    progress: Progress


class LoadedEvent(Message, frozen=True, tag=True, kw_only=True):
    """The model is ready."""

    facts: ModelFacts


class PromptReadEvent(Message, frozen=True, tag=True, kw_only=True):
    """Prefill is done."""

    read: PromptRead


class TokenEvent(Message, frozen=True, tag=True, kw_only=True):
    """One token of a reply."""

    step: TokenStep


class PausedEvent(Message, frozen=True, tag=True, kw_only=True):
    """A reply is held; this could come next."""

    paused: Paused


class EndEvent(Message, frozen=True, tag=True, kw_only=True):
    """A reply is over."""

    end: GenerationEnd


class TokenizedEvent(Message, frozen=True, tag=True, kw_only=True):
    """A text in tokens."""

    tokens: tuple[TokenPiece, ...]


class RenderedEvent(Message, frozen=True, tag=True, kw_only=True):
    """A prompt as the model would read it."""

    rendered: RenderedPrompt


class PiecesEvent(Message, frozen=True, tag=True, kw_only=True):
    """The tokens of some ids."""

    tokens: tuple[TokenPiece, ...]


class TracedEvent(Message, frozen=True, tag=True, kw_only=True):
    """A step, stage by stage."""

    traced: TracedStep


class CandidatesEvent(Message, frozen=True, tag=True, kw_only=True):
    """Some ranks of the vocabulary."""

    page: CandidatePage


class FoundTokensEvent(Message, frozen=True, tag=True, kw_only=True):
    """The tokens that were looked for."""

    found: tuple[FoundToken, ...]


class SpeltEvent(Message, frozen=True, tag=True, kw_only=True):
    """A text in tokens that could be taken."""

    spelt: SpeltText


class WhatIfEvent(Message, frozen=True, tag=True, kw_only=True):
    """A reply under other settings."""

    what_if: WhatIf


class ScoreStartEvent(Message, frozen=True, tag=True, kw_only=True):
    """A text is about to be scored."""

    start: ScoreStart


class ScoredEvent(Message, frozen=True, tag=True, kw_only=True):
    """One token of a text."""

    record: TokenRecord


class ScoreEndEvent(Message, frozen=True, tag=True, kw_only=True):
    """A text is scored."""

    end: ScoreEnd


class ColumnTokenEvent(Message, frozen=True, tag=True, kw_only=True):
    """One token of one of several replies."""

    column: int
    step: TokenStep


class ColumnEndEvent(Message, frozen=True, tag=True, kw_only=True):
    """One of several replies is over."""

    column: int
    end: GenerationEnd


class BeamStepEvent(Message, frozen=True, tag=True, kw_only=True):
    """One level of a beam search."""

    step: BeamStep


class BeamEndEvent(Message, frozen=True, tag=True, kw_only=True):
    """A beam search is over."""

    end: BeamEnd


class ContrastiveStepEvent(Message, frozen=True, tag=True, kw_only=True):
    """One token of a contrastive search."""

    step: ContrastiveStep


class ContrastiveEndEvent(Message, frozen=True, tag=True, kw_only=True):
    """A contrastive search is over."""

    end: ContrastiveEnd


class BenchEvent(Message, frozen=True, tag=True, kw_only=True):
    """What was measured."""

    result: BenchResult


class FailedEvent(Message, frozen=True, tag=True, kw_only=True):
    """The request failed; the engine goes on."""

    message: str


Inspection = TraceRequest | CandidatesRequest | FindTokensRequest | SpellRequest | WhatIfRequest
"""Questions about a reply; the model runs only where its logits are gone."""

Scoring = ScoreTextRequest | ScorePromptRequest | ScoreIdsRequest

LongWork = (
    LoadRequest
    | GenerateRequest
    | CompareRequest
    | BeamRequest
    | ContrastiveRequest
    | Scoring
    | BenchRequest
)
"""What runs the model, one after the other."""

Question = TokenizeRequest | RenderRequest | PiecesRequest
"""What the tokenizer alone answers."""

Steering = SetSampling | Cancel | Pause | StepOnce
"""What changes work under way."""

Request = LongWork | Inspection | Question | Steering
Event = (
    ProgressEvent
    | LoadedEvent
    | PromptReadEvent
    | TokenEvent
    | PausedEvent
    | EndEvent
    | TokenizedEvent
    | RenderedEvent
    | PiecesEvent
    | TracedEvent
    | CandidatesEvent
    | FoundTokensEvent
    | SpeltEvent
    | WhatIfEvent
    | ScoreStartEvent
    | ScoredEvent
    | ScoreEndEvent
    | ColumnTokenEvent
    | ColumnEndEvent
    | BeamStepEvent
    | BeamEndEvent
    | ContrastiveStepEvent
    | ContrastiveEndEvent
    | BenchEvent
    | FailedEvent
)

LAST = (
    LoadedEvent
    | EndEvent
    | TokenizedEvent
    | RenderedEvent
    | PiecesEvent
    | TracedEvent
    | CandidatesEvent
    | FoundTokensEvent
    | SpeltEvent
    | WhatIfEvent
    | ScoreEndEvent
    | BeamEndEvent
    | ContrastiveEndEvent
    | BenchEvent
    | FailedEvent
)
"""After one of these nothing more comes for a request; several replies end one by one instead."""
