"""What `bench` counts and times; how fast anything is, is not for tests to say."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from chatapp.chat.bench import BenchOptions, BenchResult, Measured
from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource, Progress
from chatapp.engine.engine import LocalEngine
from tests.tiny_models import save_model


@dataclass
class Loaded:
    engine: LocalEngine
    facts: ModelFacts


@pytest.fixture(scope="module", params=["qwen2", "mamba"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = save_model(tmp_path_factory.mktemp("tiny") / request.param, request.param)
    engine = LocalEngine(folder / "prepared")
    source = ModelSource("tiny", str(folder), "folder")
    facts = engine.load(source, LoadOptions(device="cpu"), lambda _: None)
    return Loaded(engine, facts)


def test_every_way_of_writing_is_timed_in_every_round(loaded: Loaded) -> None:
    options = BenchOptions(prompt_tokens=10, new_tokens=6, rounds=2)
    *before, result = loaded.engine.bench(options, lambda: False)
    assert all(isinstance(event, Progress) for event in before)
    assert isinstance(result, BenchResult)
    assert not result.cancelled
    by_name = {one.name: one for one in result.measured}
    names = ["second_turn", "decode", "records"]
    assert [name for name in by_name if "prefill" not in name] == [
        *names,
        "trace",
        "generate",
        "no_cache",
    ]
    for one in result.measured:
        assert len(one.seconds) == 2
        assert all(seconds > 0 for seconds in one.seconds)
    # The first of 6 tokens comes from reading the prompt's 10; the others take a pass each.
    for name in ("decode", "records", "trace", "generate"):
        assert (by_name[name].tokens, by_name[name].token_passes) == (5, 10 + 5)
    assert (by_name["prefill_16"].tokens, by_name["prefill_16"].token_passes) == (16, 16)
    assert by_name["second_turn"].token_passes == 16
    assert by_name["second_turn"].base in by_name
    assert (by_name["no_cache"].tokens, by_name["no_cache"].token_passes) == (2, 10 + 11)


def test_stopped_in_its_first_round_it_tells_nothing(loaded: Loaded) -> None:
    left = iter([False] * 6)  # in the middle of the first round that counts
    options = BenchOptions(prompt_tokens=5, new_tokens=3, rounds=3)
    *_, result = loaded.engine.bench(options, lambda: next(left, True))
    assert isinstance(result, BenchResult)
    assert result.cancelled
    assert result.measured == ()


def test_more_than_the_context_is_refused_with_the_numbers(loaded: Loaded) -> None:
    room = loaded.facts.context_length
    options = BenchOptions(prompt_tokens=room, new_tokens=3)
    with pytest.raises(EngineError, match=f"{room} tokens of a prompt and 3 new ones are more"):
        list(loaded.engine.bench(options, lambda: False))


def test_a_ratio_is_made_within_each_round() -> None:
    def measured(tokens: int, *seconds: float) -> Measured:
        return Measured(
            name="x", words="x", tokens=tokens, token_passes=0, seconds=seconds, base="decode"
        )

    # The machine was three times slower in the second round; the ratio stays what it is.
    base, other = measured(10, 1.0, 3.0, 1.0), measured(5, 1.0, 3.0, 1.0)
    assert other.ratio_to(base) == pytest.approx(0.5)
    assert base.tokens_per_second == pytest.approx(10)
