"""Beam search against transformers' generate(), on the same weights."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from chatapp.chat.facts import LoadOptions, ModelSource, Progress
from chatapp.chat.generation import PromptRead
from chatapp.chat.prompt import Prompt, Turn
from chatapp.chat.record import FinishReason
from chatapp.chat.search import (
    Beam,
    BeamEnd,
    BeamOptions,
    BeamStep,
    BeamStop,
    ExtensionFate,
    SearchError,
)
from chatapp.engine.decoding.beam import BeamSearch
from chatapp.engine.prompt.render import render_prompt
from chatapp.engine.runtimes.base import CannotFork
from chatapp.engine.runtimes.loading import load
from chatapp.engine.runtimes.transformers import TransformersRuntime
from tests.engine.test_greedy import PROMPTS
from tests.tiny_models import save_model

PROMPT = tuple(range(40, 64))
MANY_ENDS = tuple(range(0, 258, 13))
"""So many end tokens that hypotheses finish at every length."""
MOST_END = tuple(number for number in range(258) if number % 3)
"""So many that a search is over long before its limit."""


class Found:
    """What one search told."""

    def __init__(self, events: Sequence[object]) -> None:
        self.steps = [event for event in events if isinstance(event, BeamStep)]
        self.end = next(event for event in events if isinstance(event, BeamEnd))
        self.events = events


def search(
    loaded: TransformersRuntime,
    prompt_ids: Sequence[int],
    options: BeamOptions,
    end_ids: Sequence[int] = (),
    **others: Any,
) -> Found:
    others.setdefault("cancelled", lambda: False)
    sequence = others.pop("sequence", None) or loaded.sequence()
    search = BeamSearch(loaded, prompt_ids, options, end_ids, **others)
    return Found(list(search.events(sequence)))


def oracle(
    model: Any, prompt_ids: Sequence[int], options: BeamOptions, end_ids: Sequence[int]
) -> list[tuple[tuple[int, ...], float]]:
    """The ids and scores of generate()'s hypotheses, without padding."""
    tokens = torch.tensor([list(prompt_ids)])
    pad = -1
    made = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=False,
        num_beams=options.num_beams,
        num_return_sequences=options.num_return,
        length_penalty=options.length_penalty,
        max_new_tokens=options.max_tokens,
        eos_token_id=list(end_ids),
        pad_token_id=pad,
        top_k=None,
        return_dict_in_generate=True,
        output_scores=True,
    )
    rows = made.sequences[:, len(prompt_ids) :].tolist()
    found = [tuple(item for item in row if item != pad) for row in rows]
    return list(zip(found, made.sequences_scores.tolist(), strict=True))


@pytest.fixture(scope="module", params=("gpt2", "qwen2", "gemma2"))
def tiny(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> TransformersRuntime:
    folder = save_model(tmp_path_factory.mktemp("models") / request.param, request.param)
    return load_folder(folder)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> TransformersRuntime:
    return load_folder(save_model(tmp_path_factory.mktemp("models") / "qwen2", "qwen2"))


def load_folder(folder: Path, context_length: int = 0) -> TransformersRuntime:
    source = ModelSource(folder.name, str(folder), "folder")
    options = LoadOptions(device="cpu", context_length=context_length)
    return load(source, options, folder.parent / "prepared", lambda _: None)


def chat_ids(loaded: TransformersRuntime, question: str) -> tuple[int, ...]:
    return tuple(render_prompt(loaded.tokenizer, Prompt("", (Turn("user", question),))).ids)


@pytest.mark.parametrize(("num_beams", "length_penalty"), [(2, 1.0), (4, 0.0), (3, -1.0), (5, 2.0)])
def test_equals_generate(tiny: TransformersRuntime, num_beams: int, length_penalty: float) -> None:
    options = BeamOptions(
        num_beams=num_beams,
        length_penalty=length_penalty,
        max_tokens=12,
        num_return=num_beams,
    )
    assert_equals_generate(tiny, PROMPT, options, MANY_ENDS)


def assert_equals_generate(
    loaded: TransformersRuntime, ids: Sequence[int], options: BeamOptions, end_ids: Sequence[int]
) -> None:
    found = search(loaded, ids, options, end_ids)
    expected = oracle(loaded.model, ids, options, end_ids)
    assert [one.ids for one in found.end.hypotheses] == [ids for ids, _ in expected]
    scores = [one.score for one in found.end.hypotheses]
    assert scores == pytest.approx([score for _, score in expected], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_ends_when_generate_does(qwen: TransformersRuntime, length_penalty: float) -> None:
    options = BeamOptions(
        num_beams=2,
        length_penalty=length_penalty,
        max_tokens=20,
        num_return=2,
    )
    assert_equals_generate(qwen, PROMPT, options, MOST_END)
    assert search(qwen, PROMPT, options, MOST_END).end.reason is BeamStop.SETTLED


def test_equals_generate_on_a_recurrent_state(tmp_path: Path) -> None:
    """Mamba's state has rows as well, though it can't be cropped."""
    loaded = load_folder(save_model(tmp_path / "mamba", "mamba"))
    options = BeamOptions(num_beams=3, max_tokens=6, num_return=3)
    assert_equals_generate(loaded, PROMPT[:8], options, MANY_ENDS)


@pytest.mark.model
@pytest.mark.parametrize(
    ("question", "count"),
    [(PROMPTS[0], 5), *(pytest.param(one, 8, marks=pytest.mark.slow) for one in PROMPTS[:2])],
)
def test_equals_generate_on_the_real_model(
    reference_model: TransformersRuntime, question: str, count: int
) -> None:
    options = BeamOptions(num_beams=3, max_tokens=count, num_return=2)
    ids = chat_ids(reference_model, question)
    assert_equals_generate(reference_model, ids, options, reference_model.facts.end_ids)


@pytest.mark.slow
@pytest.mark.model
def test_a_longer_search_on_the_real_model(reference_model: TransformersRuntime) -> None:
    options = BeamOptions(num_beams=4, max_tokens=24, num_return=4, length_penalty=0.5)
    ids = chat_ids(reference_model, "Is a tomato a fruit?")
    assert_equals_generate(reference_model, ids, options, reference_model.facts.end_ids)


def test_the_tree_holds_together(qwen: TransformersRuntime) -> None:
    """Every number of every extension follows from the tree itself and the model."""
    options = BeamOptions(num_beams=3, length_penalty=0.7, max_tokens=8)
    found = search(qwen, PROMPT, options, MANY_ENDS)
    before = [Beam((), 0, 0.0, 0.0)]
    finished: set[tuple[int, ...]] = set()
    for length, step in enumerate(found.steps, start=1):
        assert step.index == length - 1
        totals = [one.total_logprob for one in step.extensions]
        assert totals == sorted(totals, reverse=True)
        for one in step.extensions:
            parent = before[one.parent]
            assert one.total_logprob == pytest.approx(parent.total_logprob + one.logprob, rel=1e-4)
            assert one.score == pytest.approx(one.total_logprob / length**0.7, rel=1e-4)
            assert one.ends is (one.token.id in MANY_ENDS or length == options.max_tokens)
            path = (*parent.ids, one.token.id)
            if one.fate is ExtensionFate.KEPT:
                assert one.beam is not None
                assert step.beams[one.beam].ids == path
                assert step.beams[one.beam].parent == one.parent
            else:
                assert one.beam is None
            if one.fate is ExtensionFate.FINISHED:
                finished.add(path)
        kept = [one for one in step.extensions if one.fate is ExtensionFate.KEPT]
        assert [one.beam for one in kept] == list(range(len(step.beams)))
        assert {one.ids for one in step.finished} <= finished
        before = list(step.beams)
    fates = {one.fate for step in found.steps for one in step.extensions}
    assert fates == set(ExtensionFate)
    best = found.end.hypotheses[0]
    assert sum_of_logprobs(qwen, PROMPT, best.ids) == pytest.approx(best.total_logprob, abs=1e-3)


def sum_of_logprobs(
    loaded: TransformersRuntime, prompt: Sequence[int], ids: Sequence[int]
) -> float:
    """One pass over the whole text, without a cache."""
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([[*prompt, *ids]])).logits[0].float()
    logprobs = torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]
    return float(logprobs[range(len(ids)), list(ids)].sum())


def test_one_beam_that_stops_at_the_first_end_is_greedy(qwen: TransformersRuntime) -> None:
    options = BeamOptions(num_beams=1, max_tokens=10)
    found = search(qwen, PROMPT, options)
    ids = list(PROMPT)
    with torch.inference_mode():
        for _ in range(10):
            ids.append(int(qwen.model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert found.end.hypotheses[0].ids == tuple(ids[len(PROMPT) :])
    assert found.end.reason is BeamStop.LENGTH


def test_hypotheses_tell_their_text_and_why_they_ended(qwen: TransformersRuntime) -> None:
    options = BeamOptions(num_beams=3, max_tokens=12, num_return=3)
    found = search(qwen, PROMPT, options, MOST_END)
    assert found.end.reason is BeamStop.SETTLED
    for one in found.end.hypotheses:
        assert one.reason is FinishReason.STOP
        assert one.ids[-1] in MOST_END
        spelled = b"".join(map(qwen.tokenizer.token_bytes, one.ids[:-1]))
        assert one.text == spelled.decode("utf-8", "replace")


def test_the_prefix_cache_holds_the_prompt_and_is_reused(qwen: TransformersRuntime) -> None:
    sequence = qwen.sequence()
    options = BeamOptions(num_beams=2, max_tokens=4)
    first = search(qwen, PROMPT, options, sequence=sequence)
    assert sequence.ids == list(PROMPT)
    second = search(qwen, (*PROMPT, 70, 71), options, sequence=sequence)
    read = next(event for event in second.events if isinstance(event, PromptRead))
    assert read.cached_tokens == len(PROMPT)
    fresh = search(qwen, (*PROMPT, 70, 71), options)
    assert second.end.hypotheses[0].ids == fresh.end.hypotheses[0].ids
    again = search(qwen, PROMPT, options, sequence=sequence)
    assert first.end.hypotheses[0].ids == again.end.hypotheses[0].ids


def test_cancelling_gives_back_what_was_alive(qwen: TransformersRuntime) -> None:
    stopped = threading.Event()
    events: list[object] = []
    options = BeamOptions(num_beams=3, max_tokens=50, num_return=2)
    search = BeamSearch(qwen, PROMPT, options, (), stopped.is_set)
    for event in search.events(qwen.sequence()):
        events.append(event)
        if isinstance(event, BeamStep) and event.index == 2:
            stopped.set()
    found = Found(events)
    assert len(found.steps) == 3
    assert found.end.reason is BeamStop.CANCELLED
    assert [one.ids for one in found.end.hypotheses] == [
        beam.ids for beam in found.steps[-1].beams[:2]
    ]
    assert {one.reason for one in found.end.hypotheses} == {FinishReason.CANCELLED}


def test_cancelling_while_the_prompt_is_read(qwen: TransformersRuntime) -> None:
    found = search(qwen, PROMPT * 12, BeamOptions(), cancelled=lambda: True)
    assert [type(event) for event in found.events if not isinstance(event, Progress)] == [BeamEnd]
    assert found.end.reason is BeamStop.CANCELLED
    assert found.end.hypotheses == ()


def test_the_context_is_a_limit(tmp_path: Path) -> None:
    loaded = load_folder(save_model(tmp_path / "qwen2", "qwen2"), context_length=30)
    found = search(loaded, PROMPT, BeamOptions(num_beams=2, max_tokens=0))
    assert found.end.reason is BeamStop.CONTEXT
    assert "30 of 30" in found.end.message
    assert len(found.end.hypotheses[0].ids) == 6
    assert found.end.hypotheses[0].reason is FinishReason.CONTEXT
    none = search(loaded, range(30), BeamOptions())
    assert none.steps == []
    assert none.end.reason is BeamStop.CONTEXT


def test_logits_that_are_no_numbers_end_the_search(
    qwen: TransformersRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = qwen.model.forward
    calls = 0

    def broken(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        output = forward(*args, **kwargs)
        if calls == 3:
            output.logits[0, -1, 5] = torch.nan
        return output

    monkeypatch.setattr(qwen.model, "forward", broken)
    found = search(qwen, PROMPT, BeamOptions(num_beams=2, max_tokens=9))
    assert found.end.reason is BeamStop.ERROR
    assert "NaN" in found.end.message
    assert len(found.steps) == 2
    assert found.end.hypotheses[0].ids == found.steps[-1].beams[0].ids


def test_a_cache_without_rows_is_refused(
    qwen: TransformersRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("transformers.cache_utils.Cache.reorder_cache")
    with pytest.raises(CannotFork, match=r"qwen2 .* cannot be split"):
        search(qwen, PROMPT, BeamOptions())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_beams", 0),
        ("num_beams", 2.5),
        ("num_beams", True),
        ("num_return", 5),
        ("max_tokens", -1),
        ("length_penalty", float("nan")),
        ("length_penalty", 6),
    ],
)
def test_bad_values_are_refused_in_words(setting: str, value: Any) -> None:
    with pytest.raises(SearchError, match=f"^{setting} must be .* not "):
        BeamOptions(**{setting: value})
