"""Several replies side by side against each of them alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.chat.generation import GenerateOptions, GenerationEnd, PromptRead, TokenStep
from chatapp.chat.prompt import Prompt, Turn
from chatapp.chat.record import FinishReason
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.search import ColumnEvent, SearchError, SeveralEvent
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.decoding.decode import generate
from chatapp.engine.decoding.reply import Task
from chatapp.engine.decoding.several import generate_several
from chatapp.engine.look.history import LogitHistory
from chatapp.engine.prompt.render import render_prompt
from chatapp.engine.runtimes.base import KVSequence
from chatapp.engine.runtimes.loading import load
from chatapp.engine.runtimes.transformers import TransformersRuntime
from tests.tiny_models import save_model

PROMPT = tuple(range(40, 64))
GREEDY = SamplingParams(temperature=0)
WARM = SamplingParams(temperature=1.3, top_k=0, top_p=1, min_p=0)
MIROSTAT = SamplingParams(temperature=1, mirostat_tau=4)


class Column:
    """What one reply told."""

    def __init__(self, events: Sequence[object]) -> None:
        self.steps = [event for event in events if isinstance(event, TokenStep)]
        self.ids = [step.record.id for step in self.steps]
        self.text = "".join(step.record.text for step in self.steps)
        (self.end,) = (event for event in events if isinstance(event, GenerationEnd))


def task(sampling: SamplingParams, seed: int = 1, **others: Any) -> Task:
    options = GenerateOptions(
        sampling=sampling,
        seed=seed,
        max_tokens=others.pop("max_tokens", 16),
        top_logprobs=others.pop("top_logprobs", 3),
        forced_ids=others.pop("forced_ids", ()),
    )
    end_ids = others.pop("end_ids", ())
    return Task(others.pop("prompt_ids", PROMPT), options, end_ids, **others)


def write(
    loaded: TransformersRuntime,
    tasks: Sequence[Task],
    *,
    watch: Callable[[SeveralEvent, list[Controls]], None] = lambda *_: None,
    cache: KVSequence | None = None,
    batched: bool = True,
) -> list[Column]:
    """Write the columns; `watch` sees every event as it comes and may turn the controls."""
    controls = [Controls(one.options.sampling) for one in tasks]
    events: list[SeveralEvent] = []
    cache = cache or loaded.sequence()
    for event in generate_several(loaded, cache, tasks, controls, batched=batched):
        events.append(event)
        watch(event, controls)
    assert sum(isinstance(event, PromptRead) for event in events) <= 1
    told = [event for event in events if isinstance(event, ColumnEvent)]
    return [
        Column([one.event for one in told if one.column == number]) for number in range(len(tasks))
    ]


def alone(loaded: TransformersRuntime, one: Task) -> Column:
    events = generate(loaded, loaded.sequence(), one, Controls(one.options.sampling))
    return Column(list(events))


def assert_same(ours: Column, theirs: Column) -> None:
    assert ours.ids == theirs.ids
    assert ours.text == theirs.text
    assert ours.end.reason is theirs.end.reason
    for mine, yours in zip(ours.steps, theirs.steps, strict=True):
        assert mine.sampling == yours.sampling
        assert mine.record.index == yours.record.index
        assert mine.record.draw == yours.record.draw
        assert mine.record.logprob == pytest.approx(yours.record.logprob, abs=1e-3)
        assert mine.record.prob == pytest.approx(yours.record.prob, abs=1e-3)


def token_of(event: SeveralEvent) -> tuple[int, int] | None:
    """Which column's which token an event tells of."""
    if isinstance(event, ColumnEvent) and isinstance(event.event, TokenStep):
        return event.column, event.event.record.index
    return None


def load_folder(folder: Path, context_length: int = 0) -> TransformersRuntime:
    source = ModelSource(folder.name, str(folder), "folder")
    options = LoadOptions(device="cpu", context_length=context_length)
    return load(source, options, folder.parent / "prepared", lambda _: None)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> TransformersRuntime:
    return load_folder(save_model(tmp_path_factory.mktemp("models") / "qwen2", "qwen2"))


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "gemma2"])
def test_each_column_is_what_it_is_alone(kind: str, batched: bool, tmp_path: Path) -> None:
    loaded = load_folder(save_model(tmp_path / kind, kind))
    # Lengths and end tokens differ, so that rows leave the batch at different times.
    tasks = [
        task(GREEDY),
        task(WARM, seed=5, max_tokens=9),
        task(WARM, seed=6, end_ids=tuple(range(0, 258, 9))),
        task(MIROSTAT, seed=7, forced_ids=(70, 71)),
    ]
    for ours, one in zip(write(loaded, tasks, batched=batched), tasks, strict=True):
        assert_same(ours, alone(loaded, one))


def test_a_recurrent_state_is_split_as_well(tmp_path: Path) -> None:
    loaded = load_folder(save_model(tmp_path / "mamba", "mamba"))
    tasks = [task(one, max_tokens=4, prompt_ids=PROMPT[:6]) for one in (GREEDY, WARM)]
    for ours, one in zip(write(loaded, tasks), tasks, strict=True):
        assert_same(ours, alone(loaded, one))


@pytest.mark.model
@pytest.mark.parametrize(
    ("question", "count"),
    [
        ("Why is the sky blue?", 6),
        pytest.param("Why is the sky blue?", 16, marks=pytest.mark.slow),
        pytest.param("Name three primary colours.", 16, marks=pytest.mark.slow),
    ],
)
def test_three_settings_on_the_real_model(
    reference_model: TransformersRuntime, question: str, count: int
) -> None:
    """Greedy and sampled columns; where a batch's rounding flips a near tie it would show here."""
    prompt = Prompt("", (Turn("user", question),))
    ids = tuple(render_prompt(reference_model.tokenizer, prompt).ids)
    end_ids = reference_model.facts.end_ids
    common = {"prompt_ids": ids, "end_ids": end_ids, "max_tokens": count}
    tasks = [
        task(GREEDY, **common),
        task(SamplingParams(), seed=3, **common),
        task(SamplingParams(temperature=1.3), seed=4, **common),
    ]
    for ours, one in zip(write(reference_model, tasks), tasks, strict=True):
        assert_same(ours, alone(reference_model, one))


def test_the_same_settings_with_different_seeds_differ(qwen: TransformersRuntime) -> None:
    columns = write(qwen, [task(WARM, seed=seed) for seed in (1, 2, 3)])
    assert len({tuple(column.ids) for column in columns}) == 3


def test_a_change_holds_for_one_columns_next_token(qwen: TransformersRuntime) -> None:
    def turn(event: SeveralEvent, controls: list[Controls]) -> None:
        if token_of(event) == (1, 3):
            controls[1].sampling = GREEDY

    columns = write(qwen, [task(WARM, seed=1), task(WARM, seed=2)], watch=turn)
    assert [column.steps[0].sampling for column in columns] == [WARM, WARM]
    assert [step.record.temperature for step in columns[0].steps] == [1.3] * 16
    assert [step.record.temperature for step in columns[1].steps] == [1.3] * 4 + [0] * 12
    assert columns[1].steps[4].sampling == GREEDY


@pytest.mark.parametrize("batched", [True, False])
def test_one_column_is_cancelled_and_the_others_go_on(
    qwen: TransformersRuntime, batched: bool
) -> None:
    def stop(event: SeveralEvent, controls: list[Controls]) -> None:
        if token_of(event) == (0, 2):
            controls[0].cancel()

    tasks = [task(WARM, seed=1), task(WARM, seed=2)]
    columns = write(qwen, tasks, watch=stop, batched=batched)
    assert len(columns[0].ids) == 3
    assert columns[0].end.reason is FinishReason.CANCELLED
    assert_same(columns[1], alone(qwen, tasks[1]))


def test_all_are_cancelled_while_the_prompt_is_read(qwen: TransformersRuntime) -> None:
    controls = [Controls(WARM), Controls(WARM)]
    for one in controls:
        one.cancel()
    tasks = [task(WARM), task(WARM)]
    *_, first, second = generate_several(qwen, qwen.sequence(), tasks, controls)
    for number, told in enumerate((first, second)):
        assert isinstance(told, ColumnEvent)
        assert told.column == number
        assert isinstance(told.event, GenerationEnd)
        assert told.event.reason is FinishReason.CANCELLED


def test_a_column_that_bans_everything_fails_alone(qwen: TransformersRuntime) -> None:
    nothing = replace(WARM, banned=tuple(range(258)))
    tasks = [task(nothing), task(WARM, seed=2)]
    columns = write(qwen, tasks)
    assert columns[0].end.reason is FinishReason.ERROR
    assert "no token to take" in columns[0].end.message
    assert_same(columns[1], alone(qwen, tasks[1]))


def test_stop_sequences_belong_to_a_column(qwen: TransformersRuntime) -> None:
    free = alone(qwen, task(GREEDY))
    stop = free.text[3:5]
    columns = write(qwen, [task(GREEDY), task(GREEDY, stop=(stop,))])
    assert columns[0].text == free.text
    assert columns[1].text == free.text[: free.text.index(stop)]
    assert columns[1].end.reason is FinishReason.STOP_SEQUENCE


def test_the_cache_holds_the_prompt_afterwards(qwen: TransformersRuntime) -> None:
    cache = qwen.sequence()
    first = write(qwen, [task(WARM, seed=seed) for seed in (1, 2)], cache=cache)
    assert cache.ids == list(PROMPT)
    again = write(qwen, [task(WARM, seed=seed) for seed in (1, 2)], cache=cache)
    assert [column.ids for column in again] == [column.ids for column in first]


def test_without_rows_the_columns_are_written_in_turn(
    qwen: TransformersRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("transformers.cache_utils.Cache.reorder_cache")
    order: list[int] = []

    def note(event: SeveralEvent, _: list[Controls]) -> None:
        if isinstance(event, ColumnEvent):
            order.append(event.column)

    tasks = [task(WARM, seed=1, max_tokens=3), task(WARM, seed=2, max_tokens=2)]
    columns = write(qwen, tasks, watch=note)
    assert order == [0, 0, 0, 0, 1, 1, 1]
    for ours, one in zip(columns, tasks, strict=True):
        assert_same(ours, alone(qwen, one))


def test_a_failing_model_ends_every_column_that_still_runs(
    qwen: TransformersRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = qwen.model.forward

    def fail(tokens: Any, **kwargs: Any) -> Any:
        if tokens.shape[0] == 2:
            raise RuntimeError("out of memory, say\nand a trace")
        return forward(tokens, **kwargs)

    tasks = [task(WARM, seed=1, max_tokens=2), task(WARM), task(WARM)]
    monkeypatch.setattr(qwen.model, "forward", fail)
    cache = qwen.sequence()
    columns = write(qwen, tasks, cache=cache)
    assert columns[0].end.reason is FinishReason.LENGTH
    for column in columns[1:]:
        assert column.end.reason is FinishReason.ERROR
        assert column.end.message == "the model failed: out of memory, say"
        assert len(column.ids) == 2
    assert cache.ids == []


def test_a_prompt_that_fills_the_context(tmp_path: Path) -> None:
    loaded = load_folder(save_model(tmp_path / "qwen2", "qwen2"), context_length=24)
    columns = write(loaded, [task(WARM), task(GREEDY)])
    assert [column.end.reason for column in columns] == [FinishReason.CONTEXT] * 2
    assert "24 of 24" in columns[1].end.message


def test_what_cannot_be_side_by_side_is_refused(qwen: TransformersRuntime) -> None:
    other = task(WARM, prompt_ids=(1, 2, 3))
    for tasks, controls, words in (
        ([], 0, "between 1 and 16"),
        ([task(WARM)] * 17, 17, "between 1 and 16"),
        ([task(WARM)], 2, "as many controls"),
        ([task(WARM), other], 2, "the same prompt"),
    ):
        running = generate_several(
            qwen, qwen.sequence(), tasks, [Controls(WARM) for _ in range(controls)]
        )
        with pytest.raises(SearchError, match=words):
            next(running)


@pytest.mark.parametrize("batched", [True, False])
def test_columns_keep_what_their_tokens_were_taken_from(
    qwen: TransformersRuntime, batched: bool
) -> None:
    tasks = [task(GREEDY), task(WARM, seed=5, max_tokens=9)]
    history = LogitHistory(1 << 24)
    controls = [Controls(one.options.sampling) for one in tasks]
    cache = qwen.sequence()
    told = list(generate_several(qwen, cache, tasks, controls, history, batched=batched))
    columns = [event for event in told if isinstance(event, ColumnEvent)]
    for number, one in enumerate(tasks):
        column = Column([event.event for event in columns if event.column == number])
        rows = history.rows(one.prompt_ids, column.ids)
        assert rows is not None
        for row, step in zip(rows, column.steps, strict=True):
            logits = row.logits().astype(np.float64)
            logprob = float(logits[step.record.id] - np.logaddexp.reduce(logits))
            assert logprob == pytest.approx(step.record.logprob, abs=1e-3)
