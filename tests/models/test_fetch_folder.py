"""Fetching a whole repository: what is taken of it, what is refused, what a cut leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatapp.chat.errors import FetchError
from chatapp.chat.facts import Progress
from chatapp.models import obtain, resolve
from chatapp.models.catalog import hub_entry
from chatapp.models.errors import FetchStopped
from chatapp.models.fetch import fetch
from chatapp.models.safetensors_folder import SINGLE
from chatapp.settings.paths import Paths
from tests.models.samples import folder_files, gguf_bytes, sharded, write_folder
from tests.models.server import COMMIT, Server

REPO = "tiny/Tiny"
WANTED = {"config.json", "tokenizer.json", "tokenizer_config.json", SINGLE}


@pytest.fixture
def files(server: Server) -> dict[str, bytes]:
    server.repos[REPO] = folder_files(rows=8192)
    return server.repos[REPO]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_whole(server: Server, files: dict[str, bytes], paths: Paths) -> None:
    seen: list[Progress] = []
    source = obtain(REPO, paths, on_progress=seen.append)
    assert (source.name, source.kind) == ("Tiny", "folder")
    folder = Path(source.path)
    assert folder == paths.models / "tiny--Tiny"
    assert names(folder) == WANTED  # no pickle, no code, nothing of other folders
    assert all((folder / name).read_bytes() == files[name] for name in WANTED)
    total = sum(len(files[name]) for name in WANTED)
    assert seen[-1] == Progress("fetching from the Hub", total, total, "bytes")
    assert resolve(REPO, paths) == source
    server.asked.clear()
    assert obtain(REPO, paths, offline=True) == source
    assert server.asked == []


def test_empty_side_file(server: Server, files: dict[str, bytes], paths: Paths) -> None:
    files["merges.txt"] = b""
    assert names(Path(obtain(REPO, paths).path)) == WANTED | {"merges.txt"}


def test_one_commit_throughout(server: Server, files: dict[str, bytes], paths: Paths) -> None:
    obtain(REPO, paths)
    fetched = [one.path for one in server.asked if "/resolve/" in one.path]
    assert all(f"/resolve/{COMMIT}/" in path for path in fetched)
    assert len(fetched) == len(WANTED)


def test_shards(server: Server, paths: Paths) -> None:
    server.repos[REPO] = sharded(folder_files()) | {"consolidated.safetensors": b"the same again"}
    folder = Path(obtain(REPO, paths).path)
    assert "consolidated.safetensors" not in names(folder)
    assert len(names(folder)) == 6


def test_cut_and_taken_up(server: Server, files: dict[str, bytes], paths: Paths) -> None:
    server.manner(SINGLE).cut_after = [100_000] + [0] * 10
    with pytest.raises(FetchError, match=f"{SINGLE}: "):
        obtain(REPO, paths)
    assert not (paths.models / "tiny--Tiny").exists()
    server.manner(SINGLE).cut_after.clear()
    server.asked.clear()
    folder = Path(obtain(REPO, paths).path)
    assert (folder / SINGLE).read_bytes() == files[SINGLE]
    assert [one.range for one in server.bodies()] == ["bytes=100000-"]


def test_stop(server: Server, files: dict[str, bytes], paths: Paths) -> None:
    seen: list[Progress] = []
    with pytest.raises(FetchStopped):
        fetch(
            hub_entry(REPO),
            paths,
            on_progress=seen.append,
            cancelled=lambda: bool(seen) and seen[-1].done > 50_000,
        )
    assert not (paths.models / "tiny--Tiny").exists()
    assert (paths.models / "tiny--Tiny.parts").is_dir()
    obtain(REPO, paths)
    assert not (paths.models / "tiny--Tiny.parts").exists()


def test_what_another_revision_left_goes(
    server: Server, files: dict[str, bytes], paths: Paths
) -> None:
    write_folder(paths.models / "tiny--Tiny.parts", {"old.json": b"{}", SINGLE: b"old"})
    folder = Path(obtain(REPO, paths).path)
    assert names(folder) == WANTED


@pytest.mark.parametrize("name", [SINGLE, "config.json"])
def test_wrong_bytes_are_refused(
    server: Server, files: dict[str, bytes], paths: Paths, name: str
) -> None:
    """Of the right size; small files are held against the hash git knows them by."""
    server.manner(name).body = b" " + files[name][1:]
    with pytest.raises(FetchError, match=f"{name}: the hash is wrong"):
        obtain(REPO, paths)
    assert not (paths.models / "tiny--Tiny").exists()


def test_names_that_lead_elsewhere(server: Server, files: dict[str, bytes], paths: Paths) -> None:
    for name in ("../escape.json", "..json", "/etc/x.json", "a\\b.json", ".hidden.json"):
        files[name] = b"{}"
    assert names(Path(obtain(REPO, paths).path)) == WANTED


def test_damaged_copy_is_fetched_again(
    server: Server, files: dict[str, bytes], paths: Paths
) -> None:
    folder = Path(obtain(REPO, paths).path)
    (folder / SINGLE).write_bytes(b"cut")
    assert (Path(obtain(REPO, paths).path) / SINGLE).read_bytes() == files[SINGLE]


def test_only_pickles(server: Server, paths: Paths) -> None:
    server.repos[REPO] = {"config.json": b"{}", "pytorch_model.bin": b"\x80\x04"}
    with pytest.raises(FetchError, match="only pickled weights"):
        obtain(REPO, paths)
    assert not any("resolve" in one.path for one in server.asked)


def test_only_ggufs(server: Server, paths: Paths) -> None:
    server.repos[REPO] = {"a.gguf": gguf_bytes(), "b.gguf": gguf_bytes()}
    with pytest.raises(FetchError, match=f"name one of them: {REPO}:a.gguf, {REPO}:b.gguf"):
        obtain(REPO, paths)


def test_nothing_in_it(server: Server, paths: Paths) -> None:
    server.repos[REPO] = {"README.md": b"#"}
    with pytest.raises(FetchError, match="holds no language model"):
        obtain(REPO, paths)


def test_no_such_repository(server: Server, paths: Paths) -> None:
    with pytest.raises(FetchError, match=r"there is no repository no/such"):
        obtain("no/such", paths)


@pytest.mark.parametrize(("status", "words"), [(500, "HTTP 500"), (403, "HF_TOKEN")])
def test_the_hub_refuses(
    server: Server, files: dict[str, bytes], paths: Paths, status: int, words: str
) -> None:
    server.refused[REPO] = status
    with pytest.raises(FetchError, match=words):
        obtain(REPO, paths)


def test_the_hub_is_down(paths: Paths) -> None:
    with pytest.raises(FetchError, match=r"127\.0\.0\.1: it cannot be reached") as caught:
        obtain(REPO, paths)
    assert "\n" not in str(caught.value)


def test_a_name_longer_than_the_disk_takes(
    server: Server, files: dict[str, bytes], paths: Paths
) -> None:
    files[f"{'x' * 300}.json"] = b"{}"
    with pytest.raises(FetchError, match=r"xxx\.json.*name too long"):
        obtain(REPO, paths)
    assert not (paths.models / "tiny--Tiny").exists()
