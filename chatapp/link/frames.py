"""Messages on the wire: MessagePack values, each behind its length in four bytes, little-endian."""

from __future__ import annotations

import struct

import msgspec

from chatapp.link import messages

DecodeError = msgspec.DecodeError
"""Bytes that are no message."""

LENGTH = struct.Struct("<I")
"""The frame's header: how many bytes follow."""

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[messages.Request] = msgspec.msgpack.Decoder(messages.Request)
_events: msgspec.msgpack.Decoder[messages.Event] = msgspec.msgpack.Decoder(messages.Event)


def frame(message: messages.Request | messages.Event) -> bytes:
    """A message as it goes over the wire."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def read_request(body: bytes) -> messages.Request:
    """A request out of a frame's body.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _requests.decode(body)


def read_event(body: bytes) -> messages.Event:
    """An event out of a frame's body.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _events.decode(body)
