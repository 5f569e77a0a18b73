"""What crosses between the two processes: frames, and the calls of the Engine Protocol in them.

A frame is a MessagePack array behind its length in four bytes, little-endian. Towards the engine
its kind is the method that is called, or a method of `Generation` that changes work under way; back
comes the class of an event, or one of the four kinds below. What is inside is decoded by the type
hints of the method, so that a new question to the engine needs no more than its method.
"""

from __future__ import annotations

import inspect
import struct
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import msgspec

from chatapp.chat.facts import Progress
from chatapp.chat.inspection import ReplyStep, WrittenReply
from chatapp.chat.search import ColumnEvent
from chatapp.session.protocols import Engine, Generation, Running

ANSWER = "answer"
"""What a question comes back with."""
END = "end"
"""Nothing more comes of a stream."""
FAILED = "failed"
"""The request failed, in words; the engine goes on."""
BROKEN = "broken"
"""The engine ends, in words: it was sent what is no request."""

LONGEST = 256 << 20
"""Bytes of a frame. The tokens of a text of a million, with some hundred bytes each, fit."""

BrokenFrame = msgspec.DecodeError
"""What the other side sent cannot be read."""

_LENGTH = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """One message, about one request."""

    request: int
    """The request's number; 0 is the engine itself."""
    kind: str
    payload: msgspec.Raw
    column: int | None = None
    """Which of several replies it is about; None is all of them."""


def encode(request: int, kind: str, payload: object = None, column: int | None = None) -> bytes:
    body = _encoder.encode((request, kind, payload, column))
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts the bytes that come into frames."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._decoder = msgspec.msgpack.Decoder(Frame)

    def feed(self, data: bytes) -> list[Frame]:
        """Take in some bytes; returns the frames that are complete with them.

        Raises BrokenFrame: they are none, or one says that it is longer than `LONGEST`.
        """
        self._data += data
        frames: list[Frame] = []
        start = 0
        while len(self._data) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data, start)
            if length > LONGEST:
                raise BrokenFrame(f"a frame of {length:,} bytes")
            end = start + _LENGTH.size + length
            if len(self._data) < end:
                break
            frames.append(self._decoder.decode(bytes(self._data[start + _LENGTH.size : end])))
            start = end
        del self._data[:start]
        return frames


class Worker(Enum):
    """Which thread of the engine does what a method asks for."""

    MODEL = auto()
    """All that runs the model, in turn: streams, and what reports its progress."""
    INSPECTION = auto()
    """A question about a reply; it joins the model's work only where the logits are gone."""
    TOKENIZER = auto()
    """Any other question: it never waits for the model."""


@dataclass(frozen=True, slots=True)
class Call:
    """A method, as its signature says that it is called and answered."""

    name: str
    signature: inspect.Signature
    """Without `self`, and without the callback that progress is told to."""
    arguments: msgspec.msgpack.Decoder[msgspec.Struct]
    returns: Any
    """What it gives back: the class of a stream, or the type of an answer."""
    answer: msgspec.msgpack.Decoder[Any] | None
    """None for a stream."""
    events: Mapping[str, msgspec.msgpack.Decoder[Any]]
    """For each event that may come, by the name of its class."""
    worker: Worker

    def pack(self, *positional: Any, **named: Any) -> dict[str, Any]:
        """The arguments by name, as a frame carries them."""
        bound = self.signature.bind(*positional, **named)
        bound.apply_defaults()
        return bound.arguments

    def unpack(self, payload: msgspec.Raw) -> inspect.BoundArguments:
        """The arguments out of a frame. Raises BrokenFrame."""
        arguments = self.arguments.decode(payload)
        bound = self.signature.bind_partial()
        bound.arguments.update(msgspec.structs.asdict(arguments))
        return bound


def event_frame(number: int, event: object) -> tuple[str, bytes]:
    """What came of a request: its kind, and the frame."""
    column = None
    if isinstance(event, ColumnEvent):
        # A union of dataclasses inside one can't be told apart, so the frame tells of the column.
        column, event = event.column, event.event
    kind = type(event).__name__
    return kind, encode(number, kind, event, column)


def read_event(call: Call, frame: Frame) -> object:
    """What came of a call. Raises BrokenFrame."""
    if (decoder := call.events.get(frame.kind)) is None:
        raise BrokenFrame(f"{frame.kind!r} is no event of {call.name}")
    event = decoder.decode(frame.payload)
    return event if frame.column is None else ColumnEvent(frame.column, event)


def _call(name: str, method: Any) -> Call:
    hints = typing.get_type_hints(method)
    signature = inspect.signature(method)
    reports = "on_progress" in signature.parameters
    parameters = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "on_progress")
    ]
    fields: list[tuple[str, Any]] = [(one.name, one.annotation) for one in parameters]
    returns = hints["return"]
    stream = typing.get_origin(returns) or returns
    is_stream = Running in stream.__mro__
    if is_stream or reports:
        worker = Worker.MODEL
    elif any(kind in (ReplyStep, WrittenReply) for _, kind in fields):
        worker = Worker.INSPECTION
    else:
        worker = Worker.TOKENIZER
    return Call(
        name=name,
        signature=signature.replace(parameters=parameters),
        arguments=msgspec.msgpack.Decoder(msgspec.defstruct(name, fields)),
        returns=stream,
        answer=None if is_stream else msgspec.msgpack.Decoder(returns),
        events={
            kind.__name__: msgspec.msgpack.Decoder(kind)
            for kind in (_events(returns) if is_stream else (Progress,))
        },
        worker=worker,
    )


def _events(stream: Any) -> Sequence[type]:
    """The classes of events of a stream: of `Running[X | Y]`, or of a Protocol that extends it."""
    if not (union := typing.get_args(stream)):
        (running,) = (base for base in stream.__orig_bases__ if typing.get_args(base))
        union = typing.get_args(running)
    kinds = [kind for one in union for kind in (typing.get_args(one) or (one,))]
    inside = typing.get_args(typing.get_type_hints(ColumnEvent)["event"])
    return [kind for one in kinds for kind in (inside if one is ColumnEvent else (one,))]


def _methods(*protocols: type) -> dict[str, Call]:
    return {
        name: _call(name, method)
        for protocol in protocols
        for name, method in vars(protocol).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }


CALLS = _methods(Engine)
"""What can be asked of an engine, by the name of the method."""
del CALLS["close"]  # the process ends when its input does

STEERING = _methods(Running, Generation)
"""What changes work under way; of several replies a column, or all of them."""
