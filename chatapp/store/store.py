"""The store as the session and the interface use it: nothing here ever blocks the event loop.

One thread of the store's own holds the connection and does everything in the order it was asked
for. A call that is cancelled is still carried out. The thread is joined when the program ends, so
that a write under way is finished. What could not be written `Chats` holds on to.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from chatapp.chat.conversation import Conversation
from chatapp.chat.errors import StoreError
from chatapp.store.backups import Backups
from chatapp.store.chats import Chats
from chatapp.store.database import Connect, DamagedDatabase, Database, connect, prepare_file
from chatapp.store.recovery import find_damage, mark_damaged, opening, recover

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _in_turn(
    function: Callable[Concatenate[Chats, _P], _T], *, settle: bool = True
) -> Callable[Concatenate[Store, _P], Coroutine[Any, Any, _T]]:
    """Have the store's thread do what `Chats` does; what could not be written is tried first."""

    async def run(store: Store, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        def work() -> _T:
            if settle:
                with contextlib.suppress(StoreError):
                    store._chats.settle()
            return function(store._chats, *args, **kwargs)

        return await store._run(work)

    return run


class Store:
    """All conversations on disk. Every method raises StoreError; `Chats` says what each does."""

    def __init__(self, chats: Chats, worker: ThreadPoolExecutor, notices: tuple[str, ...]) -> None:
        """Use `Store.open`."""
        self.notices = notices
        """What the user should know: a damaged file was set aside, say."""
        self.lost = ""
        """Once it is closed: what could not be written; empty where all was."""
        self._chats = chats
        self._worker = worker
        path = chats.database.path
        self._backups = None if self.read_only else Backups(path, lambda: mark_damaged(path))

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        make_connection: Connect = connect,
    ) -> Store:
        """Open the database, made where there is none, recovered where it is damaged.

        Raises StoreError: the folder or the file cannot be made, read or recovered.
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
        return self._chats.database.read_only

    save_conversation = _in_turn(Chats.save_conversation, settle=False)
    save_message = _in_turn(Chats.save_message, settle=False)
    append = _in_turn(Chats.append, settle=False)
    latest = _in_turn(Chats.latest)
    list_conversations = _in_turn(Chats.list_conversations)
    search = _in_turn(Chats.search, settle=False)
    rename = _in_turn(Chats.rename)
    pin = _in_turn(Chats.pin)
    duplicate = _in_turn(Chats.duplicate)
    delete = _in_turn(Chats.delete)
    undelete = _in_turn(Chats.undelete)
    resolve = _in_turn(Chats.resolve, settle=False)
    add = _in_turn(Chats.add)
    _load = _in_turn(Chats.load)

    async def load(self, conversation_id: str) -> Conversation:
        loaded = await self._load(conversation_id)
        if loaded.notice and loaded.notice not in self.notices:
            self.notices = (*self.notices, loaded.notice)
        return loaded.conversation

    async def close(self) -> None:
        """Write what is left and let go of the file; a second call does nothing."""
        try:
            await self._run(self._end)
        except StoreError:
            return  # closed already
        self._worker.shutdown(wait=True)

    def _end(self) -> None:
        try:
            self._chats.settle()
        except StoreError as error:
            lost = f"; the last messages of {self._chats.unwritten} conversation(s) are lost"
            self.lost = str(error) + (lost if self._chats.unwritten else "")
        self._chats.database.close()
        if self._backups is not None:
            self._backups.stop()

    async def _run(self, function: Callable[[], _T]) -> _T:
        try:
            done = asyncio.get_running_loop().run_in_executor(self._worker, function)
        except RuntimeError:
            raise StoreError("the store is closed") from None
        try:
            return await asyncio.shield(done)
        except DamagedDatabase:
            mark_damaged(self._chats.database.path)
            raise


def _open_chats(
    path: Path, clock: Callable[[], float], make_connection: Connect
) -> tuple[Chats, tuple[str, ...]]:
    is_new = not path.exists()  # who took the file away wants to begin anew
    prepare_file(path)
    notices: tuple[str, ...] = ()
    with opening(path):
        if not is_new and find_damage(path):
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
