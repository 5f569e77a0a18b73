"""Models that are refused once their architecture is known; the others load in every other test."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.engine.engine import LocalEngine
from tests.tiny_models import save_model


@pytest.mark.parametrize("kind", ["gpt1", "xlm"])
def test_a_model_without_a_kv_cache_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / kind, kind, chat=False)
    engine = LocalEngine(tmp_path / "prepared")
    source = ModelSource(kind, str(folder), "folder")
    with pytest.raises(EngineError, match=f"{kind} is a .* which keeps no KV cache") as raised:
        engine.load(source, LoadOptions(device="cpu"), lambda _: None)
    assert "\n" not in str(raised.value)
