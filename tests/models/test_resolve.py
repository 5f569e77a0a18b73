"""What references mean, and what bad ones are told."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from chatapp.chat.errors import ModelError
from chatapp.chat.facts import ModelSource, Progress
from chatapp.models import DEFAULT, missing, obtain, resolve
from chatapp.models.catalog import CatalogEntry, HubFile, HubFolder, find
from chatapp.models.errors import DamagedModel, RefusedModel, UnknownModel
from chatapp.models.local import find_local
from chatapp.settings.paths import Paths
from tests.models.samples import folder_files, gguf_bytes, write_folder
from tests.models.server import COMMIT


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "some model.gguf"
    path.write_bytes(gguf_bytes())
    return path


def cached(home: Path, repo: str, files: dict[str, bytes]) -> Path:
    """A repository in the Hub's cache, as huggingface_hub lays it out."""
    root = home / "hub" / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    return write_folder(root / "snapshots" / COMMIT, files)


def test_default_must_be_fetched(paths: Paths) -> None:
    entry = missing(DEFAULT, paths)
    assert entry is find(DEFAULT)
    assert resolve(DEFAULT, paths) is entry
    assert missing(DEFAULT.upper(), paths) is entry


def test_file(model: Path, paths: Paths) -> None:
    assert missing(str(model), paths) is None
    assert resolve(str(model), paths) == ModelSource("some model", str(model), "gguf")


def test_file_below_here(model: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    for ref in (model.name, f"./{model.name}"):
        assert resolve(ref, paths) == ModelSource("some model", str(model), "gguf")


def test_file_is_hashed_once(model: Path, paths: Paths) -> None:
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    seen: list[Progress] = []
    assert obtain(str(model), paths, on_progress=seen.append).sha256 == sha256
    assert [step.stage for step in seen] == ["checking some model.gguf"]
    seen.clear()
    assert obtain(str(model), paths, on_progress=seen.append).sha256 == sha256
    assert seen == []
    model.write_bytes(gguf_bytes(seed=1))
    assert obtain(str(model), paths).sha256 == hashlib.sha256(gguf_bytes(seed=1)).hexdigest()


def test_file_is_remembered_through_links(model: Path, paths: Paths, tmp_path: Path) -> None:
    obtain(str(model), paths)
    (tmp_path / "link.gguf").symlink_to(model)
    seen: list[Progress] = []
    obtain(str(tmp_path / "link.gguf"), paths, on_progress=seen.append)
    assert seen == []


def test_records_that_are_damaged_are_made_anew(model: Path, paths: Paths) -> None:
    obtain(str(model), paths)
    (paths.models / "verified.json").write_text("[" * 100)
    assert obtain(str(model), paths).sha256


def test_records_that_cannot_be_written_do_no_harm(model: Path, paths: Paths) -> None:
    paths.data.write_text("a file where the folder should be")
    assert obtain(str(model), paths).sha256 == hashlib.sha256(model.read_bytes()).hexdigest()


def test_folder(tmp_path: Path, paths: Paths) -> None:
    folder = write_folder(tmp_path / "tiny")
    assert resolve(str(folder), paths) == ModelSource("tiny", str(folder), "folder")


def test_folder_of_one_gguf(tmp_path: Path, model: Path, paths: Paths) -> None:
    assert resolve(str(tmp_path), paths).path == str(model)  # type: ignore[union-attr]  # local
    (tmp_path / "other.gguf").write_bytes(b"")
    with pytest.raises(ModelError, match=r"name one: other\.gguf, some model\.gguf"):
        resolve(str(tmp_path), paths)


def test_folder_comes_before_the_hub(
    tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "owner" / "name")
    assert resolve("owner/name", paths) == ModelSource("name", str(folder), "folder")


def test_repository(paths: Paths) -> None:
    entry = missing("owner/Some.Model-1B", paths)
    assert entry is not None
    assert entry.sources == (HubFolder("owner/Some.Model-1B"),)
    assert (entry.id, entry.name, entry.kind) == ("owner/Some.Model-1B", "Some.Model-1B", "folder")


def test_file_of_a_repository(paths: Paths) -> None:
    entry = missing("owner/name:sub/x.Q4_K_M.gguf", paths)
    assert entry is not None
    assert entry.sources == (HubFile("owner/name", "sub/x.Q4_K_M.gguf"),)
    assert (entry.name, entry.kind) == ("x.Q4_K_M", "gguf")
    assert entry.local_name == "owner--name--sub--x.Q4_K_M.gguf"


def test_repository_that_the_catalog_knows(paths: Paths) -> None:
    assert missing("Qwen/Qwen2.5-0.5B-Instruct", paths) is find("qwen2.5-0.5b-instruct")


def test_in_the_hubs_cache(tmp_path: Path, paths: Paths) -> None:
    folder = cached(tmp_path / "hf", "owner/name", folder_files())
    assert missing("owner/name", paths) is None
    assert resolve("owner/name", paths) == ModelSource("name", str(folder), "folder")
    assert resolve(str(folder), paths) == ModelSource("name", str(folder), "folder")


def test_half_a_model_in_the_hubs_cache(tmp_path: Path, paths: Paths) -> None:
    files = folder_files()
    files["model.safetensors"] = files["model.safetensors"][:-1]
    cached(tmp_path / "hf", "owner/name", files)
    assert missing("owner/name", paths) is not None


def test_pinned_file_in_the_hubs_cache(tmp_path: Path, paths: Paths) -> None:
    """It is taken only when it is the very file."""
    content = gguf_bytes()
    folder = cached(tmp_path / "hf", "owner/name", {"x.gguf": content})

    def pinned(data: bytes) -> CatalogEntry:
        return CatalogEntry(
            id="x",
            name="X",
            local_name="x.gguf",
            sources=(HubFile("owner/name", "x.gguf"),),
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )

    assert find_local(pinned(content), paths) == ModelSource(
        "X", str(folder / "x.gguf"), "gguf", hashlib.sha256(content).hexdigest()
    )
    assert find_local(pinned(gguf_bytes(seed=1)), paths) is None


def test_own_copy_that_is_something_else(paths: Paths) -> None:
    entry = find(DEFAULT)
    assert entry is not None
    paths.models.mkdir(parents=True)
    (paths.models / entry.local_name).write_bytes(gguf_bytes())
    with pytest.raises(DamagedModel, match=rf"not the file it should be.*models pull {DEFAULT}"):
        resolve(DEFAULT, paths)
    assert missing(DEFAULT, paths) is entry


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("smollm2-135m-instrukt", "did you mean smollm2-135m-instruct"),
        ("qwen", "did you mean qwen"),
        ("zzz", "there is no model 'zzz'; see: chatapp models list"),
        ("./zzz", "no file or folder"),
        ("/no/such/folder", "no file or folder"),
        ("zzz.gguf", "no file or folder"),
        ("a/b/c", "no file or folder"),
        ("~/zzz-no-such-model", "no file or folder"),
        ("https://example.org/model.gguf", "is an address"),
        ("owner/name:config.json", r"name of a \.gguf file"),
        ("owner/name:../../x.gguf", r"name of a \.gguf file"),
        ("~no-such-person/x.gguf", "no file or folder"),
        ("a\0b", "there is no model"),
        ("x" * 5000, "there is no model"),
        ("../" + "x" * 5000, "no file or folder"),
    ],
)
def test_unknown(paths: Paths, ref: str, words: str) -> None:
    with pytest.raises(UnknownModel, match=words) as caught:
        resolve(ref, paths)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.gguf", b"just a story", "a text file"),
        ("x.gguf", b"<!doctype html>", "a web page"),
        ("x.gguf", gguf_bytes()[:-1], "cut off"),
        ("x.gguf", b"", "empty"),
        ("notes.txt", b"just a story", "a text file"),
    ],
)
def test_bad_files(tmp_path: Path, paths: Paths, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DamagedModel, match=words):
        resolve(str(tmp_path / name), paths)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "x.pt", "model.safetensors"])
def test_refused_files(tmp_path: Path, paths: Paths, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(RefusedModel, match=r"pickle|name its folder"):
        resolve(str(tmp_path / name), paths)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path: Path, paths: Paths) -> None:
    os.mkfifo(tmp_path / "x.gguf")
    with pytest.raises(RefusedModel, match="no regular file"):
        resolve(str(tmp_path / "x.gguf"), paths)


def test_unreadable(model: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, os.strerror(13))

    for function in ("open", "iterdir"):
        monkeypatch.setattr(Path, function, refuse)
    for path in (model, model.parent):
        with pytest.raises(DamagedModel, match=r"cannot read .*Permission denied"):
            resolve(str(path), paths)
    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(UnknownModel, match=r"cannot look at .*Permission denied"):
        resolve(str(model), paths)
