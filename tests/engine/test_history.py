"""Logits that are kept: what half precision costs, what is forgotten, and how it comes back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelSource, Progress
from chatapp.engine.look.history import HEAD_LIMIT, LogitHistory, LogitRow, Rows, recompute
from tests.tiny_models import save_model

if TYPE_CHECKING:
    from chatapp.engine.runtimes.loader import LoadedModel

KINDS = ("gpt2", "qwen2", "gemma2", "mamba")


def random_row(seed: int, size: int = 49152, spread: float = 3.0) -> torch.Tensor:
    """Logits like a model's: many improbable tokens and a few probable ones."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.randn(size, generator=generator) * spread - 2
    row[:5] += torch.rand(5, generator=generator) * 15
    return row


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedModel]:
    from chatapp.engine.runtimes.loader import load

    loaded = {}
    for kind in KINDS:
        folder = save_model(tmp_path_factory.mktemp(kind), kind)
        source = ModelSource(name=kind, path=str(folder), kind="folder")
        loaded[kind] = load(source, LoadOptions(device="cpu"), Path(), lambda _: None)
    return loaded


# Rows


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("spread", [0.5, 3.0, 8.0])
def test_half_precision_costs_less_than_a_thousandth(temperature: float, spread: float) -> None:
    for seed in range(5):
        exact = random_row(seed, spread=spread)
        kept = LogitRow.of(exact).logits()
        wanted = (exact.double() / temperature).softmax(0)
        found = (kept.double() / temperature).softmax(0)
        assert (wanted - found).abs().max() < 1e-4  # what the module promises of real rows


def test_the_worst_row_stays_within_the_bound() -> None:
    """Every improbable token rounded to the same side, all of them together as likely as one."""
    worst = 0.0
    for offset in torch.linspace(0.004, 0.0079, 14).tolist():
        tail = -(math.floor(math.log(49151)) + offset)
        exact = torch.full((49152,), tail)
        exact[0] = 0.0
        kept = LogitRow.of(exact)
        found = (kept.half.double()).softmax(0)[0]  # the head would hide it
        worst = max(worst, abs(float(found - exact.double().softmax(0)[0])))
    assert 5e-4 < worst < 1e-3


def test_the_head_is_exact_and_above_all_others() -> None:
    exact = random_row(3)
    row = LogitRow.of(exact)
    kept = row.logits()
    best = exact.amax()
    near = (exact - best >= -8).nonzero().squeeze(1)
    assert row.head_ids.tolist() == near.tolist()
    assert torch.equal(kept[near], exact[near])
    others = torch.ones_like(exact, dtype=torch.bool)
    others[near] = False
    assert kept[others].max() <= kept[near].min()
    assert ((kept - exact).abs() <= 2**-11 * (best - exact) + 1e-5).all()


@pytest.mark.parametrize("row", [torch.zeros(5000), torch.linspace(0, 0.05, 5000)])
def test_flat_rows_have_a_head_of_limited_size(row: torch.Tensor) -> None:
    kept = LogitRow.of(row)
    assert kept.head_ids.numel() == HEAD_LIMIT
    assert (kept.logits() - row).abs().max() < 1e-4
    assert kept.logits().amax() == row.amax()


def test_what_the_model_rules_out_stays_out() -> None:
    exact = random_row(1, 500)
    exact[7:9] = -math.inf
    kept = LogitRow.of(exact).logits()
    assert torch.equal(kept == -math.inf, exact == -math.inf)


def test_other_types_are_taken_as_they_are() -> None:
    exact = random_row(2, 400).bfloat16()
    assert (LogitRow.of(exact).logits() - exact.float()).abs().max() < 0.01


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
    return all(torch.equal(row.logits(), want) for row, want in pairs)


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
    history._limit = old  # room for one of them
    assert history.rows([1, 2], [3, 4, 8]) is not None
    other = history.begin([7])
    history.append(other, 1, random_row(1, 1000))
    assert history.bytes_used <= old
    assert history.rows([7], [1]) is not None
    history._limit = 1 << 20
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
    tiny: dict[str, LoadedModel], kind: str, piece: int, monkeypatch: pytest.MonkeyPatch
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
        got, want = row.logits().softmax(0), wanted.softmax(0)
        assert (got - want).abs().max() < 1e-4
        assert row.logits().argmax() == wanted.argmax()
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert done[-1] == seen[-1].total == len(ids) - 1


def test_recomputing_can_be_cancelled(tiny: dict[str, LoadedModel]) -> None:
    seen: list[Progress] = []
    ids = [5] * 60
    rows = recompute(tiny["qwen2"], ids[:10], ids[10:], seen.append, lambda: bool(seen))
    assert rows is None
    assert len(seen) == 1


def test_recomputing_more_than_the_context_is_refused(tiny: dict[str, LoadedModel]) -> None:
    ids = [5] * 300
    with pytest.raises(EngineError, match=r"300 tokens and the model reads 256"):
        recompute(tiny["gpt2"], ids[:10], ids[10:], lambda _: None, lambda: False)


@pytest.mark.model
def test_recomputed_rows_equal_those_recorded_step_by_step(loaded_model: LoadedModel) -> None:
    from chatapp.engine.runtimes.cache import PrefixCache

    prompt = loaded_model.tokenizer.encode_text("The lighthouse keeper climbed the stairs and")
    history = LogitHistory(1 << 28)
    recording = history.begin(prompt)
    cache = PrefixCache(loaded_model)
    reply: list[int] = []
    with torch.inference_mode():
        logits = cache.read(prompt)
        for _ in range(12):
            token_id = int(logits.argmax())
            history.append(recording, token_id, logits)
            reply.append(token_id)
            logits = cache.read((token_id,))
    held = list(cache.ids)
    kept = history.rows(prompt, reply)
    again = recompute(loaded_model, prompt, reply, lambda _: None, lambda: False)
    assert kept is not None and again is not None
    assert cache.ids == held
    for one, other in zip(kept, again, strict=True):
        difference = one.logits().softmax(0) - other.logits().softmax(0)
        assert difference.abs().max() < 1e-4
