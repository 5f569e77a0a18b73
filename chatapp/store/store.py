"""The store as the session and the interface use it: nothing here ever blocks the event loop.

One thread of the store's own holds the connection and does everything in the order it was asked
for. A call that is cancelled is still carried out. The thread is joined when the program ends, so
that a write under way is finished. What could not be written is held on to (`chatapp.store.owed`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from chatapp.chat.conversation import Conversation, Message
from chatapp.chat.errors import StoreError
from chatapp.chat.summary import ConversationSummary, SearchHit
from chatapp.store.chats import Chats, Imported
from chatapp.store.database import Connect, DamagedDatabase, Database, connect, prepare_file
from chatapp.store.owed import Owed
from chatapp.store.recovery import find_damage, mark_damaged, opening, recover

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Store:
    """All conversations on disk. Every method raises StoreError."""

    def __init__(self, chats: Chats, worker: ThreadPoolExecutor, notices: tuple[str, ...]) -> None:
        """Use `Store.open`."""
        self.notices = notices
        """What the person should know: a damaged file was set aside, say."""
        self.lost = ""
        """Once it is closed: what could not be written; empty where all was."""
        self._chats = chats
        self._owed = Owed(chats)
        self._worker = worker

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        make_connection: Connect = connect,
    ) -> Store:
        """Open the database, made where there is none, recovered where it is damaged.

        Args:
            path: the database file.
            clock: seconds since the epoch.
            make_connection: how to reach the file.

        Raises:
            StoreError: the folder or the file cannot be made, read or recovered.
        """
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        loop = asyncio.get_running_loop()
        try:
            chats, notices = await loop.run_in_executor(
                worker, _open_chats, path, clock, make_connection
            )
        except BaseException:
            worker.shutdown(wait=False)
            raise
        return cls(chats, worker, notices)

    @property
    def read_only(self) -> str:
        """Why nothing can be written; empty where it can."""
        return self._chats.database.read_only

    async def save_conversation(self, conversation: Conversation) -> None:
        """Save everything but the messages: settings, title, current leaf."""
        await self._run(self._owed.save_conversation, conversation)

    async def save_message(self, conversation_id: str, message: Message) -> None:
        """Save a message, in place of the one of the same id; on disk when this returns.

        Of a reply that has grown since the last call only the new records are written.
        """
        await self._run(self._owed.save_message, conversation_id, message)

    async def load(self, conversation_id: str) -> Conversation:
        """A conversation with all of its messages; token records are unpacked when looked at."""
        loaded = await self._settled(self._owed.load, conversation_id)
        if loaded.notice and loaded.notice not in self.notices:
            self.notices = (*self.notices, loaded.notice)
        return loaded.conversation

    async def latest(self) -> str | None:
        """The id of the conversation that changed last."""
        return await self._settled(self._chats.latest)

    async def list_conversations(self, *, deleted: bool = False) -> tuple[ConversationSummary, ...]:
        """All conversations, pinned ones first, then by when they changed; or the deleted ones."""
        return await self._settled(self._chats.list_conversations, deleted=deleted)

    async def search(self, text: str, limit: int = 50) -> tuple[SearchHit, ...]:
        """Titles and messages that hold every word of a text (the last may be unfinished).

        Titles come first, then messages, newest first; `limit` of each at most.
        """
        return await self._run(self._chats.search, text, limit)

    async def rename(self, conversation_id: str, title: str) -> None:
        """Give a conversation another title."""
        await self._settled(self._chats.rename, conversation_id, title)

    async def pin(self, conversation_id: str, pinned: bool = True) -> None:
        """Keep a conversation at the top of the list, or no longer."""
        await self._settled(self._chats.pin, conversation_id, pinned)

    async def duplicate(self, conversation_id: str) -> str:
        """Copy a conversation with all that belongs to it. Returns the copy's id."""
        return await self._settled(self._chats.duplicate, conversation_id)

    async def delete(self, conversation_id: str) -> None:
        """Put a conversation aside; `undelete` brings it back for 30 days."""
        await self._settled(self._chats.delete, conversation_id)
        await self._run(self._owed.forget, conversation_id)

    async def undelete(self, conversation_id: str) -> None:
        """Bring a deleted conversation back."""
        await self._settled(self._chats.undelete, conversation_id)

    async def resolve(self, prefix: str, *, deleted: bool = False) -> str:
        """The id of the one conversation (or deleted one) whose id begins so."""
        return await self._run(self._chats.resolve, prefix, deleted=deleted)

    async def add(self, conversation: Conversation) -> Imported:
        """Bring a whole conversation in, as an import does, in one transaction."""
        return await self._settled(self._chats.add, conversation)

    async def close(self) -> None:
        """Write what is left and let go of the file; a second call does nothing."""
        try:
            await self._run(self._end)
        except StoreError:
            return  # closed already
        self._worker.shutdown(wait=True)

    def _end(self) -> None:
        try:
            self._owed.settle()
        except StoreError as error:
            self.lost = f"{error}; the last messages of {len(self._owed)} conversation(s) are lost"
        self._chats.database.close()

    async def _settled(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Write what is owed, if that can be done, then do something else."""
        if len(self._owed):
            await self._run(self._owed.try_to_settle)
        return await self._run(function, *args, **kwargs)

    async def _run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        loop = asyncio.get_running_loop()
        try:
            done = loop.run_in_executor(self._worker, lambda: function(*args, **kwargs))
        except RuntimeError:
            raise StoreError("the store is closed") from None
        try:
            return await done
        except DamagedDatabase:
            mark_damaged(self._chats.database.path)
            raise


def _open_chats(
    path: Path, clock: Callable[[], float], make_connection: Connect
) -> tuple[Chats, tuple[str, ...]]:
    """Check, recover, migrate, purge."""
    prepare_file(path)
    notices: tuple[str, ...] = ()
    with opening(path):
        if find_damage(path):
            notices = (recover(path, clock),)
        try:
            database = Database(path, clock=clock, make_connection=make_connection)
        except DamagedDatabase:
            # quick_check does not see everything, and had only a moment.
            notices = (*notices, recover(path, clock))
            database = Database(path, clock=clock, make_connection=make_connection)
    chats = Chats(database, clock=clock)
    if database.read_only:
        return chats, (*notices, database.read_only)
    try:
        chats.purge()
    except StoreError as error:  # a full disk, say; the conversations can be read all the same
        notices = (*notices, str(error))
    return chats, notices
