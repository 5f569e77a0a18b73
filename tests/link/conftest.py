"""A tiny model in an engine process, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.link.client import EngineClient
from chatapp.settings.paths import Paths
from tests.tiny_models import save_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    folder = save_model(tmp_path_factory.mktemp("tiny") / "qwen2", "qwen2")
    return ModelSource("tiny", str(folder), "folder")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(
    tiny: ModelSource, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EngineClient]:
    """Started and loaded once; tests that use it run in the module's own loop."""
    home = tmp_path_factory.mktemp("home")
    names = ("config", "data", "cache", "state")
    client = EngineClient(Paths(*(home / name for name in names)))
    await client.load(tiny, LoadOptions(device="cpu", threads=1), lambda _: None)
    yield client
    await client.close()
