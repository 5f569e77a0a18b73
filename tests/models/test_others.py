"""Models of other programs, quantizations by name, and whether a model fits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from chatapp.chat.errors import FetchError, ModelError
from chatapp.chat.facts import ModelSource
from chatapp.models import missing, obtain, resolve
from chatapp.models.catalog import catalog, has_quantization
from chatapp.models.fitting import Machine, fit, machine
from chatapp.models.gguf_file import check_gguf
from chatapp.models.hub import search
from chatapp.models.installed import fetchable, installed, repo_files
from chatapp.models.safetensors_folder import check_folder
from chatapp.settings.paths import Paths
from tests.models.samples import CONFIG, folder_files, gguf_bytes, write_folder
from tests.models.server import Server

REPO = "tiny/Tiny-GGUF"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    return tmp_path / "home"


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def ollama(folder: Path, name: str, data: bytes, namespace: str = "library") -> Path:
    """A model as Ollama keeps it."""
    digest = hashlib.sha256(data).hexdigest()
    layers = [
        {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:" + "0" * 64},
        {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"},
    ]
    model, _, tag = name.partition(":")
    manifest = folder / "manifests" / "registry" / namespace / model / tag
    put(manifest, json.dumps({"schemaVersion": 2, "layers": layers}).encode())
    return put(folder / "blobs" / f"sha256-{digest}", data)


def test_what_other_programs_fetched_is_listed_and_loads(home: Path, paths: Paths) -> None:
    studio = put(home / ".lmstudio/models/someone/Tiny/tiny-Q8_0.gguf", gguf_bytes())
    put(home / ".lmstudio/models/someone/Tiny/mmproj-tiny.gguf", gguf_bytes())
    put(home / ".lmstudio/models/someone/Bad/bad.gguf", b"GGUF nothing")
    blob = ollama(home / ".ollama/models", "tiny:1b", gguf_bytes(seed=1))
    ollama(home / ".ollama/models", "other:latest", gguf_bytes(seed=2), "someone")
    own = put(home / "more" / "deep" / "own.gguf", gguf_bytes(seed=3))
    found = {model.ref: model for model in installed(paths, [str(home / "more")])}
    assert set(found) == {str(studio), "ollama:tiny:1b", "ollama:someone/other:latest", str(own)}
    assert found[str(studio)].origin == "LM Studio"
    assert found["ollama:tiny:1b"].origin == "Ollama"
    assert found[str(own)].origin == "your folder"
    before = blob.read_bytes()
    source = obtain("ollama:tiny:1b", paths)
    assert source == ModelSource("tiny:1b", str(blob), "gguf", hashlib.sha256(before).hexdigest())
    assert blob.read_bytes() == before
    assert resolve("ollama:someone/other", paths).name == "someone/other"


@pytest.mark.parametrize(
    "manifest",
    [
        b"{", b"[]", b"{}", b'{"layers": 7}', b'{"layers": [{"mediaType": "x"}]}',
        b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "../../x"}]}',
        b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": 7}]}',
        b"[" * 100_000, b"\xff\xfe", b" " * (1 << 21),
    ],
)  # fmt: skip
def test_a_broken_manifest_is_passed_over(home: Path, paths: Paths, manifest: bytes) -> None:
    put(home / ".ollama/models/manifests/host/library/bad/latest", manifest)
    good = ollama(home / ".ollama/models", "tiny:latest", gguf_bytes())
    assert [model.ref for model in installed(paths)] == ["ollama:tiny:latest"]
    assert resolve("ollama:tiny", paths).path == str(good)  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="Ollama has no model bad here"):
        resolve("ollama:bad", paths)


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("tiny-Q4_K_M.gguf", True),
        ("tiny.q4_k_m.gguf", True),
        ("sub/Q4_K_M.gguf", True),
        ("tiny-IQ4_K_M.gguf", False),
        ("tiny-Q4_K_M-00001-of-00002.gguf", False),
        ("tiny-Q4_K_M.txt", False),
    ],
)
def test_a_quantization_names_a_file(file: str, wanted: bool) -> None:
    assert has_quantization(file, "Q4_K_M") is wanted


@pytest.mark.parametrize("before", ["", "hf.co/", "huggingface.co/"])
def test_a_file_is_fetched_by_its_quantization(server: Server, paths: Paths, before: str) -> None:
    data = gguf_bytes()
    server.repos[REPO] = {"Tiny-Q8_0.gguf": gguf_bytes(seed=1), "Tiny-Q4_K_M.gguf": data}
    ref = f"{before}{REPO}:q4_k_m"
    entry = missing(ref, paths)
    assert entry is not None and entry.name == "Tiny Q4_K_M"
    source = obtain(ref, paths)
    assert Path(source.path).read_bytes() == data
    (model,) = installed(paths)
    assert model.ref == f"{REPO}:Q4_K_M"
    server.asked.clear()
    assert obtain(model.ref, paths, offline=True) == source
    assert not server.asked


def test_a_quantization_that_is_not_there_says_which_are(server: Server, paths: Paths) -> None:
    server.repos[REPO] = {"Tiny-Q8_0.gguf": gguf_bytes()}
    with pytest.raises(FetchError, match=f"no file Q4_0; it has {REPO}:Tiny-Q8_0.gguf"):
        obtain(f"{REPO}:Q4_0", paths)
    server.repos[REPO] = {f"Tiny-Q4_0-0000{n}-of-00002.gguf": gguf_bytes() for n in (1, 2)}
    with pytest.raises(FetchError, match="Q4_0 only in 2 parts"):
        obtain(f"{REPO}:Q4_0", paths)


def test_a_pinned_hash_holds_where_the_size_is_asked(server: Server, paths: Paths) -> None:
    from chatapp.models.catalog import CatalogEntry, HubFile
    from chatapp.models.fetch import fetch

    server.repos[REPO] = {"t.gguf": gguf_bytes()}
    told: dict[str, Any] = {"id": "t", "name": "T", "local_name": "t.gguf"}
    right = hashlib.sha256(gguf_bytes()).hexdigest()
    other = CatalogEntry(**told, sources=(HubFile(REPO, "t.gguf"),), sha256="0" * 64)
    with pytest.raises(FetchError, match="the hash is wrong"):
        fetch(other, paths)
    entry = CatalogEntry(**told, sources=(HubFile(REPO, "t.gguf"),), sha256=right)
    assert fetch(entry, paths).read_bytes() == gguf_bytes()


def test_the_hub_is_searched(server: Server) -> None:
    server.repos["a/Tiny-GGUF"] = {"x-Q4_0.gguf": gguf_bytes(), "mmproj-x.gguf": b""}
    server.repos["b/Tiny-more-GGUF"] = {f"{n}.gguf": gguf_bytes() for n in range(3)}
    server.repos["c/Tiny"] = folder_files()
    assert [one.repo for one in search("tiny")] == ["b/Tiny-more-GGUF", "a/Tiny-GGUF"]
    assert search("nothing") == ()
    (entry,) = repo_files("a/Tiny-GGUF")
    assert (entry.id, entry.size) == ("a/Tiny-GGUF:x-Q4_0.gguf", len(gguf_bytes()))
    asked = len(server.asked)
    server.refused[""] = 500
    with pytest.raises(FetchError, match="500"):
        search("tiny")
    assert len(server.asked) == asked + 1  # it is not tried again: the user is typing


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[{}]", b"[7]", b'[{"id": 7}]', b'[{"id": "a/b", "downloads": "x"}]', b"<html>"],
)
def test_an_answer_that_makes_no_sense_is_said(server: Server, body: bytes) -> None:
    server.search_body = body
    with pytest.raises(FetchError, match="makes no sense"):
        search("tiny")


def test_a_hub_that_is_not_there_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FetchError, match=r"127\.0\.0\.1: "):
        search("tiny")  # HF_ENDPOINT leads to nobody
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE"):
        search("tiny")


def test_what_a_model_takes_is_weights_and_cache(tmp_path: Path) -> None:
    config = {**CONFIG, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4}
    files = folder_files() | {"config.json": json.dumps(config).encode()}
    facts = check_folder(write_folder(tmp_path / "folder", files))
    assert facts.kv_values == 2 * 1 * 1 * 4  # keys and values, a layer, a head, its size
    small = Machine(free=10_000, bandwidth=1e6)
    found = fit(facts, "folder", small, 100)
    weights = max(facts.size, 4 * facts.parameters)  # in float32
    assert found.memory == weights + 100 * 8 * 4
    assert found.fits
    assert found.most_per_second == pytest.approx(1e6 / weights)
    assert not fit(facts, "folder", Machine(free=100, bandwidth=1e6), 100).fits
    assert fit(facts, "folder", small).context == facts.context_length == 128


def test_the_default_models_cache_is_that_of_its_header(model_source: ModelSource) -> None:
    default = catalog()[0]
    facts = check_gguf(Path(model_source.path))
    assert facts.kv_values == default.kv_values == 30 * 3 * 64 * 2
    assert facts.parameters == default.parameters


def test_every_entry_of_the_catalog_says_what_it_takes(paths: Paths) -> None:
    on = Machine(free=1 << 40, bandwidth=1e10)
    for entry in fetchable(installed(paths)):
        found = fit(entry, entry.kind, on)
        assert found.memory > found.size > 0, entry.id
        assert "tok/s" in found.words
        if entry.kind == "gguf":
            assert len(entry.sha256) == 64


def test_this_machine_reads_memory() -> None:
    this = machine()
    assert this.free > 1 << 20
    assert this.bandwidth > 1e8
