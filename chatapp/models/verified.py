"""Which files were hashed already, so that a start need not read them whole again.

A record holds as long as the file's size, modification time and inode are those it was made with.
Losing the records costs one more hashing, nothing else; so writing them never fails a fetch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from chatapp.models.watch import Watch
from chatapp.settings.paths import PathError, Paths, write_file

_FILE = "verified.json"
_CHUNK = 2**20


def sha256_of(path: Path, watch: Watch | None = None) -> str:
    """Hash a file, telling how far it is. Raises OSError, FetchStopped."""
    watch = watch or Watch()
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        total = os.fstat(stream.fileno()).st_size
        while chunk := stream.read(_CHUNK):
            watch.check()
            digest.update(chunk)
            watch.bytes(f"checking {path.name}", stream.tell(), total)
    return digest.hexdigest()


def remembered_sha256(paths: Paths, file: Path) -> str:
    """The hash a file had when it was last read whole; empty when that is not known any more."""
    try:
        record = _records(paths).get(str(file.resolve()))
        if isinstance(record, dict) and record.get("stamp") == _stamp(file):
            sha256 = record.get("sha256")
            return sha256 if isinstance(sha256, str) else ""
    except OSError:
        pass
    return ""


def remember(paths: Paths, file: Path, sha256: str) -> None:
    """Keep the hash of a file that was just read whole."""
    with contextlib.suppress(OSError, PathError):
        records = _records(paths)
        records[str(file.resolve())] = {"sha256": sha256, "stamp": _stamp(file)}
        _write(paths, records)


def forget(paths: Paths, file: Path) -> None:
    """Drop the record of a file that is gone."""
    with contextlib.suppress(OSError):
        records = _records(paths)
        if records.pop(str(file.resolve()), None) is not None:
            _write(paths, records)


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _records(paths: Paths) -> dict[str, Any]:
    try:
        records = json.loads((paths.models / _FILE).read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return records if isinstance(records, dict) else {}


def _write(paths: Paths, records: dict[str, Any]) -> None:
    write_file(paths.models / _FILE, json.dumps(records, indent=1))
