"""Whether a model of the catalog or the Hub is on this machine already, whole and as expected.

It is looked for among chatapp's own fetched models, then in the Hub's cache, where other programs
may have put it. Nothing here uses the network.

A file is read whole once to be hashed; the record of that holds as long as the file's size,
modification time and inode are those it was made with. Losing the records costs one more hashing,
nothing else; so writing them never fails a fetch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from chatapp.chat.errors import ModelError
from chatapp.chat.facts import ModelSource
from chatapp.models import hub
from chatapp.models.catalog import CatalogEntry, HubFile, HubFolder, WheelFile
from chatapp.models.errors import DamagedModel, RefusedModel, UnknownModel
from chatapp.models.gguf_file import check_gguf
from chatapp.models.safetensors_folder import check_folder
from chatapp.models.watch import Watch
from chatapp.settings.paths import PathError, Paths, write_file

_RECORDS = "verified.json"


def own_path(entry: CatalogEntry, paths: Paths) -> Path:
    """Where chatapp puts a model that it fetches."""
    return paths.models / entry.local_name


def leftovers(entry: CatalogEntry, paths: Paths) -> tuple[Path, ...]:
    """What a cut fetch of a model may have left: its parts, and the wheel it is taken from."""
    own = own_path(entry, paths)
    names = [f"{own.name}.part", f"{own.name}.parts"]
    for source in entry.sources:
        if isinstance(source, WheelFile):
            names += [wheel_name(source), f"{wheel_name(source)}.part"]
    return tuple(own.with_name(name) for name in names)


def wheel_name(source: WheelFile) -> str:
    """What a wheel is called while it is here."""
    return f"{source.package}-{source.version}.whl"


def find_local(entry: CatalogEntry, paths: Paths, watch: Watch | None = None) -> ModelSource | None:
    """The model as it lies on this machine; None when it has to be fetched.

    A file of the catalog is hashed once and then remembered.

    Raises:
        DamagedModel: chatapp's own copy is not what it should be. FetchStopped.
        ModelError: the folder of fetched models can't be looked into.
    """
    own = own_path(entry, paths)
    try:
        here = own.exists()
    except OSError as error:
        raise ModelError(f"cannot look at {own}: {error.strerror or error}") from None
    if here:
        try:
            return _checked(entry, own, paths, watch)
        except DamagedModel as error:
            cause = str(error).partition("; fetch or copy")[0]
            raise DamagedModel(
                f"{cause}; fetch it again with: chatapp models pull {entry.id}"
            ) from None
    for source in entry.sources:
        try:
            if isinstance(source, HubFile):
                found = hub.cached(source.repo, source.file, source.revision)
            elif isinstance(source, HubFolder):
                config = hub.cached(source.repo, "config.json", source.revision)
                found = config.parent if config else None
            else:
                continue
            if found is not None:
                return _checked(entry, found, paths, watch)
        except ModelError:
            continue  # half a model in the Hub's cache is no model; chatapp fetches its own
    return None


def find_whole(entry: CatalogEntry, paths: Paths, watch: Watch | None = None) -> ModelSource | None:
    """As `find_local`, but a copy that is of no use counts as none: it is to be fetched again."""
    try:
        return find_local(entry, paths, watch)
    except (DamagedModel, UnknownModel, RefusedModel):
        return None


def _checked(
    entry: CatalogEntry, path: Path, paths: Paths, watch: Watch | None
) -> ModelSource | None:
    """The model at a path, once its content was held against what is known of it."""
    if entry.kind == "folder":
        check_folder(path)
        return ModelSource(entry.name, str(path), "folder")
    sha256 = remembered_sha256(paths, path)
    if not sha256:
        check_gguf(path)
        if entry.sha256:
            sha256 = sha256_of_model(path, paths, watch)
    if entry.sha256 and sha256 != entry.sha256:
        raise DamagedModel(
            f"{path} is not the file it should be (expected SHA-256 {entry.sha256}, got {sha256})"
        )
    return ModelSource(entry.name, str(path), "gguf", sha256)


def sha256_of_model(path: Path, paths: Paths, watch: Watch | None = None) -> str:
    """The hash of a file: the remembered one, else read now and remembered.

    Raises:
        DamagedModel: it cannot be read. FetchStopped.
    """
    if sha256 := remembered_sha256(paths, path):
        return sha256
    try:
        sha256 = sha256_of(path, watch)
    except OSError as error:
        raise DamagedModel(f"cannot read {path}: {error.strerror or error}") from None
    remember(paths, path, sha256)
    return sha256


def sha256_of(path: Path, watch: Watch | None = None) -> str:
    """Hash a file, telling how far it is. Raises OSError, FetchStopped."""
    watch = watch or Watch()
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        total = os.fstat(stream.fileno()).st_size
        while chunk := stream.read(2**20):
            watch.check()
            digest.update(chunk)
            watch.bytes(f"checking {path.name}", stream.tell(), total)
    return digest.hexdigest()


def remembered_sha256(paths: Paths, file: Path) -> str:
    """The hash a file had when it was last read whole; empty when that is not known any more."""
    with contextlib.suppress(OSError):
        match _records(paths).get(str(file.resolve())):
            case {"sha256": str(sha256), "stamp": stamp} if stamp == _stamp(file):
                return sha256
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
        records = json.loads((paths.models / _RECORDS).read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return records if isinstance(records, dict) else {}


def _write(paths: Paths, records: dict[str, Any]) -> None:
    write_file(paths.models / _RECORDS, json.dumps(records, indent=1))
