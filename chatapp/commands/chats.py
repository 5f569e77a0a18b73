"""`chatapp chats`: the kept conversations, without a screen."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatapp.chat.errors import ChatappError, ImportFailed, UsageError
from chatapp.commands.options import add_json, add_subcommand, whole
from chatapp.commands.output import tell, write, write_private_file
from chatapp.commands.running import DONE

if TYPE_CHECKING:
    from chatapp.chat.conversation import Conversation
    from chatapp.store.formats.import_file import ImportedFile
    from chatapp.store.store import Store

_SHORT_ID = 8
_TITLE_WIDTH = 40


def add_parser(commands: Any) -> None:
    text = "list, search, show, export, import, delete chats"
    parser = add_subcommand(commands, "chats", run, text, "The kept conversations.")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, text: str, do: _Action) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
        added.set_defaults(do=do)
        return added

    found = action("list", "All conversations, the last changed first.", _list)
    found.add_argument("--deleted", action="store_true", help="the deleted ones instead")
    add_json(found)
    found = action("search", "Messages and titles that hold every word given.", _search)
    found.add_argument("words", nargs="+", metavar="WORD")
    found.add_argument("--limit", type=whole("limit", 1), default=50, metavar="N")
    add_json(found)
    found = action("show", "One conversation's current path, as Markdown.", _show)
    _add_id(found)
    add_json(found)
    found = action("export", "Write a conversation to a file, by the file's ending.", _export)
    found.add_argument("id", nargs="*", metavar="ID", help="the beginning of an id is enough")
    found.add_argument("--all", action="store_true", help="all conversations (json)")
    found.add_argument("-o", "--output", default="-", metavar="FILE", help="- is standard output")
    found.add_argument("--format", metavar="NAME", help="json, md, html, jsonl or csv")
    found.add_argument("--force", action="store_true", help="write over a file that is there")
    found = action(
        "import",
        "Bring in chatapp's JSON, OpenAI-style message lists, or ChatGPT's conversations.json.",
        _import,
    )
    found.add_argument("files", nargs="+", metavar="FILE", help="- is standard input")
    add_json(found)
    _add_id(action("delete", "Delete a conversation; recoverable for 30 days.", _delete))
    _add_id(action("undelete", "Bring a deleted conversation back.", _undelete))


def run(args: argparse.Namespace) -> int:
    return asyncio.run(_with_store(args))


async def _with_store(args: argparse.Namespace) -> int:
    from chatapp.settings.paths import default_paths
    from chatapp.store.store import Store

    store = await Store.open(default_paths().database)
    try:
        for notice in store.notices:
            tell(notice)
        do: _Action = args.do
        return await do(store, args)
    finally:
        await store.close()


async def _list(store: Store, args: argparse.Namespace) -> int:
    found = await store.list_conversations(deleted=args.deleted)
    if args.json:
        _write_json([dataclasses.asdict(summary) for summary in found])
        return DONE
    if not found:
        tell("no conversation was deleted" if args.deleted else "no conversation is kept yet")
    for summary in found:
        title = _one_line(summary.title or summary.first_words or "(empty)")
        pinned = "*" if summary.pinned else " "
        write(
            f"{summary.id[:_SHORT_ID]} {pinned} {_date(summary.deleted or summary.changed)} "
            f"{summary.messages:>5}  {title:<{_TITLE_WIDTH}}  {summary.model}".rstrip()
        )
    return DONE


async def _search(store: Store, args: argparse.Namespace) -> int:
    hits = await store.search(" ".join(args.words), args.limit)
    if args.json:
        _write_json([dataclasses.asdict(hit) for hit in hits])
    else:
        for hit in hits:
            title = _one_line(hit.title or "(no title)")
            write(f"{hit.conversation_id[:_SHORT_ID]}  {_date(hit.created)}  {title}")
            if hit.message_id is not None:
                write(f"    {hit.role}: {hit.snippet}")
    if not hits:
        tell("no message or title has these words")  # an answer, not a failure
    return DONE


async def _show(store: Store, args: argparse.Namespace) -> int:
    from chatapp.store.formats.export_file import EXPORT_FORMATS, export_text

    conversation = await store.load(await store.resolve(args.id))
    form = EXPORT_FORMATS["json" if args.json else "md"]
    write(export_text([conversation], form), end="")
    return DONE


async def _export(store: Store, args: argparse.Namespace) -> int:
    from chatapp.store.formats.export_file import export_text, find_export_format

    if bool(args.id) == args.all:
        raise UsageError("name the conversations to export, or give --all")
    to_file = args.output != "-"
    usual = "json" if args.all or len(args.id) > 1 else "md"  # only json holds several
    form = find_export_format(args.format or (args.output if to_file else usual))
    if args.all:
        ids = [summary.id for summary in await store.list_conversations()]
    else:
        ids = [await store.resolve(prefix) for prefix in args.id]
    conversations: list[Conversation] = [await store.load(id_) for id_ in ids]
    text = export_text(conversations, form)
    if to_file:
        way_out = "give another name, or --force"
        write_private_file(Path(args.output), text, force=args.force, way_out=way_out)
        tell(f"wrote {len(conversations)} conversation(s) to {args.output}")
    else:
        write(text, end="")
    return DONE


def imported(name: object, data: bytes) -> ImportedFile:
    """The conversations of a file that is called so. Raises ImportFailed, which names it."""
    from chatapp.store.formats.import_file import import_text

    try:
        return import_text(data, time.time())
    except ImportFailed as error:
        raise ImportFailed(f"{name} cannot be imported: {error}") from None


async def _import(store: Store, args: argparse.Namespace) -> int:
    # All of them first: where one is of no use, nothing is brought in.
    files = [(name, imported(name, _read_file(name))) for name in args.files]
    brought: list[dict[str, object]] = []
    for name, found in files:
        for conversation in found.conversations:
            outcome = await store.add(conversation)
            brought.append({"id": outcome.id, "title": conversation.title, "new": outcome.new})
            if not args.json:
                was = "imported" if outcome.new else "here already"
                write(f"{outcome.id[:_SHORT_ID]}  {was}  {_one_line(conversation.title)}")
        if found.left_out:
            tell(f"{name}: left out, as no text of the user or a model: {found.left_out}")
    if args.json:
        _write_json(brought)
    return DONE


async def _delete(store: Store, args: argparse.Namespace) -> int:
    conversation_id = await store.resolve(args.id)
    await store.delete(conversation_id)
    tell(f"deleted; `chatapp chats undelete {conversation_id[:_SHORT_ID]}` brings it back")
    return DONE


async def _undelete(store: Store, args: argparse.Namespace) -> int:
    conversation_id = await store.resolve(args.id, deleted=True)
    await store.undelete(conversation_id)
    tell(f"{conversation_id[:_SHORT_ID]} is back")
    return DONE


_Action = Callable[["Store", argparse.Namespace], Awaitable[int]]


def _add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the beginning of it is enough")


def _read_file(name: str) -> bytes:
    if name == "-" and sys.stdin is None:
        raise ChatappError("standard input is closed; there is nothing to import")
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise ChatappError(f"{name} cannot be read: {error.strerror}") from None


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TITLE_WIDTH else line[: _TITLE_WIDTH - 1] + "…"


def _write_json(value: object) -> None:
    write(json.dumps(value, ensure_ascii=False, indent=1))
