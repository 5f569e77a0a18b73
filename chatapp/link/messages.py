"""What crosses between the two processes: one tagged, typed value a message.

Every message carries the number of the request it belongs to, so that several can be under way at
once: tokens are counted while a reply streams. On the wire each message is a MessagePack value
behind its length in four bytes, little-endian.
"""

from __future__ import annotations

import struct

import msgspec

from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Progress
from chatapp.chat.generation import GenerateOptions, GenerationEnd, Paused, PromptRead, TokenStep
from chatapp.chat.prompt import Prompt, RenderedPrompt, TokenPiece
from chatapp.chat.sampling import SamplingParams

LENGTH = struct.Struct("<I")
"""The frame's header: how many bytes follow."""


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


class Cancel(Message, frozen=True, tag=True, kw_only=True):
    """Stop the work of that request as soon as may be."""


class Pause(Message, frozen=True, tag=True, kw_only=True):
    """Hold a running reply before its next token, or let it go on."""

    paused: bool


class StepOnce(Message, frozen=True, tag=True, kw_only=True):
    """Let a held reply take one token: drawn, or the one the person chose."""

    token_id: int | None = None


class TokenizeRequest(Message, frozen=True, tag=True, kw_only=True):
    """Split a text into tokens, as ordinary text."""

    text: str


class RenderRequest(Message, frozen=True, tag=True, kw_only=True):
    """Show what the model would read."""

    prompt: Prompt


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


class FailedEvent(Message, frozen=True, tag=True, kw_only=True):
    """The request failed; the engine goes on."""

    message: str


Request = (
    LoadRequest
    | GenerateRequest
    | SetSampling
    | Cancel
    | Pause
    | StepOnce
    | TokenizeRequest
    | RenderRequest
)
Event = (
    ProgressEvent
    | LoadedEvent
    | PromptReadEvent
    | TokenEvent
    | PausedEvent
    | EndEvent
    | TokenizedEvent
    | RenderedEvent
    | FailedEvent
)

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def frame(message: Request | Event) -> bytes:
    """A message as it goes over the wire."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def read_request(body: bytes) -> Request:
    """A request out of a frame's body.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _requests.decode(body)


def read_event(body: bytes) -> Event:
    """An event out of a frame's body.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _events.decode(body)
