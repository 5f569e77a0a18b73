"""KV caches on the disk: a text that was kept has the numbers of one that is read, or is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.chat.generation import GenerateOptions, PromptRead, TokenStep
from chatapp.chat.prompt import Prompt, PromptFormat, Turn
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.engine import LocalEngine

pytestmark = pytest.mark.model

WORDS = "The fox ran over the hill and saw the river. " * 8
FORMAT = PromptFormat("raw", "{{ messages[0].content }}")


@pytest.fixture(scope="module", autouse=True)
def _short_texts_too() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("chatapp.engine.runtimes.kept_states.LEAST_TOKENS", 64)
        yield


def load(folder: Path, source: ModelSource, megabytes: int = 200) -> LocalEngine:
    engine = LocalEngine(folder / "prepared")
    engine.load(source, LoadOptions(kept_megabytes=megabytes), lambda _: None)
    return engine


def reply(engine: LocalEngine, text: str) -> tuple[PromptRead, list[Any]]:
    sampling = SamplingParams(temperature=0.0)
    prompt = Prompt("", (Turn("user", text),), FORMAT)
    options = GenerateOptions(sampling=sampling, max_tokens=4)
    events = list(engine.generate(prompt, options, Controls(sampling)))
    (read,) = [event for event in events if isinstance(event, PromptRead)]
    return read, [event.record for event in events if isinstance(event, TokenStep)]


def files(folder: Path) -> list[Path]:
    return sorted((folder / "kept").glob("*"))


def test_a_text_read_another_day_goes_on_where_it_was(
    tmp_path: Path, model_source: ModelSource
) -> None:
    first = load(tmp_path, model_source)
    read, _ = reply(first, WORDS)
    assert read.cached_tokens == 0
    # What memory keeps is the measure: llama.cpp's numbers hang on how many tokens a batch has.
    _, wanted = reply(first, WORDS)
    _, exact = reply(first, WORDS + "Then it slept.")
    first.unload()
    (file,) = files(tmp_path)
    assert file.stat().st_mode & 0o077 == 0
    second = load(tmp_path, model_source)
    again, records = reply(second, WORDS)
    assert again.cached_tokens == len(again.prompt_ids) - 1
    assert [one.id for one in records] == [one.id for one in wanted]
    told = [one.logprob for one in records]
    np.testing.assert_allclose(told, [one.logprob for one in wanted], atol=1e-6)
    # Another text behind the same beginning reads only what is new.
    other, fresh = reply(second, WORDS + "Then it slept.")
    assert other.cached_tokens >= len(again.prompt_ids) - 1
    second.unload()
    np.testing.assert_allclose(
        [one.logprob for one in fresh], [one.logprob for one in exact], atol=1e-6
    )


@pytest.fixture(scope="module")
def kept(
    tmp_path_factory: pytest.TempPathFactory, model_source: ModelSource
) -> tuple[bytes, str, list[int]]:
    """What is kept of a reply: the file, its name, and the reply's ids."""
    folder = tmp_path_factory.mktemp("kept")
    engine = load(folder, model_source)
    _, wanted = reply(engine, WORDS)
    engine.unload()
    (file,) = files(folder)
    return file.read_bytes(), file.name, [one.id for one in wanted]


@pytest.mark.parametrize("damage", ["none", "cut", "turned", "head", "other"])
def test_what_is_damaged_or_anothers_is_read_anew(
    tmp_path: Path, model_source: ModelSource, kept: tuple[bytes, str, list[int]], damage: str
) -> None:
    whole, name, wanted = kept
    data = bytearray(whole)
    match damage:
        case "cut":
            del data[len(data) // 2 :]
        case "turned":
            data[-1000] ^= 0xFF
        case "head":
            data[:20] = b"\xff" * 20
        case "other":
            data[:200] = data[:200].replace(model_source.sha256[:8].encode(), b"0" * 8)
    assert damage == "none" or data != whole
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / name).write_bytes(data)
    again = load(tmp_path, model_source)
    read, records = reply(again, WORDS)
    assert read.cached_tokens == (len(read.prompt_ids) - 1 if damage == "none" else 0)
    assert [one.id for one in records] == wanted
    again.unload()


def test_it_is_off_by_default_and_never_larger_than_it_may_be(
    tmp_path: Path, model_source: ModelSource
) -> None:
    plain = LocalEngine(tmp_path / "prepared")
    plain.load(model_source, LoadOptions(), lambda _: None)
    reply(plain, WORDS)
    plain.unload()
    assert files(tmp_path) == []
    engine = load(tmp_path, model_source, megabytes=5)
    for start in ("A ", "B ", "C "):
        reply(engine, start + WORDS)
        assert sum(file.stat().st_size for file in files(tmp_path)) <= 5_000_000
    assert len(files(tmp_path)) >= 1
    assert all(file.suffix == ".kv" for file in files(tmp_path))
    engine.unload()
