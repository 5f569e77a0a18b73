"""What the model is asked to read: turns, a system text and a format, before they become ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chatapp.chat.thinking import Thinking

Bytes = bytes
"""The built-in type, by a name that a field called `bytes` does not hide."""

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the conversation as the model is to read it."""

    role: Role
    text: str
    ids: tuple[int, ...] | None = None
    """The exact token ids of a reply the same model wrote; they are read in place of the text."""


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """How turns become text.

    `auto` is the model's own chat template, or `source` where the model has none; `model` is the
    model's own or an error; any other name uses `source`.
    """

    name: str = "auto"
    source: str = ""
    """A Jinja template over `messages` and `add_generation_prompt`; may set a list `stop`."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Everything that shapes the text the model reads."""

    system: str
    turns: tuple[Turn, ...]
    format: PromptFormat = PromptFormat()
    continue_reply: bool = False
    """The last turn is an unfinished reply: go on from its exact end, without a new turn."""
    ids: tuple[int, ...] | None = None
    """Exactly what is read, as a recorded reply tells it; the rest then counts for nothing."""
    moment: float | None = None
    """What time it is for a format that writes it, in seconds since the epoch: a conversation has
    one, so that what was read stays what it was. None is the present."""
    think: bool | None = None
    """Whether the model is to think first, for a format that can say so; None lets it choose."""


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """One token of a text: its id, its exact bytes, and whether it is a control token."""

    id: int
    token: str
    """The bytes as text, with what is not valid UTF-8 written as \\xNN."""
    bytes: Bytes
    control: bool = False


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """The exact text and tokens the model reads."""

    format: str
    """Which format made it; under `auto`, the one that was picked."""
    text: str
    tokens: tuple[TokenPiece, ...]
    stop: tuple[str, ...] = ()
    """Stop sequences the format itself asks for."""
    note: str = ""
    """What had to be bent, in words: a system text the model's template refuses, say."""
    thinking: Thinking | None = None
    """How a reply to it marks its thinking, and whether that begins in the prompt."""
