"""A disk that forgets what was not synced: every write that SQLite makes is written down.

SQLite reaches its files through a "VFS", a table of functions (https://www.sqlite.org/vfs.html).
`recorded` puts one of its own in front of the usual one, which keeps a list of all writes,
truncations and syncs. `after_power_cut` makes of a beginning of that list the files as a disk may
hold them when the power fails there: all that was synced, and of the rest whatever it happened to
have written, even half a write.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import random
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECTOR = 512
"""A disk writes these whole."""

_File = ctypes.c_void_p


class _Methods(ctypes.Structure):
    """sqlite3_io_methods; those that are passed on are only pointers here."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("close", ctypes.c_void_p),
        ("read", ctypes.c_void_p),
        ("write", ctypes.c_void_p),
        ("truncate", ctypes.c_void_p),
        ("sync", ctypes.c_void_p),
        ("others", ctypes.c_void_p * 13),
    )


class _Vfs(ctypes.Structure):
    """sqlite3_vfs, of version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_size", ctypes.c_int),
        ("longest_path", ctypes.c_int),
        ("following", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("open", ctypes.c_void_p),
        ("delete", ctypes.c_void_p),
        ("others", ctypes.c_void_p * 13),
    )


# SQLite keeps the pointer to a path that it opens a file with, so that must be passed on as it is.
_Open = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, _File, ctypes.c_int, ctypes.c_void_p
)
_Delete = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
_Write = ctypes.CFUNCTYPE(ctypes.c_int, _File, ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong)
_Truncate = ctypes.CFUNCTYPE(ctypes.c_int, _File, ctypes.c_longlong)
_Sync = ctypes.CFUNCTYPE(ctypes.c_int, _File, ctypes.c_int)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done to a file, or that the program said."""

    file: str
    """The file's name; empty for what was said."""
    data: bytes | None = None
    """What was written, where it was a write."""
    place: int = 0
    """Where it was written, or the length that the file was cut to."""
    synced: bool = False
    deleted: bool = False
    said: Any = None


class Recorder:
    """A VFS that writes down what it is asked for, and has the usual one do it."""

    def __init__(self, name: str = "recorder") -> None:
        """Register it.

        Raises:
            OSError: the SQLite that Python uses cannot be reached from here.
        """
        self.steps: list[Step] = []
        self.name = name
        library = ctypes.CDLL(ctypes.util.find_library("sqlite3") or "libsqlite3.so.0")
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        library.sqlite3_vfs_find.argtypes = (ctypes.c_char_p,)
        self._library = library
        self._usual = library.sqlite3_vfs_find(None).contents
        self._names: dict[int, str] = {}
        self._tables: dict[int, _Methods] = {}
        self._kept: list[object] = []  # callbacks must live as long as SQLite may call them
        self._vfs = _Vfs.from_buffer_copy(self._usual)
        self._vfs.name = name.encode()
        self._vfs.open = self._pointer(_Open(self._open))
        self._vfs.delete = self._pointer(_Delete(self._delete))
        library.sqlite3_vfs_register(ctypes.byref(self._vfs), 0)
        try:
            sqlite3.connect(f"file::memory:?vfs={name}", uri=True).close()
        except sqlite3.OperationalError as error:
            raise OSError(str(error)) from error

    def connect(self, path: Path) -> sqlite3.Connection:
        """A connection that is recorded."""
        return sqlite3.connect(
            f"{path.as_uri()}?vfs={self.name}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )

    def unregister(self) -> None:
        """Take it away again."""
        self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))

    def _pointer(self, callback: Any) -> int | None:
        self._kept.append(callback)
        return ctypes.cast(callback, ctypes.c_void_p).value

    def _open(self, _: int, path: int | None, file: int, flags: int, told: int) -> int:
        code = _Open(self._usual.open)(ctypes.addressof(self._vfs), path, file, flags, told)
        if code == sqlite3.SQLITE_OK and path is not None:
            methods = ctypes.cast(file, ctypes.POINTER(ctypes.c_void_p))
            self._names[file] = _name(path)
            methods[0] = ctypes.addressof(self._recorded(methods[0] or 0))
        return code

    def _recorded(self, usual: int) -> _Methods:
        """The usual functions of a file with three of them recorded."""
        if usual not in self._tables:
            before = _Methods.from_address(usual)
            table = _Methods.from_buffer_copy(before)
            write, truncate = _Write(before.write), _Truncate(before.truncate)
            sync = _Sync(before.sync)

            def on_write(file: int, data: int, count: int, place: int) -> int:
                raw = ctypes.string_at(data, count)
                self.steps.append(Step(self._names[file], data=raw, place=place))
                return int(write(file, data, count, place))

            def on_truncate(file: int, size: int) -> int:
                self.steps.append(Step(self._names[file], place=size))
                return int(truncate(file, size))

            def on_sync(file: int, flags: int) -> int:
                self.steps.append(Step(self._names[file], synced=True))
                return int(sync(file, flags))

            table.write = self._pointer(_Write(on_write))
            table.truncate = self._pointer(_Truncate(on_truncate))
            table.sync = self._pointer(_Sync(on_sync))
            self._tables[usual] = table
        return self._tables[usual]

    def _delete(self, _: int, path: int, sync_folder: int) -> int:
        self.steps.append(Step(_name(path), deleted=True))
        return int(_Delete(self._usual.delete)(ctypes.addressof(self._vfs), path, sync_folder))


def _name(path: int) -> str:
    return Path(ctypes.string_at(path).decode()).name


def after_power_cut(
    before: Mapping[str, bytes], steps: Sequence[Step], survives: Callable[[], bool]
) -> dict[str, bytes]:
    """The files as a disk may hold them when the power fails behind these steps.

    Args:
        before: the files as they were, all of it synced.
        steps: what was done to them since.
        survives: whether some sector that was written and not synced is on the disk.
    """
    files = {name: bytearray(data) for name, data in before.items()}
    for name in {step.file for step in steps if step.file}:
        mine = [step for step in steps if step.file == name]
        synced = max((at for at, step in enumerate(mine) if step.synced), default=-1)
        for at, step in enumerate(mine):
            _apply(files, step, (lambda: True) if at < synced else survives)
    return {name: bytes(data) for name, data in files.items()}


def _apply(files: dict[str, bytearray], step: Step, survives: Callable[[], bool]) -> None:
    if step.synced:
        return
    if step.data is None:
        if survives():
            if step.deleted:
                files.pop(step.file, None)
            else:
                del files.setdefault(step.file, bytearray())[step.place :]
        return
    content = files.setdefault(step.file, bytearray())
    start = step.place
    while start < step.place + len(step.data):
        end = min((start // SECTOR + 1) * SECTOR, step.place + len(step.data))
        if survives():
            content.extend(bytes(max(0, end - len(content))))
            content[start:end] = step.data[start - step.place : end - step.place]
        start = end


def some(rng: random.Random, share: float) -> Callable[[], bool]:
    """Survives with that probability."""
    return lambda: rng.random() < share
