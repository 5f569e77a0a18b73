"""`chatapp` without a command: the terminal interface."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from chatapp.chat.errors import ChatappError
from chatapp.chat.facts import Report
from chatapp.commands.chats import imported
from chatapp.commands.options import add_generation_options, add_resume
from chatapp.commands.output import tell, write_private_file

if TYPE_CHECKING:
    from chatapp.chat.conversation import Conversation
    from chatapp.chat.facts import ModelSource
    from chatapp.commands.setup import Setup
    from chatapp.store.store import Store
    from chatapp.ui.app import ChatApp
    from chatapp.ui.services import ModelChoice, ModelOffer

LATEST = "latest"
"""In place of an id: the conversation that changed last."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the interface's options to the top of the command line."""
    add_generation_options(parser)
    add_resume(parser, "resume the last conversation", "resume that conversation")
    parser.set_defaults(latest=False, resume=None)


def run(args: argparse.Namespace) -> NoReturn:
    from chatapp.commands.setup import Setup

    if not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
        raise ChatappError("the interface needs a terminal; for pipes there is: chatapp ask PROMPT")
    asyncio.run(_run(Setup.from_args(args), args))


async def _run(setup: Setup, args: argparse.Namespace) -> NoReturn:
    wanted = args.resume if args.resume else LATEST if args.latest else None
    async with interface(setup, wanted) as app:
        # Records come by the thousand, in no cycles: looking for some took a fifth of the time that
        # a streaming reply cost this process, and held back keys for a tenth of a second.
        gc.freeze()
        gc.set_threshold(100_000, 20, 100)
        await app.run_async()
    # All is kept. A thread that still waits for a server or a disk would be waited for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(app.return_code or 0)


@asynccontextmanager
async def interface(setup: Setup, resume: str | None = None) -> AsyncIterator[ChatApp]:
    """The interface over the real engine and store, ready to run; both are ended behind it.

    `resume`: how the id of the conversation to open begins; LATEST for the last one.
    """
    from chatapp.commands.setup import open_conversation, open_store
    from chatapp.link.client import EngineClient
    from chatapp.session.titles import TitleWriter
    from chatapp.settings.config import save_setting
    from chatapp.settings.library import save_template
    from chatapp.settings.presets import Presets
    from chatapp.ui.app import ChatApp
    from chatapp.ui.services import Services

    store = await open_store(setup.paths)
    engine = EngineClient.at(setup.paths)

    def watch_engine(tell: Callable[[str], None]) -> None:
        engine.on_death = tell

    try:
        session = setup.make_session(engine, store)
        if resume is not None:
            await open_conversation(session, None if resume == LATEST else resume)
            setup.change_as_flagged(session)
        yield ChatApp(
            Services(
                session=session,
                models=ModelsOfSetup(setup),
                model=setup.model,
                load_options=setup.settings.load_options,
                template=setup.template,
                templates=setup.templates.by_name,
                save_template=partial(save_template, setup.paths),
                sampling_for=setup.sampling_for,
                formats=tuple(setup.formats.by_name),
                chats=store,
                export_chat=_export,
                import_chat=partial(_import, store),
                watch_engine=watch_engine,
                save_setting=partial(save_setting, setup.paths),
                settings_file=str(setup.paths.config_file),
                theme=setup.settings.theme,
                presets=Presets(setup.paths.presets),
                titles=TitleWriter(session, setup.formats.named)
                if setup.settings.titles == "model"
                else None,
                scale=setup.settings.scale,
                panel=setup.settings.panel,
                score_prompt_tokens=setup.settings.score_prompt_tokens,
                keys=setup.settings.keys,
                vim=setup.settings.vim,
                notices=(*setup.notices, *store.notices),
            )
        )
    finally:
        await engine.close()
        await store.close()
        if store.lost:
            tell(store.lost)


class ModelsOfSetup:
    """Which models there are and how they arrive; implements `chatapp.ui.services.Models`."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    async def choices(self) -> Sequence[ModelChoice]:
        return await asyncio.to_thread(self._choices)

    async def search(self, text: str) -> Sequence[ModelChoice]:
        from chatapp.chat.numbers import count
        from chatapp.models import hub
        from chatapp.ui.services import ModelChoice

        if self._setup.settings.offline:
            return ()
        found = await asyncio.to_thread(hub.search, text)
        return [
            ModelChoice(
                ref=one.repo,
                name=one.repo,
                detail=f"on the Hub · {count(one.downloads)} downloads this month",
                installed=False,
                is_repo=True,
            )
            for one in found
        ]

    async def files(self, repo: str) -> Sequence[ModelChoice]:
        from chatapp.models.fitting import fit, machine
        from chatapp.models.installed import repo_files
        from chatapp.ui.services import ModelChoice

        this = await asyncio.to_thread(machine)
        context = self._setup.settings.context_length
        return [
            ModelChoice(
                ref=entry.id,
                name=entry.name,
                detail=fit(entry, "gguf", this, context).words,
                installed=False,
            )
            for entry in await asyncio.to_thread(repo_files, repo)
        ]

    async def missing(self, ref: str) -> ModelOffer | None:
        from chatapp.models import missing
        from chatapp.ui.services import ModelOffer

        if self._setup.server(ref) is not None:
            return None
        entry = await asyncio.to_thread(missing, ref, self._setup.paths)
        if entry is None:
            return None
        return ModelOffer(
            ref=entry.id,
            name=entry.name,
            description=entry.description,
            size=entry.size,
            license=entry.license,
            sources=tuple(str(source) for source in entry.sources),
        )

    async def obtain(self, ref: str, on_progress: Report) -> ModelSource:
        return await self._setup.bring(ref, on_progress)

    def _choices(self) -> list[ModelChoice]:
        from chatapp.models.fitting import fit, machine
        from chatapp.models.installed import fetchable, installed
        from chatapp.ui.services import ModelChoice

        settings, this = self._setup.settings, machine()
        here = installed(self._setup.paths, settings.model_folders)
        found = []
        for model in here:
            parts = [model.weight_format]
            if model.facts:
                parts.append(fit(model.facts, model.kind, this, settings.context_length).words)
            if model.origin != "chatapp":
                parts.append(model.origin)
            found.append(
                ModelChoice(
                    ref=model.ref,
                    name=model.name,
                    detail=" · ".join(parts),
                    problem=model.problem,
                )
            )
        found += [
            ModelChoice(ref=name, name=name, detail=f"{server.path} {server.name}")
            for name, server in self._setup.settings.servers.items()
        ]
        for entry in fetchable(here):
            told = fit(entry, entry.kind, this, settings.context_length).words
            parts = [entry.weight_format, told, entry.license, entry.description]
            detail = " · ".join(filter(None, parts))
            found.append(ModelChoice(ref=entry.id, name=entry.name, detail=detail, installed=False))
        return found


async def _export(conversation: Conversation, file: Path) -> None:
    """Write a conversation to a file; the suffix says how. Raises ChatappError."""
    from chatapp.store.formats.export_file import export_text, find_export_format

    text = export_text([conversation], find_export_format(file.name))
    await asyncio.to_thread(write_private_file, file, text)


def _read_whole(file: Path) -> bytes:
    """A regular file's bytes; a device or a pipe could go on for ever. Raises ChatappError."""
    if file.exists() and not file.is_file():
        raise ChatappError(f"{file} is no regular file")
    return file.read_bytes()


async def _import(store: Store, file: Path) -> str:
    """Bring the conversations of a file in. Returns the id of the last one. Raises ChatappError."""
    try:
        data = await asyncio.to_thread(_read_whole, file)
    except OSError as error:
        raise ChatappError(f"cannot read {file}: {error.strerror}") from None
    added = [await store.add(conversation) for conversation in imported(file, data).conversations]
    return added[-1].id
