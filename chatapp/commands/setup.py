"""Builds the concrete objects that a command works with, out of flags, settings and files.

This is the one place where the session meets the real engine, the real store and the real models;
everything below it knows them as Protocols.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from chatapp.chat.errors import ModelError, StoreError, UsageError
from chatapp.chat.facts import ModelSource, Report
from chatapp.chat.sampling import PARAMETERS, SamplingParams
from chatapp.chat.template import Template, TemplateError
from chatapp.chat.thinking import THINK
from chatapp.commands.options import flags_given
from chatapp.commands.output import tell
from chatapp.commands.progress import ProgressLine
from chatapp.link.client import EngineClient
from chatapp.models import DEFAULT, obtain
from chatapp.session.protocols import ChatStore, Engine
from chatapp.session.session import Session
from chatapp.settings.config import ConfigError, Settings, load_settings, with_flags
from chatapp.settings.library import Formats, Templates, load_formats, load_templates
from chatapp.settings.paths import Paths, default_paths
from chatapp.settings.presets import Presets, with_preset
from chatapp.settings.servers import is_local, server_source

if TYPE_CHECKING:
    from chatapp.store.store import Store


@dataclass(frozen=True, slots=True)
class Setup:
    """What was asked for, read and checked; nothing is started yet."""

    paths: Paths
    settings: Settings
    templates: Templates
    formats: Formats
    template: Template
    """What new conversations are made from, with what the flags change of it."""
    flags: Mapping[str, object]
    """What was given on the command line, by the setting's name."""

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> Self:
        """Read settings and files. Raises ChatappError for what cannot be used."""
        paths = default_paths()
        flags = flags_given(args)
        settings = load_settings(paths, os.environ, {})  # what is wrong here is no flag's fault
        templates, formats = load_templates(paths), load_formats(paths)
        try:
            settings = with_flags(settings, flags)
            template = templates.named(settings.template)
            if settings.format:
                template = replace(template, format=settings.format)
            if isinstance(system := flags.get("system"), str):
                template = replace(template, system=system)
            formats.named(template.format)  # said now, and not at the first reply
        except (ConfigError, TemplateError) as error:
            if flags.keys() & {"template", "format"} or isinstance(error, ConfigError):
                raise UsageError(str(error)) from None
            raise
        with_preset(template, Presets(paths.presets))  # likewise
        return cls(paths, settings, templates, formats, template, flags)

    def change_as_flagged(self, session: Session) -> None:
        """Let what the command line says hold in a conversation that is resumed."""
        given, template = self.flags.keys(), self.template
        changes: dict[str, Any] = {}
        if "template" in given:
            session.set_sampling(self.sampling_for(template))
            changes |= {"template": template.name, "stop": template.stop}
        if given & {"template", "system"}:
            changes["system"] = template.system
        if given & {"template", "format"}:
            changes["format"] = template.format
        if "think" in given:
            changes["think"] = THINK[self.settings.think]
        session.conversation = replace(session.conversation, **changes)
        numbers = {name: value for name, value in self.flags.items() if name in PARAMETERS}
        session.set_sampling(session.sampling.with_values(numbers))

    @property
    def model(self) -> str:
        return self.settings.model or DEFAULT

    @property
    def notices(self) -> tuple[str, ...]:
        return (*self.templates.problems, *self.formats.problems)

    def sampling_for(self, template: Template) -> SamplingParams:
        """What replies are drawn with in a chat made from a template. Raises PresetError."""
        presets = Presets(self.paths.presets)
        return self.settings.sampling_for(with_preset(template, presets))

    def make_session(
        self, engine: Engine, store: ChatStore | None, *, top_logprobs: int | None = None
    ) -> Session:
        """An empty conversation as the settings want it."""
        settings = self.settings
        return Session(
            engine,
            store,
            template=self.template,
            formats=self.formats.named,
            sampling=self.sampling_for(self.template),
            seed=settings.seed,
            max_tokens=settings.max_tokens,
            stop=settings.stop,
            think=THINK[settings.think],
            top_logprobs=settings.top_logprobs if top_logprobs is None else top_logprobs,
        )

    def server(self, ref: str) -> ModelSource | None:
        """The server that a model's reference means. Raises ModelError."""
        server = server_source(ref, self.settings.servers)
        if server is not None and self.settings.offline and not is_local(server.path):
            raise ModelError(f"offline: {ref} is not asked; leave out --offline, or choose a model")
        return server

    async def bring(self, ref: str, on_progress: Report) -> ModelSource:
        """The model's files, fetched where they have to be; or its server. Raises ModelError.

        Cancelling the task that awaits this stops the fetch; what came is kept for the next time.
        """
        if (server := self.server(ref)) is not None:
            return server
        stopped = threading.Event()
        try:
            return await asyncio.to_thread(
                obtain,
                ref,
                self.paths,
                offline=self.settings.offline,
                on_progress=on_progress,
                cancelled=stopped.is_set,
            )
        finally:
            stopped.set()

    @asynccontextmanager
    async def headless(
        self, *, keep: bool, top_logprobs: int | None = None
    ) -> AsyncIterator[Session]:
        """A session with its model loaded and progress on standard error; ended behind it.

        `top_logprobs`: how many candidates each record carries; None asks the settings.
        """
        for notice in self.notices:
            tell(notice)
        engine = EngineClient.at(self.paths)
        store = await open_store(self.paths) if keep else None
        try:
            with ProgressLine(sys.stderr) as line:
                source = await self.bring(self.model, line.update)
                session = self.make_session(engine, store, top_logprobs=top_logprobs)
                facts = await session.load_model(source, self.settings.load_options, line.update)
            if facts.note:
                tell(facts.note)
            yield session
        finally:
            await engine.close()
            if store is not None:
                await store.close()


async def open_store(paths: Paths) -> Store:
    """The user's conversations. Raises StoreError."""
    from chatapp.store.store import Store

    return await Store.open(paths.database)


async def open_conversation(session: Session, wanted: str | None) -> None:
    """Make a kept conversation current: the one whose id begins so, or the last one.

    Raises StoreError: there is none, or several.
    """
    store = session.store
    assert store is not None  # only a session that keeps its conversation continues one
    found = await store.latest() if wanted is None else await store.resolve(wanted)
    if found is None:
        raise StoreError("there is no conversation to continue yet; start one with: chatapp")
    await session.open(found)
