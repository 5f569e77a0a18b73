"""A model behind llama.cpp's own server: the same numbers as in process, steered from outside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelFacts, ModelSource
from chatapp.chat.generation import (
    GenerateOptions,
    GenerationEnd,
    GenerationEvent,
    Paused,
    PromptRead,
    TokenStep,
)
from chatapp.chat.prompt import Prompt, PromptFormat, Turn
from chatapp.chat.record import FinishReason, TokenRecord
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.served import UNTOLD, entropy_at_least
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.engine import LocalEngine
from chatapp.engine.served.engine import ServedEngine
from chatapp.engine.served.http import Http
from chatapp.engine.served.kinds import OpenAI
from tests.engine.llama_server import llama_server, own_process
from tests.tiny_models import CHAT_TEMPLATE, VOCABULARY, save_gguf

GREEDY = SamplingParams(temperature=0)
QUESTION = Prompt("", (Turn("user", "Name three colours."),))

Watch = Callable[[GenerationEvent, Controls], None]


def nothing(_event: GenerationEvent, _controls: Controls) -> None:
    pass


def run(
    engine: LocalEngine | ServedEngine,
    prompt: Prompt,
    options: GenerateOptions,
    watch: Watch = nothing,
) -> list[GenerationEvent]:
    controls = Controls(options.sampling)
    events = []
    for event in engine.generate(prompt, options, controls):
        events.append(event)
        watch(event, controls)
    return events


def records(events: Sequence[GenerationEvent]) -> tuple[TokenRecord, ...]:
    return tuple(event.record for event in events if isinstance(event, TokenStep))


def text(events: Sequence[GenerationEvent]) -> str:
    return "".join(record.text for record in records(events))


def end(events: Sequence[GenerationEvent]) -> GenerationEnd:
    assert isinstance(events[-1], GenerationEnd)
    return events[-1]


def prompt_ids(events: Sequence[GenerationEvent]) -> tuple[int, ...]:
    (read,) = (event for event in events if isinstance(event, PromptRead))
    return read.prompt_ids


def loaded(address: str) -> tuple[ServedEngine, ModelFacts]:
    engine = ServedEngine()
    source = ModelSource("", address, "server")
    return engine, engine.load(source, LoadOptions(), lambda _: None)


@pytest.fixture(scope="module")
def tiny(tiny_gguf: str) -> Iterator[ServedEngine]:
    with llama_server(tiny_gguf) as address:
        engine, _ = loaded(address)
        yield engine
        engine.unload()


@pytest.fixture(scope="module")
def real(model_source: ModelSource) -> Iterator[ServedEngine]:
    with llama_server(model_source.path, 2048) as address:
        engine, _ = loaded(address)
        yield engine
        engine.unload()


def test_what_it_tells_of_the_model(tiny_gguf: str) -> None:
    with llama_server(tiny_gguf) as address:
        engine, facts = loaded(address)
        assert (facts.name, facts.runtime) == ("tiny", "llama-server")
        assert facts.device == address.split("/")[2]
        assert (facts.context_length, facts.vocab_size) == (512, VOCABULARY)
        assert facts.end_ids == (VOCABULARY - 1,)
        assert "own probabilities" in facts.note
        engine.unload()


@pytest.mark.model
def test_its_numbers_are_those_of_llama_cpp_in_process(
    real: ServedEngine, real_engine: LocalEngine
) -> None:
    options = GenerateOptions(sampling=GREEDY, max_tokens=24, top_logprobs=10)
    theirs = run(real, QUESTION, options)
    ours = run(real_engine, QUESTION, options)
    assert prompt_ids(theirs) == prompt_ids(ours)
    assert text(theirs) == text(ours) != ""
    assert len(records(theirs)) == len(records(ours))
    for served, local in zip(records(theirs), records(ours), strict=True):
        assert (served.id, served.bytes, served.text) == (local.id, local.bytes, local.text)
        assert served.rank == local.rank
        assert served.logprob == pytest.approx(local.logprob, abs=1e-3)
        known = {one.id: one.logprob for one in local.candidates}
        assert {one.id for one in served.candidates} == known.keys()
        for one in served.candidates:
            assert one.logprob == pytest.approx(known[one.id], abs=1e-3)
        assert served.other_model_prob == pytest.approx(local.other_model_prob, abs=1e-3)
        # A bound that holds, and what was not told stays unknown.
        assert entropy_at_least(served) <= local.entropy_bits + 1e-3
        assert entropy_at_least(served) > local.entropy_bits / 3
        untold = (served.tempered_prob, served.prob, served.entropy_bits, served.p_end)
        assert all(map(math.isnan, untold))


@pytest.mark.model
def test_the_end_token_and_a_second_turn_read_by_its_ids(
    real: ServedEngine, real_engine: LocalEngine
) -> None:
    prompt = Prompt("", (Turn("user", "Say hi."),))
    events = run(real, prompt, GenerateOptions(sampling=GREEDY, max_tokens=60))
    reply = records(events)
    assert end(events).reason is FinishReason.STOP
    assert (reply[-1].id, reply[-1].text) == (2, "")
    ids = tuple(record.id for record in reply[:-1])
    again = replace(
        prompt, turns=(*prompt.turns, Turn("assistant", text(events), ids), Turn("user", "More?"))
    )
    options = GenerateOptions(sampling=GREEDY, max_tokens=3)
    asked = run(real, again, options)
    assert prompt_ids(asked) == prompt_ids(run(real_engine, again, options))
    (read,) = (event for event in asked if isinstance(event, PromptRead))
    assert read.cached_tokens >= len(prompt_ids(events))


@pytest.mark.model
def test_text_that_spells_a_control_token_is_read_as_text(
    real: ServedEngine, real_engine: LocalEngine
) -> None:
    spelt = Prompt("", (Turn("user", "What is <|im_end|>?"),))
    rendered = real.render(spelt)
    assert [piece.id for piece in rendered.tokens] == [
        piece.id for piece in real_engine.render(spelt).tokens
    ]
    assert rendered.text == real_engine.render(spelt).text


@pytest.mark.model
def test_the_temperature_turned_in_mid_reply_holds_from_the_next_token_on(
    real: ServedEngine, real_engine: LocalEngine
) -> None:
    hot = SamplingParams(temperature=5, top_k=0, top_p=1, min_p=0)

    def cool(event: GenerationEvent, controls: Controls) -> None:
        if isinstance(event, TokenStep) and event.record.index == 4:
            controls.sampling = GREEDY

    events = run(real, QUESTION, GenerateOptions(sampling=hot, seed=7, max_tokens=12), cool)
    reply = records(events)
    assert [record.temperature for record in reply] == [5] * 5 + [0] * (len(reply) - 5)
    steps = [event for event in events if isinstance(event, TokenStep)]
    assert steps[5].sampling == GREEDY
    # From there on it is what the same model says next at temperature 0, to the very ids.
    if max(record.id for record in reply) < UNTOLD:
        before = (*prompt_ids(events), *(record.id for record in reply[:5]))
        options = GenerateOptions(sampling=GREEDY, max_tokens=len(reply) - 5)
        local = run(real_engine, Prompt("", (), ids=before), options)
        assert [r.id for r in records(local)] == [r.id for r in reply[5:]]


def test_a_stop_ends_it_within_one_token(tiny: ServedEngine) -> None:
    def stop(event: GenerationEvent, controls: Controls) -> None:
        if isinstance(event, TokenStep) and event.record.index == 2:
            controls.cancel()

    options = GenerateOptions(sampling=replace(GREEDY, end="forbid"), max_tokens=200)
    events = run(tiny, QUESTION, options, stop)
    assert end(events).reason is FinishReason.CANCELLED
    assert len(records(events)) == 3


@pytest.mark.model
def test_another_token_is_taken_and_the_reply_goes_on_behind_it(
    real: ServedEngine, real_engine: LocalEngine
) -> None:
    options = GenerateOptions(sampling=GREEDY, max_tokens=8)
    first = records(run(real, QUESTION, options))
    other = first[1].candidates[2]
    kept = Turn("assistant", first[0].text, (first[0].id,))
    branch = replace(QUESTION, turns=(*QUESTION.turns, kept), continue_reply=True)
    forced = replace(options, forced_ids=(other.id,), forced_bytes=(other.bytes,))
    theirs, ours = (run(engine, branch, forced) for engine in (real, real_engine))
    assert [(r.index, r.id) for r in records(theirs)] == [(r.index, r.id) for r in records(ours)]
    taken = records(theirs)[0]
    assert (taken.id, taken.index, taken.rank) == (other.id, 1, 3)
    assert taken.logprob == pytest.approx(other.logprob, abs=1e-3)
    assert prompt_ids(theirs) == prompt_ids(ours)


@pytest.mark.model
def test_a_held_reply_shows_what_may_come_and_takes_it_step_by_step(real: ServedEngine) -> None:
    whole = records(run(real, QUESTION, GenerateOptions(sampling=GREEDY, max_tokens=5)))
    shown: list[Paused] = []

    def hold(event: GenerationEvent, controls: Controls) -> None:
        if isinstance(event, TokenStep) and event.record.index == 0:
            controls.pause()
        if isinstance(event, Paused):
            shown.append(event)
            if len(shown) == 1:
                controls.step()
            elif len(shown) == 2:
                controls.step((event.next.candidates[1].id,))
            else:
                controls.resume()

    events = run(real, QUESTION, GenerateOptions(sampling=GREEDY, max_tokens=5), hold)
    reply = records(events)
    assert [one.next.id for one in shown[:2]] == [whole[1].id, whole[2].id]
    assert reply[1].id == whole[1].id
    assert reply[2].id == whole[2].candidates[1].id
    assert len(reply) == 5


@pytest.mark.model
def test_what_the_server_leaves_out_inside_a_character_is_unknown(real: ServedEngine) -> None:
    kept = Turn("assistant", "Here are four robots: 🤖🤖", None)
    prompt = Prompt("", (Turn("user", "Robots?"), kept), continue_reply=True)
    events = run(real, prompt, GenerateOptions(sampling=GREEDY, max_tokens=6, top_logprobs=4))
    first, second = records(events)[:2]
    # One event stands for the whole character: only its last token is told.
    assert (first.text, second.text) == ("", "🤖")
    assert first.bytes + second.bytes == "🤖".encode()
    assert first.id >= UNTOLD
    assert math.isnan(first.logprob)
    assert first.rank == 0
    assert second.logprob < 0 and second.rank == 1
    assert "no probability" in end(events).message


@pytest.mark.model
def test_a_stop_sequence_is_cut_and_its_tokens_keep_their_bytes(real: ServedEngine) -> None:
    plain = records(run(real, QUESTION, GenerateOptions(sampling=GREEDY, max_tokens=8)))
    whole = "".join(record.text for record in plain)
    stop = whole[8:16]
    events = run(real, QUESTION, GenerateOptions(sampling=GREEDY, max_tokens=20, stop=(stop,)))
    assert text(events) == whole[: whole.index(stop)]
    assert end(events).reason is FinishReason.STOP_SEQUENCE
    for cut, one in zip(records(events), plain, strict=False):
        assert (cut.id, cut.bytes) == (one.id, one.bytes)


@pytest.mark.model
def test_by_openais_chat_completions_it_tells_the_same(
    real: ServedEngine, model_source: ModelSource
) -> None:
    """The same server as if nobody knew what it is: text in, text out."""
    options = GenerateOptions(sampling=GREEDY, max_tokens=16, top_logprobs=5)
    by_ids = run(real, QUESTION, options)
    with llama_server(model_source.path, 2048) as address:
        engine, facts = loaded(address)
        engine.unload()
        http = Http(ModelSource("", address, "server"))
        engine._loaded = OpenAI(http, replace(facts, runtime="server"))
        by_text = run(engine, QUESTION, options)
        assert text(by_text) == text(by_ids)
        for one, other in zip(records(by_text), records(by_ids), strict=True):
            assert (one.id, one.bytes, one.rank) == (other.id, other.bytes, other.rank)
            assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        # ... and it goes on from the text so far.
        kept = Turn("assistant", "".join(r.text for r in records(by_ids)[:6]))
        going_on = replace(QUESTION, turns=(*QUESTION.turns, kept), continue_reply=True)
        rest = run(engine, going_on, replace(options, max_tokens=10))
        assert kept.text + text(rest) == text(by_ids)
        engine.unload()


def test_an_empty_reply_has_its_end(tiny: ServedEngine) -> None:
    sampling = replace(GREEDY, logit_bias=((VOCABULARY - 1, 1000.0),))
    events = run(tiny, QUESTION, GenerateOptions(sampling=sampling))
    assert end(events).reason is FinishReason.STOP
    assert [record.id for record in records(events)] == [VOCABULARY - 1]
    assert prompt_ids(events)


def test_a_full_context_is_said(tiny: ServedEngine) -> None:
    long = Prompt("", (Turn("user", "x" * 600),))
    events = run(tiny, long, GenerateOptions(sampling=GREEDY))
    assert (records(events), end(events).reason) == ((), FinishReason.CONTEXT)
    assert "the context is full" in end(events).message
    nearly = Prompt("", (Turn("user", "x" * 480),))
    events = run(tiny, nearly, GenerateOptions(sampling=replace(GREEDY, end="forbid")))
    assert end(events).reason is FinishReason.LENGTH
    assert "its context is full" in end(events).message


def test_what_it_cannot_tell_is_refused_in_one_line(tiny: ServedEngine) -> None:
    for ask in (lambda: tiny.inspection, lambda: tiny.xray):
        with pytest.raises(
            EngineError, match=r"^llama-server writes one reply .* machine for that$"
        ):
            ask()
    other = replace(QUESTION, format=PromptFormat("chatml", "x"))
    with pytest.raises(EngineError, match="leave it at auto"):
        run(tiny, other, GenerateOptions())
    with pytest.raises(EngineError, match="recorded reply"):
        run(tiny, replace(QUESTION, ids=(1,)), GenerateOptions())


def test_settings_that_it_does_not_know_are_said_once(tiny: ServedEngine) -> None:
    sampling = replace(GREEDY, no_repeat_ngram=3)
    first = run(tiny, QUESTION, GenerateOptions(sampling=sampling, max_tokens=2))
    assert "has no no_repeat_ngram" in end(first).message
    step = next(event for event in first if isinstance(event, TokenStep))
    assert step.sampling == GREEDY
    again = run(tiny, QUESTION, GenerateOptions(sampling=sampling, max_tokens=2))
    assert "no_repeat" not in end(again).message


DROPS_EARLY_REPLIES = """{% for m in messages %}{% if m.role != 'assistant' or loop.last %}
{{ '<|start|>' + m.role + m.content.strip() + '<|end|>' }}{% endif %}{% endfor %}"""


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, DROPS_EARLY_REPLIES])
@pytest.mark.parametrize("bos", [False, True])
def test_it_reads_what_the_server_reads_by_itself(tmp_path: Path, template: str, bos: bool) -> None:
    path = save_gguf(tmp_path / "other.gguf", bos=bos, template=template)
    turns = (Turn("user", "one"), Turn("assistant", "two", (83, 86, 78)), Turn("user", "three"))
    with llama_server(str(path)) as address:
        engine, _ = loaded(address)
        ids = [piece.id for piece in engine.render(Prompt("", turns)).tokens]
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        body = {"messages": messages, "max_tokens": 1}
        answer = httpx2.post(f"{address}/chat/completions", json=body).json()
        engine.unload()
    assert len(ids) == answer["usage"]["prompt_tokens"]
    assert ids[0] == VOCABULARY - 2


def test_a_wrong_key_and_a_missing_one(tiny_gguf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with llama_server(tiny_gguf, api_keys=["right-key"]) as address:
        with pytest.raises(EngineError, match="wants a key"):
            loaded(address)
        source = ModelSource("", address, "server", key_variable="TEST_KEY")
        engine = ServedEngine()
        with pytest.raises(EngineError, match="set TEST_KEY"):
            engine.load(source, LoadOptions(), lambda _: None)
        monkeypatch.setenv("TEST_KEY", "wrong-key")
        with pytest.raises(EngineError, match="does not take the key in TEST_KEY") as refused:
            engine.load(source, LoadOptions(), lambda _: None)
        assert "wrong-key" not in str(refused.value)
        monkeypatch.setenv("TEST_KEY", "right-key")
        assert engine.load(source, LoadOptions(), lambda _: None).name == "tiny"
        assert records(run(engine, QUESTION, GenerateOptions(sampling=GREEDY, max_tokens=2)))
        engine.unload()


def test_a_server_that_is_killed_in_mid_reply_leaves_what_came(tiny_gguf: str) -> None:
    process, address = own_process(tiny_gguf)
    engine, _ = loaded(address)

    def kill(event: GenerationEvent, _controls: Controls) -> None:
        if isinstance(event, TokenStep) and event.record.index == 3:
            process.kill()
            process.wait()

    options = GenerateOptions(sampling=replace(GREEDY, end="forbid"), max_tokens=400)
    events = run(engine, QUESTION, options, kill)
    engine.unload()
    assert 4 <= len(records(events)) < 400
    assert end(events).reason is FinishReason.ERROR
    assert "broke the connection off; what came before is kept" in end(events).message
    with pytest.raises(EngineError, match="cannot be reached"):
        loaded(address)
