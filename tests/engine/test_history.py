"""Logits that are kept: what two bytes a token cost, what is forgotten, and how it comes back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelSource, Progress
from chatapp.engine.look.history import HEAD_LIMIT, LogitHistory, LogitRow, Rows, recompute
from chatapp.engine.sampler.alive import Array
from tests.engine.numpy_oracle import softmax
from tests.tiny_models import save_model

if TYPE_CHECKING:
    from chatapp.engine.runtimes.llama_cpp import LlamaCppRuntime
    from chatapp.engine.runtimes.transformers import TransformersRuntime

KINDS = ("gpt2", "qwen2", "gemma2", "mamba")


def random_row(seed: int, size: int = 49152, spread: float = 3.0) -> Array:
    """Logits like a model's: many improbable tokens and a few probable ones."""
    generator = np.random.default_rng(seed)
    row = generator.standard_normal(size, dtype=np.float32) * np.float32(spread) - np.float32(2)
    row[:5] += generator.random(5, dtype=np.float32) * 15
    return row


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TransformersRuntime]:
    from chatapp.engine.runtimes.loading import load

    loaded = {}
    for kind in KINDS:
        folder = save_model(tmp_path_factory.mktemp(kind), kind)
        source = ModelSource(name=kind, path=str(folder), kind="folder")
        loaded[kind] = load(source, LoadOptions(device="cpu"), Path(), lambda _: None)
    return loaded


# Rows


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("spread", [0.5, 3.0, 8.0])
def test_two_bytes_cost_less_than_a_thousandth(temperature: float, spread: float) -> None:
    for seed in range(5):
        exact = random_row(seed, spread=spread)
        kept = LogitRow.of(exact).logits()
        wanted = softmax(exact.astype(np.float64) / temperature)
        found = softmax(kept.astype(np.float64) / temperature)
        assert np.abs(wanted - found).max() < 1e-4  # what the module promises of real rows


def test_the_worst_row_stays_within_the_bound() -> None:
    """Every improbable token rounded to the same side, all of them together as likely as one."""
    worst = 0.0
    for offset in np.linspace(0, 0.001, 40):
        exact = np.full(49152, -math.log(49151) - offset, dtype=np.float32)
        exact[0], exact[1] = 0.0, -60.0
        kept = LogitRow.of(exact)
        distances = kept.steps * kept.step  # the head would hide it
        found = softmax(-distances.astype(np.float64))[0]
        worst = max(worst, abs(float(found - softmax(exact.astype(np.float64))[0])))
    assert 1e-5 < worst < 3e-4


def test_the_head_is_exact_and_above_all_others() -> None:
    exact = random_row(3)
    row = LogitRow.of(exact)
    kept = row.logits()
    best = exact.max()
    near = np.flatnonzero(exact - best >= -8)
    assert set(near) <= set(row.head.ids) or row.head.count == HEAD_LIMIT
    head = np.sort(row.head.ids)
    assert np.array_equal(kept[head], exact[head])
    others = np.ones(exact.size, dtype=np.bool_)
    others[head] = False
    assert kept[others].max() <= kept[head].min()
    assert (np.abs(kept - exact) <= row.step / 2 + 1e-5).all()


@pytest.mark.parametrize(
    "row", [np.zeros(5000, dtype=np.float32), np.linspace(0, 0.05, 5000, dtype=np.float32)]
)
def test_flat_rows_have_a_head_of_limited_size(row: Array) -> None:
    kept = LogitRow.of(row)
    assert kept.head.count == HEAD_LIMIT
    assert np.abs(kept.logits() - row).max() < 1e-4
    assert kept.logits().max() == row.max()


def test_what_the_model_rules_out_stays_out() -> None:
    exact = random_row(1, 500)
    exact[7:9] = -math.inf
    kept = LogitRow.of(exact)
    assert np.array_equal(kept.logits() == -math.inf, exact == -math.inf)
    assert kept.alive().count == 498


# The history


def record(history: LogitHistory, prompt: list[int], reply: list[int], kept: int = 0) -> Any:
    recording = history.begin(prompt, reply[:kept])
    for index in range(kept, len(reply)):
        history.append(recording, reply[index], random_row(100 * len(prompt) + index, 1000))
    return recording


def same(rows: Rows | None, seeds: list[int]) -> bool:
    assert rows is not None
    wanted = [LogitRow.of(random_row(seed, 1000)).logits() for seed in seeds]
    pairs = zip(rows, wanted, strict=True)
    return all(np.array_equal(row.logits(), want) for row, want in pairs)


def test_rows_are_found_by_the_exact_ids() -> None:
    history = LogitHistory(1 << 20)
    record(history, [1, 2], [3, 4, 5])
    assert same(history.rows([1, 2], [3, 4, 5]), [200, 201, 202])
    assert same(history.rows([1, 2], [3, 4]), [200, 201])
    assert same(history.rows([1, 2, 3], [4, 5]), [201, 202])
    assert same(history.rows([1, 2], [3, 4, 9]), [200, 201, 202])  # the same context before 9
    assert history.rows([1, 2], [3, 9, 5]) is None
    assert history.rows([1], [2, 3, 4]) is None
    assert history.rows([1, 2], [3, 4, 5, 6]) is None
    assert history.rows([9, 2], [3, 4]) is None


def test_one_row_is_found_by_the_ids_before_it() -> None:
    history = LogitHistory(1 << 20)
    record(history, [1, 2], [3, 4, 5])
    row = history.row([1, 2, 3])
    assert row is not None and same((row,), [201])
    assert history.row([1, 2, 3, 4, 5]) is None  # about the next token, which is not taken
    assert history.row([1, 2, 9]) is None


def test_a_branch_has_the_common_rows_in_common() -> None:
    history = LogitHistory(1 << 20)
    record(history, [1, 2], [3, 4, 5, 6])
    before = history.bytes_used
    branch = history.begin([1, 2], [3, 4])
    assert history.bytes_used == before
    history.append(branch, 9, random_row(7, 1000))
    assert same(history.rows([1, 2], [3, 4, 9]), [200, 201, 7])
    assert same(history.rows([1, 2], [3, 4, 5, 6]), [200, 201, 202, 203])
    first, second = history.rows([1, 2], [3, 4, 9]), history.rows([1, 2], [3, 4, 5, 6])
    assert first is not None and second is not None
    assert first[0] is second[0]


def test_going_on_without_the_old_rows_keeps_the_new_ones() -> None:
    history = LogitHistory(1 << 20)
    record(history, [1, 2], [3, 4, 5, 6], kept=2)
    assert history.rows([1, 2], [3, 4, 5, 6]) is None
    assert same(history.rows([1, 2, 3, 4], [5, 6]), [202, 203])


def test_the_reply_used_longest_ago_is_forgotten_first() -> None:
    size = LogitRow.of(random_row(0, 1000)).bytes_used
    history = LogitHistory(10 * size)
    record(history, [1], [5, 6, 7])
    record(history, [2, 2], [5, 6, 7])
    assert history.rows([1], [5, 6, 7]) is not None  # used again
    record(history, [3, 3, 3], [5, 6, 7, 8])
    assert history.rows([2, 2], [5, 6, 7]) is None
    assert history.rows([1], [5, 6, 7]) is not None
    assert history.rows([3, 3, 3], [5, 6, 7, 8]) is not None
    assert history.bytes_used <= 10 * size


def test_a_reply_larger_than_the_limit_is_not_kept() -> None:
    size = LogitRow.of(random_row(0, 1000)).bytes_used
    history = LogitHistory(3 * size)
    record(history, [1], list(range(10)))
    assert history.rows([1], list(range(10))) is None
    assert history.bytes_used == 0


def test_forgetting_a_branch_leaves_the_other_whole() -> None:
    history = LogitHistory(1 << 20)
    record(history, [1, 2], [3, 4, 5])
    old = history.bytes_used
    record(history, [1, 2], [3, 4, 8], kept=2)
    history.limit_bytes = old  # room for one of them
    assert history.rows([1, 2], [3, 4, 8]) is not None
    other = history.begin([7])
    history.append(other, 1, random_row(1, 1000))
    assert history.bytes_used <= old
    assert history.rows([7], [1]) is not None
    history.limit_bytes = 1 << 20
    record(history, [1, 2], [3, 4, 5])
    assert same(history.rows([1, 2], [3, 4, 5]), [200, 201, 202])


def test_clearing_forgets_a_reply_under_way() -> None:
    history = LogitHistory(1 << 20)
    recording = record(history, [1], [2])
    history.clear()
    history.append(recording, 3, random_row(1, 1000))
    assert history.bytes_used == 0
    assert history.rows([1], [2]) is None


# Computing anew


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piece", [7, 256])
def test_recomputed_rows_equal_one_pass(
    tiny: dict[str, TransformersRuntime], kind: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatapp.engine.look.teacher_forcing.PIECE_TOKENS", piece)
    loaded = tiny[kind]
    ids = torch.randint(0, 256, (70,), generator=torch.Generator().manual_seed(1)).tolist()
    seen: list[Progress] = []
    rows = recompute(loaded, ids[:40], ids[40:], seen.append, lambda: False)
    assert rows is not None
    with torch.no_grad():
        logits = loaded.model(torch.tensor([ids])).logits[0].float()
    for row, wanted in zip(rows, logits[39:-1], strict=True):
        got, want = softmax(row.logits().astype(np.float64)), wanted.softmax(0).numpy()
        assert np.abs(got - want).max() < 1e-4
        assert row.logits().argmax() == wanted.argmax()
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert done[-1] == seen[-1].total == len(ids) - 1


def test_recomputing_can_be_cancelled(tiny: dict[str, TransformersRuntime]) -> None:
    seen: list[Progress] = []
    ids = [5] * 60
    rows = recompute(tiny["qwen2"], ids[:10], ids[10:], seen.append, lambda: bool(seen))
    assert rows is None
    assert len(seen) == 1


def test_recomputing_more_than_the_context_is_refused(tiny: dict[str, TransformersRuntime]) -> None:
    ids = [5] * 300
    with pytest.raises(EngineError, match=r"300 tokens and the model reads 256"):
        recompute(tiny["gpt2"], ids[:10], ids[10:], lambda _: None, lambda: False)


@pytest.mark.model
def test_recomputed_rows_are_those_recorded_step_by_step(
    loaded_model: LlamaCppRuntime,
) -> None:

    prompt = loaded_model.tokenizer.encode_text("The lighthouse keeper climbed the stairs and")
    history = LogitHistory(1 << 28)
    recording = history.begin(prompt)
    sequence = loaded_model.sequence()
    reply: list[int] = []
    logits = sequence.read(prompt).logits[-1]
    for _ in range(12):
        token_id = int(logits.argmax())
        history.append(recording, token_id, logits)
        reply.append(token_id)
        logits = sequence.read((token_id,)).logits[0]
    held = list(sequence.ids)
    kept = history.rows(prompt, reply)
    again = recompute(loaded_model, prompt, reply, lambda _: None, lambda: False)
    assert kept is not None and again is not None
    assert sequence.ids == held
    sequence.close()
    for one, other in zip(kept, again, strict=True):
        # llama.cpp's numbers depend on what is read together, in their last digits.
        difference = softmax(one.logits().astype(float)) - softmax(other.logits().astype(float))
        assert np.abs(difference).max() < 0.05
