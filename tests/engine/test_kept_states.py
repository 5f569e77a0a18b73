"""Scoring from the final states beside the KV cache, against transformers reading the text anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.chat.record import TokenRecord
from chatapp.engine.decoding.prefill import prefill
from chatapp.engine.look.score import score
from chatapp.engine.runtimes.cache import PrefixCache
from chatapp.engine.runtimes.head import find_head
from chatapp.engine.runtimes.states import FinalStates
from tests.tiny_models import save_model

if TYPE_CHECKING:
    from chatapp.engine.runtimes.loader import LoadedModel

KINDS = ("gpt2", "qwen2", "gemma2", "mamba")
FIRST = "You are a lighthouse keeper's daughter 🏝️. Climb the stairs."
SECOND = "Zwölf mal zwölf ist 144; she lit the lamp herself."


def read(cache: PrefixCache, ids: Sequence[int]) -> int:
    """Prefill a prompt as a turn does. Returns how many of its ids were cached."""
    steps = prefill(cache, ids, lambda: False)
    with torch.inference_mode():
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                return int(stop.value.cached_tokens)


def write(cache: PrefixCache, ids: Sequence[int]) -> None:
    """Take tokens one by one, as decoding does."""
    with torch.inference_mode():
        for token_id in ids:
            cache.read((token_id,))


def run(
    loaded: LoadedModel, cache: PrefixCache, ids: list[int], places: Sequence[int] | None = None
) -> list[TokenRecord]:
    states = cache.states_of(ids)
    assert states is not None
    return list(
        score(loaded, ids, 1, 3, lambda _: None, lambda: False, places=places, states=states)
    )


def assert_equal(loaded: LoadedModel, ids: list[int], records: Sequence[TokenRecord]) -> None:
    """Every record is what transformers gives for its place in one pass over the text."""
    with torch.no_grad():
        wanted = loaded.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    for record in records:
        row = wanted[record.index - 1]
        assert record.id == ids[record.index]
        assert record.logprob == pytest.approx(float(row[record.id]), abs=1e-4)
        best = row.topk(3)
        for candidate, logprob in zip(record.candidates, best.values.tolist(), strict=False):
            assert candidate.logprob == pytest.approx(logprob, abs=1e-4)


@pytest.fixture
def no_layers(monkeypatch: pytest.MonkeyPatch) -> Callable[[LoadedModel], None]:
    """From the call on the layers of a model must not run."""

    def forbid(*_: object, **__: object) -> None:
        raise AssertionError("the layers ran")

    def switch_off(loaded: LoadedModel) -> None:
        layer = next(
            module
            for module in loaded.model.base_model.modules()
            if isinstance(module, torch.nn.ModuleList)
        )[0]
        monkeypatch.setattr(layer, "forward", forbid)

    return switch_off


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedModel]:
    from chatapp.engine.runtimes.loader import load

    loaded = {}
    for kind in KINDS:
        folder = save_model(tmp_path_factory.mktemp(kind), kind)
        source = ModelSource(name=kind, path=str(folder), kind="folder")
        loaded[kind] = load(source, LoadOptions(device="cpu"), Path(), lambda _: None)
    return loaded


@pytest.mark.parametrize("piece", [7, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_turns_and_branches_of_every_kind_of_model(
    tiny: dict[str, LoadedModel], kind: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Caps on logits, windows that slide past, states that cannot be cropped."""
    monkeypatch.setattr("chatapp.engine.look.teacher_forcing.PIECE_TOKENS", piece)
    loaded = tiny[kind]
    encode = loaded.tokenizer.encode_text
    cache = PrefixCache(loaded)
    first = encode(FIRST)[:50]
    read(cache, first)
    write(cache, encode("Yes, I will"))
    assert_equal(loaded, first, run(loaded, cache, first))
    second = [*cache.ids, *encode(SECOND)[:40]]
    read(cache, second)
    write(cache, encode("so"))
    records = run(loaded, cache, second)
    assert [record.index for record in records] == list(range(1, len(second)))
    assert_equal(loaded, second, records)
    branch = [*second[:60], *encode("elsewhere")]
    read(cache, branch)
    write(cache, encode("!"))
    assert_equal(loaded, branch, run(loaded, cache, branch))
    assert cache.states_of(second) is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_layers_do_not_run_again(
    tiny: dict[str, LoadedModel], kind: str, no_layers: Callable[[LoadedModel], None]
) -> None:
    loaded = tiny[kind]
    ids = loaded.tokenizer.encode_text(FIRST)[:40]
    cache = PrefixCache(loaded)
    read(cache, ids)
    no_layers(loaded)
    with pytest.raises(AssertionError, match="the layers ran"):
        loaded.model(torch.tensor([ids]))
    assert len(run(loaded, cache, ids)) == len(ids) - 1


def test_some_places_alone_with_their_texts(tiny: dict[str, LoadedModel]) -> None:
    """A letter of several tokens is told with its last one, wherever scoring begins."""
    loaded = tiny["qwen2"]
    ids = loaded.tokenizer.encode_text("aé and ü")
    cache = PrefixCache(loaded)
    read(cache, ids)
    places = [2, len(ids) - 2, len(ids) - 1]
    some = run(loaded, cache, ids, [0, *places])
    assert [record.index for record in some] == places
    assert [record.text for record in some] == ["é", "", "ü"]
    whole = {record.index: record for record in run(loaded, cache, ids)}
    for record in some:
        assert record.logprob == pytest.approx(whole[record.index].logprob, abs=1e-6)


def test_only_a_text_that_the_cache_holds_has_states(tiny: dict[str, LoadedModel]) -> None:
    loaded = tiny["qwen2"]
    ids = loaded.tokenizer.encode_text(FIRST)
    cache = PrefixCache(loaded)
    assert cache.states_of(ids) is None
    read(cache, ids)
    assert cache.states_of(ids) is not None
    assert cache.states_of([*ids[:-1], 7]) is not None  # nothing follows the last token
    assert cache.states_of([*ids[:-2], 7, 7]) is None
    assert cache.states_of([*ids, 7]) is not None
    assert cache.states_of([*ids, 7, 7]) is None
    cache.clear()
    assert cache.states_of(ids) is None
    assert cache.bytes_used == 0


def test_a_pass_that_fails_leaves_nothing(
    tiny: dict[str, LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = tiny["qwen2"]
    ids = loaded.tokenizer.encode_text(FIRST)
    cache = PrefixCache(loaded)
    read(cache, ids)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(loaded.model.lm_head, "forward", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            cache.read((5,))
    assert cache.states_of(ids) is None
    assert not loaded.model.base_model._forward_hooks
    read(cache, ids)
    assert_equal(loaded, ids, run(loaded, cache, ids))


def test_the_memory_is_bounded_and_grows_by_doubling() -> None:
    states = FinalStates(most_bytes=1000 * 4 * 4)
    rows = torch.arange(4.0).repeat(300, 1)
    states.append(rows[:1], 0)
    used = states.bytes_used
    for place in range(1, 200):
        states.append(rows[:1], place)
        assert states.bytes_used == used, "a step copies nothing but its own row"
    for place in range(200, 1400, 300):
        states.append(rows + place, place)
    assert len(states) == 1000
    assert states.bytes_used == 1000 * 4 * 4
    assert states[[0, 999]].tolist() == [[0, 1, 2, 3], [800, 801, 802, 803]]
    states.append(rows, 1400)  # what stands before it was left out
    assert len(states) == 1000
    states.crop(10)
    states.append(rows[:1] + 7, 10)
    assert states[[9, 10]].tolist() == [[0, 1, 2, 3], [7, 8, 9, 10]]
    states.clear()
    assert len(states) == states.bytes_used == 0


def test_past_the_bound_nothing_is_told_from_states(tiny: dict[str, LoadedModel]) -> None:
    loaded = tiny["qwen2"]
    ids = loaded.tokenizer.encode_text(FIRST)
    cache = PrefixCache(loaded)
    cache._states = FinalStates(most_bytes=20 * 32 * 4)
    read(cache, ids)
    assert cache.states_of(ids) is None
    assert cache.states_of(ids[:21]) is not None
    assert cache.ids == ids


class Unlike(torch.nn.Module):
    """A head whose logits don't follow from the states alone: each call adds one more."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head
        self.calls = 0

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        logits: torch.Tensor = self.head(states) + self.calls
        return logits


def test_a_head_that_gives_other_logits_is_not_used(
    tiny: dict[str, LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = tiny["qwen2"]
    assert find_head(loaded.model, loaded.input_device) is not None
    monkeypatch.setattr(loaded.model, "lm_head", Unlike(loaded.model.lm_head))
    assert find_head(loaded.model, loaded.input_device) is None
    ids = loaded.tokenizer.encode_text(FIRST)
    cache = PrefixCache(replace(loaded, head=None))
    read(cache, ids)
    assert cache.states_of(ids) is None


def test_what_accelerate_put_on_the_layers_stays(tiny: dict[str, LoadedModel]) -> None:
    """Layers spread over devices have a forward of their own, which the next pass needs again."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module

    loaded = tiny["qwen2"]
    base = loaded.model.base_model
    add_hook_to_module(base, AlignDevicesHook(execution_device="cpu", io_same_device=True))
    try:
        hooked = base.forward
        head = find_head(loaded.model, loaded.input_device)
        assert head is not None
        assert base.forward is hooked
        ids = loaded.tokenizer.encode_text(FIRST)
        cache = PrefixCache(replace(loaded, head=head))
        read(cache, ids)
        assert_equal(loaded, ids, run(loaded, cache, ids))
    finally:
        remove_hook_from_module(base)


@pytest.mark.model
def test_the_real_model_after_turns_and_a_branch(loaded_model: LoadedModel) -> None:
    encode = loaded_model.tokenizer.encode_text
    cache = PrefixCache(loaded_model)
    ids: list[int] = []
    for text, reply in ((FIRST, " Yes."), (SECOND, " It is so."), (FIRST, " Again?")):
        prompt = [*ids, *encode(text)]
        cached = read(cache, prompt)
        assert cached == len(ids)
        assert_equal(loaded_model, prompt, run(loaded_model, cache, prompt))
        write(cache, encode(reply))
        ids = list(cache.ids)
    branch = [*ids[:25], *encode(" But the lamp was cold.")]
    assert read(cache, branch) == 25
    assert_equal(loaded_model, branch, run(loaded_model, cache, branch))
