"""GGUF files made ready for transformers."""

from __future__ import annotations

from pathlib import Path

from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.engine.engine import LocalEngine
from tests.tiny_models import save_gguf


def test_several_files_are_converted_in_one_session(tmp_path: Path) -> None:
    engine = LocalEngine(tmp_path / "prepared")
    options = LoadOptions(device="cpu", runtime="transformers")
    for context in (256, 512):
        file = save_gguf(tmp_path / f"{context}.gguf", context=context)
        facts = engine.load(ModelSource("tiny", str(file), "gguf"), options, lambda _: None)
        assert facts.context_length == context
