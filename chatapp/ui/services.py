"""What the interface is given: everything it needs from elsewhere, as one frozen value.

The command line builds the concrete objects; the interface knows only what stands here, so that
its tests need no engine, no database and no network.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from chatapp.chat.conversation import Conversation
from chatapp.chat.facts import LoadOptions, ModelSource, Report
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.template import NO_TEMPLATE, Template
from chatapp.session.session import Session
from chatapp.session.titles import TitleWriter
from chatapp.settings.presets import Presets
from chatapp.store.store import Store


class ModelState(Enum):
    """How far the model is."""

    NONE = auto()
    """None is loaded, and none will be unless the user asks."""
    FETCHING = auto()
    LOADING = auto()
    READY = auto()
    DEAD = auto()
    """It was loaded; its process ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOffer:
    """A model that has to be fetched before it can be used."""

    ref: str
    name: str
    description: str = ""
    size: int = 0
    """Bytes; 0 where it is not known before asking."""
    license: str = ""
    """Empty where it is not known before asking."""
    sources: tuple[str, ...] = ()
    """In words, tried in this order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """One line of the list of models."""

    ref: str
    """What the user writes to mean it."""
    name: str
    detail: str = ""
    """Format, size, licence: in one short line."""
    installed: bool = True
    problem: str = ""
    """Why it cannot be used; empty when it can."""
    is_repo: bool = False
    """Whether it is a repository of the Hub, one of whose files is to be chosen."""


class Models(Protocol):
    """Which models there are and how they arrive. Methods raise ModelError."""

    async def choices(self) -> Sequence[ModelChoice]:
        """Those on this machine, then those that could be fetched."""

    async def search(self, text: str) -> Sequence[ModelChoice]:
        """Repositories of the Hub that match a text; none where the network may not be used."""

    async def files(self, repo: str) -> Sequence[ModelChoice]:
        """The GGUF files of a repository, with what each would take here."""

    async def missing(self, ref: str) -> ModelOffer | None:
        """What would have to be fetched for that model; None when it is here."""

    async def obtain(self, ref: str, on_progress: Report) -> ModelSource:
        """Bring a model, fetching it where it has to be.

        Cancelling the task that awaits this stops the fetch. `on_progress` may be called from any
        thread.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything the interface works with."""

    session: Session
    models: Models
    presets: Presets
    """All parameters under a name."""
    sampling_for: Callable[[Template], SamplingParams]
    """What replies are drawn with in a chat made from a template. Raises PresetError."""
    save_template: Callable[[Template, SamplingParams], Path]
    """Keep one of the user's own for the next start; returns its file. Raises TemplateError."""
    save_setting: Callable[[str, object], None]
    """Keep a setting for the next start, by its name in the settings file. Raises ChatappError."""
    watch_engine: Callable[[Callable[[str], None]], None]
    """Called once with what is to be told, in words, when the engine ends unasked."""
    model: str
    """The reference of the model to load at the start."""
    load_options: LoadOptions = field(default_factory=LoadOptions)
    template: Template = NO_TEMPLATE
    """What new chats are made from at first."""
    templates: Mapping[str, Template] = field(default_factory=lambda: MappingProxyType({}))
    """By name."""
    formats: Sequence[str] = ("auto",)
    """The names of the prompt formats."""
    chats: Store | None = None
    """None where conversations are not kept."""
    export_chat: Callable[[Conversation, Path], Awaitable[None]] | None = None
    """Write a conversation to a file whose suffix says how. Raises ChatappError."""
    import_chat: Callable[[Path], Awaitable[str]] | None = None
    """Read a file into the store; returns the conversation's id. Raises ChatappError."""
    settings_file: str = ""
    """Where the settings are, to be named to the user."""
    theme: str = ""
    """One of Textual's themes; empty for its default."""
    titles: TitleWriter | None = None
    """Has the model title chats while it is idle; None leaves them their first words."""
    panel: str = "full"
    """How much the side panel tells at first: brief or full."""
    scale: str = "probability"
    """What the colours of tokens mean at first: one of `token_colours.SCALES`."""
    score_prompt_tokens: int = 0
    """How many tokens that no model wrote are scored by themselves after a reply, at most."""
    keys: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Other keys for actions, by the action's id (see Help)."""
    vim: bool = False
    """Whether texts are edited with Vim's keys at first."""
    notices: Sequence[str] = ()
    """What the user should know at once: a broken template file, say."""
    clock: Callable[[], float] = time.monotonic
    """Seconds, for speeds."""
