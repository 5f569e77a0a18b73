"""A tiny model in an engine process, shared by the tests that only ask it things."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.link.client import EngineClient
from chatapp.settings.paths import Paths
from tests.tiny_models import save_gguf


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """Its context is so long that a reply can be stopped or steered before it is full."""
    file = save_gguf(tmp_path_factory.mktemp("long") / "tiny.gguf", context=32768)
    return ModelSource("tiny", str(file), "gguf", sha256="0" * 64)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(
    tiny: ModelSource, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EngineClient]:
    """Started and loaded once; tests that use it run in the session's own loop."""
    home = tmp_path_factory.mktemp("home")
    names = ("config", "data", "cache", "state")
    client = EngineClient(Paths(*(home / name for name in names)))
    await client.load(tiny, LoadOptions(device="cpu", threads=1), lambda _: None)
    yield client
    await client.close()
