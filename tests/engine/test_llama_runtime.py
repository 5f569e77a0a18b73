"""GGUF files on llama.cpp: against its own server, and against reading everything afresh."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.chat.generation import GenerateOptions, TokenStep
from chatapp.chat.prompt import Prompt, Turn
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.engine import LocalEngine
from chatapp.engine.runtimes import library, llama_cpp
from chatapp.engine.runtimes.base import Stopped
from chatapp.engine.runtimes.library import NoLibrary
from chatapp.engine.runtimes.llama_cpp import LlamaCppRuntime
from chatapp.engine.runtimes.loading import load

pytestmark = pytest.mark.model

xllamacpp = pytest.importorskip("xllamacpp")

QUESTIONS = (
    "Name three primary colours.", "Why is the sky blue?", "Write a haiku about the sea.",
    "What is 17 times 3?", "Explain recursion to a child.", "Who wrote Hamlet?",
    "List five kinds of pasta.", "What does a KV cache do?", "Tell me a joke about cats.",
    "Wie heißt die Hauptstadt von Österreich?", "日本の首都はどこですか?",
    "Write a Python function that adds two numbers.", "Is a tomato a fruit?",
    "Summarise the story of Cinderella in one sentence.", "Give me a recipe for pancakes 🥞.",
    "What would you pack for a day in the mountains?", "How do vaccines work?",
    "Once upon a time", "Spell 'strawberry' backwards.", "Translate 'good morning' into French.",
)  # fmt: skip
GREEDY = SamplingParams(temperature=0)
TEXT = "A language model reads a text as a row of tokens and tells how probable the next one is. "


@pytest.fixture(scope="module")
def server(model_source: ModelSource) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = model_source.path
    params.n_ctx = 1024
    params.n_parallel = 1
    params.warmup = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    return xllamacpp.Server(params)


def asked(engine: LocalEngine, question: str, sampling: SamplingParams, **options: Any) -> Any:
    prompt = Prompt("", (Turn("user", question),))
    made = GenerateOptions(sampling=sampling, **options)
    events = engine.generate(prompt, made, Controls(sampling))
    return [event.record for event in events if isinstance(event, TokenStep)]


@pytest.mark.parametrize(
    ("question", "count"),
    [
        *((one, 20) for one in QUESTIONS[9:12]),
        *(pytest.param(one, 64, marks=pytest.mark.slow) for one in QUESTIONS),
    ],
)
def test_ids_and_logprobs_are_those_of_the_server(
    real_engine: LocalEngine, server: Any, question: str, count: int
) -> None:
    engine = real_engine
    engine.sequence.crop(0)  # so that both read the prompt in one batch
    prompt_ids = [token.id for token in engine.render(Prompt("", (Turn("user", question),))).tokens]
    theirs = server.handle_chat_completions(
        {
            "messages": [{"role": "user", "content": question}],
            "max_tokens": count,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 20,
            "cache_prompt": False,
        }
    )
    assert theirs["usage"]["prompt_tokens"] == len(prompt_ids)
    steps = theirs["choices"][0]["logprobs"]["content"]
    ours = asked(engine, question, GREEDY, max_tokens=count, top_logprobs=20)
    assert len(steps) >= 1
    ahead = iter(ours)
    for step in steps:
        record = next(ahead)
        while record.id != step["id"]:
            assert record.text == ""  # the server tells nothing of what ends within a character
            record = next(ahead)
        told = {one.id: one.logprob for one in record.candidates}
        shown = {one["id"]: one["logprob"] for one in step["top_logprobs"]}
        both = told.keys() & shown.keys()
        assert len(both) >= 19  # which of two equals is the 20th is not promised
        # Its normaliser is a sum of 49,152 numbers in single precision, one by one: all of a step's
        # logprobs are off by the same few ten-thousandths. Between them they agree.
        offset = told[record.id] - shown[record.id]
        assert abs(offset) < 1e-3
        for token_id in both:
            assert told[token_id] - offset == pytest.approx(shown[token_id], abs=1e-4)


def test_the_same_seed_gives_the_same_ids_in_another_engine(
    real_engine: LocalEngine, model_source: ModelSource, tmp_path: Path
) -> None:
    other = LocalEngine(tmp_path)
    other.load(model_source, LoadOptions(), lambda _: None)
    replies = []
    for engine in (real_engine, other):
        engine.sequence.crop(0)
        records = asked(engine, "Tell me a story.", SamplingParams(), seed=3, max_tokens=40)
        replies.append([record.id for record in records])
    assert replies[0] == replies[1]


@pytest.fixture
def small(model_source: ModelSource, monkeypatch: pytest.MonkeyPatch) -> Iterator[LlamaCppRuntime]:
    """With room for 256 tokens at first."""
    monkeypatch.setattr(llama_cpp, "FIRST_CELLS", 256)
    runtime = LlamaCppRuntime(model_source, LoadOptions(), lambda _: None)
    yield runtime
    runtime.close()


def test_a_context_that_grew_gives_the_same_numbers(
    small: LlamaCppRuntime, model_source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "FIRST_CELLS", 2048)
    large = LlamaCppRuntime(model_source, LoadOptions(), lambda _: None)
    ids = small.tokenizer.encode_text(TEXT * 25)
    wanted = []
    for runtime in (small, large):
        sequence = runtime.sequence()
        read = [sequence.read(ids[:200]).logits[-1]]
        read += [sequence.read([token_id]).logits[-1] for token_id in ids[200:210]]
        read.append(sequence.read(ids[210:270]).logits[-1])
        read.append(sequence.read([5]).logits[-1])
        wanted.append(np.stack(read))
        sequence.close()
    large.close()
    assert np.array_equal(wanted[0], wanted[1])


def test_cropping_and_forking_are_reading_afresh(loaded_model: LlamaCppRuntime) -> None:
    ids = loaded_model.tokenizer.encode_text(TEXT * 4)[:70]
    fresh = loaded_model.sequence()
    fresh.read(ids[:40])
    wanted = fresh.read(ids[40:60]).logits[-1]
    cropped = loaded_model.sequence()
    cropped.read(ids[:40])
    cropped.read([7, 8, 9])
    cropped.crop(40)
    assert cropped.ids == ids[:40]
    fork = cropped.fork(40)
    shorter = cropped.fork(30)
    for sequence in (cropped, fork):
        np.testing.assert_allclose(sequence.read(ids[40:60]).logits[-1], wanted, atol=1e-4)
    assert shorter.ids == ids[:30]
    for sequence in (fresh, cropped, fork, shorter):
        sequence.close()


def test_rows_are_single_sequences_side_by_side(loaded_model: LlamaCppRuntime) -> None:
    ids = loaded_model.tokenizer.encode_text(TEXT)
    sequence = loaded_model.sequence()
    sequence.read(ids)
    rows = sequence.rows()
    rows.select([0] * 12)  # more than there are places for at first
    rows.read(list(range(100, 112)))
    rows.select([3, 3, 0])
    logits = rows.read([50, 51, 52]).logits
    for row, (first, second) in enumerate([(103, 50), (103, 51), (100, 52)]):
        alone = sequence.fork(len(ids))
        alone.read([first])
        single = alone.read([second]).logits[-1]
        alone.close()
        # One token and three at once are different products; they round differently.
        assert np.abs(logits[row] - single).max() < 1.0
        assert logits[row].argmax() == single.argmax()
    rows.close()
    assert sequence.ids == ids
    sequence.close()


def test_a_reading_is_watched_and_stopped_within_a_batch(loaded_model: LlamaCppRuntime) -> None:
    ids = loaded_model.tokenizer.encode_text(TEXT * 30)[:500]
    sequence = loaded_model.sequence()
    sequence.read(ids[:20])
    seen: list[int] = []

    def watch(done: int) -> bool:
        seen.append(done)
        return len(seen) < 3

    with pytest.raises(Stopped):
        sequence.read(ids[20:], watch=watch)
    assert len(seen) == 3
    assert seen == sorted(seen)
    assert seen[-1] < 480  # before the batch was read
    assert sequence.ids == ids[:20]
    after = sequence.read(ids[20:40]).logits[-1]
    fresh = loaded_model.sequence()
    fresh.read(ids[:20])
    np.testing.assert_allclose(fresh.read(ids[20:40]).logits[-1], after, atol=1e-4)
    sequence.close()
    fresh.close()


def test_all_logits_of_a_text_are_those_of_its_prefixes(loaded_model: LlamaCppRuntime) -> None:
    ids = loaded_model.tokenizer.encode_text(TEXT * 2)
    sequence = loaded_model.sequence()
    whole = sequence.read(ids, last=len(ids)).logits
    sequence.crop(0)
    assert np.array_equal(sequence.read(ids).logits[-1], whole[-1])
    assert whole.shape == (len(ids), loaded_model.facts.vocab_size)
    sequence.close()


def test_hidden_states_are_those_of_the_reference(
    loaded_model: LlamaCppRuntime, reference: Any
) -> None:
    import torch

    ids = loaded_model.tokenizer.encode_text(TEXT)
    sequence = loaded_model.sequence()
    states = sequence.read(ids, states=True).states
    sequence.close()
    with torch.no_grad():
        wanted = reference(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (states, wanted.numpy())]
    assert (unit[0] * unit[1]).sum(axis=1).min() > 0.98


def test_a_chat_on_a_gguf_imports_no_torch(model_source: ModelSource, tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.chat.generation import GenerateOptions
from chatapp.chat.prompt import Prompt, Turn
from chatapp.chat.sampling import SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.engine import LocalEngine
engine = LocalEngine(Path({str(tmp_path)!r}))
engine.load(ModelSource("m", {model_source.path!r}, "gguf"), LoadOptions(), lambda _: None)
prompt = Prompt("", (Turn("user", "Hi"),))
options = GenerateOptions(max_tokens=3, trace=True)
list(engine.generate(prompt, options, Controls(SamplingParams())))
list(engine.score_text("The sky is blue.", 3, lambda _: None, lambda: False))
print(sorted({{"torch", "transformers", "tokenizers"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_damaged_file_is_refused_in_words(tmp_path: Path, model_source: ModelSource) -> None:
    whole = Path(model_source.path).read_bytes()
    for name, data in (("cut", whole[:3_000_000]), ("noise", b"GGUF" + bytes(200)), ("none", b"")):
        file = tmp_path / f"{name}.gguf"
        file.write_bytes(data)
        with pytest.raises(EngineError, match=r"llama\.cpp can't load"):
            LlamaCppRuntime(ModelSource(name, str(file), "gguf"), LoadOptions(), lambda _: None)


def test_another_build_falls_back_to_transformers_and_says_so(
    model_source: ModelSource, shared_paths: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "PINNED", "2031.1.1")
    library.library.cache_clear()
    try:
        with pytest.raises(NoLibrary, match=r"2031\.1\.1 is needed"):
            load(
                model_source,
                LoadOptions(runtime="llama.cpp"),
                shared_paths.prepared,
                lambda _: None,
            )
        runtime = load(
            model_source, LoadOptions(device="cpu"), shared_paths.prepared, lambda _: None
        )
    finally:
        monkeypatch.undo()
        library.library.cache_clear()
    assert runtime.facts.runtime == "transformers"
    assert "2031.1.1 is needed" in runtime.facts.note


def test_what_llama_cpp_cannot_run_is_said(tmp_path: Path) -> None:
    folder = ModelSource("m", str(tmp_path), "folder")
    with pytest.raises(EngineError, match=r"llama\.cpp runs \.gguf files, and m is a folder"):
        load(folder, LoadOptions(runtime="llama.cpp"), tmp_path, lambda _: None)
    with pytest.raises(EngineError, match=r"runtime must be auto, llama\.cpp, transformers"):
        load(folder, LoadOptions(runtime="onnx"), tmp_path, lambda _: None)
