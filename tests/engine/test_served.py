"""Servers of other makes, in their shapes and with their faults; and text laid beside tokens."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelSource, Progress
from chatapp.chat.generation import GenerateOptions, TokenStep
from chatapp.chat.prompt import Prompt, Turn
from chatapp.chat.record import FinishReason
from chatapp.chat.sampling import SamplingParams
from chatapp.chat.served import UNTOLD, entropy_at_least
from chatapp.engine.served import http
from chatapp.engine.served.align import Aligner
from chatapp.engine.served.engine import ServedEngine
from chatapp.engine.served.kinds import Weighed
from tests.engine.model_server import DONE, Answer, ModelServer, delta, entry, sse
from tests.engine.test_served_llama import QUESTION, end, prompt_ids, records, run, text

CHAT = "/v1/chat/completions"
HELLO = sse(
    delta("") | {"prompt_token_ids": [5, 6, 7]},
    delta("Hello", entry("Hello", -0.5, ("Hello", -0.5), ("Hi", -1.5))),
    delta(" you", entry(" you", -2.0, (" there", -0.3), (" you", -2.0)), finish="stop"),
    DONE,
)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    server = ModelServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other at once."""
    monkeypatch.setattr(http, "WAITS", (0.0, 0.0))


def kind(server: ModelServer, owner: str, *, model: str = "m", **more: Any) -> None:
    listed = [{"id": model, "object": "model", "owned_by": owner, **more}]
    server.answers["/v1/models"] = [Answer({"object": "list", "data": listed})]


def says(server: ModelServer, *lines: bytes, path: str = CHAT, **more: Any) -> None:
    server.answers.setdefault(path, []).append(Answer(lines=lines, **more))


@pytest.fixture
def engine() -> Iterator[ServedEngine]:
    engine = ServedEngine()
    yield engine
    engine.unload()


def load(engine: ServedEngine, server: ModelServer, model: str = "", key: str = "") -> Any:
    source = ModelSource(model, server.url, "server", key_variable=key)
    return engine.load(source, LoadOptions(), lambda _: None)


OPTIONS = GenerateOptions(top_logprobs=2)


def test_vllm(engine: ServedEngine, server: ModelServer) -> None:
    kind(server, "vllm", max_model_len=4096)
    says(server, *HELLO)
    facts = load(engine, server)
    assert (facts.runtime, facts.name, facts.context_length) == ("vLLM", "m", 4096)
    sampling = SamplingParams(temperature=0.6, top_k=0, min_p=0.02, repetition_penalty=1.1)
    options = replace(OPTIONS, sampling=sampling, seed=2**40 + 3, max_tokens=7, stop=("\n",))
    system = replace(QUESTION, system="Be brief.")
    events = run(engine, system, options)
    assert text(events) == "Hello you"
    (body,) = server.bodies(CHAT)
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Name three colours."},
    ]
    asked = {"temperature": 0.6, "top_k": -1, "top_p": 0.95, "min_p": 0.02, "max_tokens": 7}
    asked |= {"repetition_penalty": 1.1, "stop": ["\n"], "logprobs": True, "top_logprobs": 2}
    asked |= {"return_token_ids": True, "stream": True, "min_tokens": 0, "seed": 3}
    assert {name: body[name] for name in asked} == asked
    hello, you, over = records(events)
    # The chosen token is found among the others, wherever it stands.
    assert (hello.rank, you.rank) == (1, 2)
    assert (hello.logprob, you.logprob) == (-0.5, -2.0)
    assert [one.token for one in you.candidates] == [" there", " you"]
    assert you.other_model_prob == pytest.approx(1 - math.exp(-0.3) - math.exp(-2))
    assert you.id >= UNTOLD and you.id == you.candidates[1].id != you.candidates[0].id
    assert all(map(math.isnan, (you.prob, you.tempered_prob, you.entropy_bits, you.other_prob)))
    # ... and the end has no number, since none was told.
    assert (over.text, over.rank) == ("", 0) and math.isnan(over.logprob)
    assert end(events).reason is FinishReason.STOP
    assert prompt_ids(events) == (5, 6, 7)


def test_the_entropy_is_a_bound(engine: ServedEngine, server: ModelServer) -> None:
    """H of (0.5, 0.25, and 0.25 in eight parts) is 1/2 + 1/2 + 5/4 = 2.25 bits."""
    kind(server, "vllm")
    half, quarter = math.log(0.5), math.log(0.25)
    says(server, *sse(delta("a", entry("a", half, ("a", half), ("b", quarter)), finish="length")))
    load(engine, server)
    (record,) = records(run(engine, QUESTION, OPTIONS))
    # What is told: no other token has more than 1/4, so the rest has at least 1/4 · 2 bits.
    assert entropy_at_least(record) == pytest.approx(1.5)
    assert entropy_at_least(record) <= 2.25


def test_one_candidate_more_than_asked_for_is_the_token_itself(
    engine: ServedEngine, server: ModelServer
) -> None:
    kind(server, "vllm")
    top = (("a", -0.2), ("b", -2.0), ("z", -9.0), ("q", -9999.0))
    says(server, *sse(delta("z", entry("z", -9.0, *top), finish="length", token_ids=[17])))
    load(engine, server)
    (record,) = records(run(engine, QUESTION, OPTIONS))
    assert record.id == 17
    assert record.rank == 0  # some place behind the second
    assert [one.rank for one in record.candidates] == [1, 2, 0, 0]
    assert record.candidates[3].logprob == -math.inf


def test_two_tokens_in_a_chunk_and_a_character_in_two_tokens(
    engine: ServedEngine, server: ModelServer
) -> None:
    kind(server, "vllm")
    says(
        server,
        *sse(
            delta("Yes,", entry("Yes", -0.1), entry(",", -0.2)),
            delta("", entry(" caf", -0.3)),
            delta(" caf", entry(b"\xc3", -0.4)),
            delta("é", entry(b"\xa9", -0.5)),
            delta("!", entry("!", -0.6), finish="length"),
        ),
    )
    load(engine, server)
    reply = records(run(engine, QUESTION, OPTIONS))
    assert [one.bytes for one in reply] == [b"Yes", b",", b" caf", b"\xc3", b"\xa9", b"!"]
    assert [one.text for one in reply] == ["Yes", ",", " caf", "", "é", "!"]
    assert [one.logprob for one in reply] == [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6]


def test_tokens_named_by_id(engine: ServedEngine, server: ModelServer) -> None:
    kind(server, "vllm")
    named = [{"token": f"token_id:{i}", "logprob": p, "bytes": None} for i, p in ((5, -1), (9, -2))]
    says(
        server,
        *sse(
            delta("A", {**named[1], "top_logprobs": named}),
            delta("B", entry("B", -0.5), finish="length"),
        ),
    )
    load(engine, server)
    first, second = records(run(engine, QUESTION, OPTIONS))
    assert (first.id, first.rank, first.text, second.text) == (9, 2, "A", "B")
    assert [one.id for one in first.candidates] == [5, 9]


def test_reasoning_that_is_sent_apart(engine: ServedEngine, server: ModelServer) -> None:
    kind(server, "vllm")
    says(
        server,
        *sse(
            delta(None, entry("Hm", -0.1), reasoning="Hm"),
            delta(None, entry("m", -0.2), reasoning="m"),
            delta("So", entry("</think>", -0.3), entry("So", -0.4), finish="length"),
        ),
    )
    load(engine, server)
    events = run(engine, QUESTION, OPTIONS)
    assert text(events) == "<think>\nHmm\n</think>\n\nSo"
    told = [(one.text, one.logprob) for one in records(events) if not math.isnan(one.logprob)]
    assert told == [("Hm", -0.1), ("m", -0.2), ("</think>", -0.3), ("So", -0.4)]


def test_sglang_tells_of_the_tempered_distribution(
    engine: ServedEngine, server: ModelServer
) -> None:
    kind(server, "sglang", max_model_len=100)
    says(server, *HELLO)
    assert load(engine, server).runtime == "SGLang"
    hello, you, _ = records(run(engine, QUESTION, OPTIONS))
    assert you.tempered_prob == pytest.approx(math.exp(-2))
    assert you.other_tempered_prob == pytest.approx(1 - math.exp(-0.3) - math.exp(-2))
    assert math.isnan(hello.logprob) and math.isnan(hello.other_model_prob)
    assert math.isnan(entropy_at_least(hello))
    assert "return_token_ids" not in server.bodies(CHAT)[0]
    # At temperature 0 or 1 and without penalties that is the model's own.
    for temperature in (0, 1):
        sampling = SamplingParams(temperature=temperature)
        _, you, _ = records(run(engine, QUESTION, replace(OPTIONS, sampling=sampling)))
        assert (you.logprob, math.isnan(you.tempered_prob)) == (-2, True)
        sampling = replace(sampling, presence_penalty=1)
        _, you, _ = records(run(engine, QUESTION, replace(OPTIONS, sampling=sampling)))
        assert (math.isnan(you.logprob), you.tempered_prob) == (True, math.exp(-2))


def test_settings_change_behind_a_whole_character(
    engine: ServedEngine, server: ModelServer
) -> None:
    """Half of one can't be told to a server that takes text."""
    kind(server, "vllm")
    halves = (entry(b"\xc3", -0.4), entry(b"\xa9", -0.5))
    says(server, *sse(delta("", halves[0]), delta("é", halves[1]), delta("x", entry("x", -1))))
    says(server, *sse(delta("y", entry("y", -1), finish="length")))
    load(engine, server)

    def turn(event: Any, controls: Any) -> None:
        if isinstance(event, TokenStep) and event.record.bytes == b"\xc3":
            controls.sampling = SamplingParams(temperature=0)

    events = run(engine, QUESTION, OPTIONS, turn)
    assert text(events) == "éy"
    assert [one.temperature for one in records(events)] == [0.7, 0.7, 0.0]
    assert server.bodies(CHAT)[1]["messages"][-1]["content"] == "é"


def ollama(server: ModelServer, *lines: dict[str, Any], **more: Any) -> None:
    kind(server, "library", model="llama3:latest")
    server.answers["/api/version"] = [Answer({"version": "0.13.0"})]
    details = {"family": "llama", "quantization_level": "Q4_K_M"}
    server.answers["/api/show"] = [Answer({"details": details})]
    says(server, *(json.dumps(line).encode() for line in lines), path="/api/chat", **more)


def test_ollama(engine: ServedEngine, server: ModelServer) -> None:
    top = [{"token": "Hi", "logprob": -0.4}, {"token": "Yo", "logprob": -1.4}]
    first = {"token": "Hi", "logprob": -0.4, "top_logprobs": top}
    others = [{"token": " t", "logprob": -0.5}, {"token": "oo", "logprob": -0.6}]
    ollama(
        server,
        {"message": {"content": "Hi"}, "logprobs": [first]},
        {"message": {"content": " t"}, "logprobs": others},  # one of them of the next line
        {"message": {"content": "oo"}},
        {"message": {"content": ""}, "done": True, "done_reason": "stop"},
    )
    facts = load(engine, server)
    assert (facts.runtime, facts.name, facts.weight_format) == ("Ollama", "llama3:latest", "Q4_K_M")
    assert facts.context_length == 0  # which it does not tell
    assert load(engine, server, "llama3").name == "llama3:latest"
    options = replace(OPTIONS, sampling=SamplingParams(penalty_window=64, min_p=0.1))
    events = run(engine, QUESTION, options)
    assert [(one.text, one.logprob) for one in records(events)[:3]] == [
        ("Hi", -0.4),
        (" t", -0.5),
        ("oo", -0.6),
    ]
    assert end(events).reason is FinishReason.STOP
    (body,) = server.bodies("/api/chat")
    assert body["options"]["repeat_last_n"] == 64
    assert body["options"]["min_p"] == 0.1
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)


def test_ollama_says_why_it_fails(engine: ServedEngine, server: ModelServer) -> None:
    ollama(server, {"message": {"content": "Hi"}}, {"error": "out of memory"})
    load(engine, server)
    events = run(engine, QUESTION, GenerateOptions(top_logprobs=2))
    assert end(events).reason is FinishReason.ERROR
    assert "out of memory" in end(events).message


def test_lm_studio_gives_no_numbers_and_says_so_once(
    engine: ServedEngine, server: ModelServer
) -> None:
    kind(server, "organization_owner")
    known = {"id": "m", "arch": "qwen3", "quantization": "Q8_0", "loaded_context_length": 8192}
    server.answers["/api/v0/models"] = [Answer({"data": [known]})]
    says(server, *sse(delta("One"), delta(" two"), delta("", finish="stop"), DONE))
    facts = load(engine, server)
    assert (facts.runtime, facts.context_length) == ("LM Studio", 8192)
    events = run(engine, QUESTION, OPTIONS)
    assert [one.text for one in records(events)] == ["One", " two", ""]
    assert "gave no probabilities" in end(events).message
    assert "min_p" in end(events).message  # which it does not have
    events = run(engine, QUESTION, OPTIONS)
    assert end(events).message == ""
    assert "logprobs" not in server.bodies(CHAT)[1]


def test_an_unknown_server_is_asked_for_what_openai_has(
    engine: ServedEngine, server: ModelServer
) -> None:
    kind(server, "somebody")
    says(server, *HELLO)
    assert load(engine, server).runtime == "server"
    hello = records(run(engine, QUESTION, OPTIONS))[0]
    assert (hello.logprob, math.isnan(hello.other_model_prob)) == (-0.5, True)
    (body,) = server.bodies(CHAT)
    assert not body.keys() & {"top_k", "min_p", "repetition_penalty", "ignore_eos"}


def test_a_server_that_refuses_probabilities_is_asked_without(
    engine: ServedEngine, server: ModelServer
) -> None:
    kind(server, "vllm")
    server.answers[CHAT] = [Answer({"error": {"message": "logprobs is not supported"}}, 422)]
    says(server, *sse(delta("Hi"), delta("", finish="length")))
    load(engine, server)
    events = run(engine, QUESTION, OPTIONS)
    assert text(events) == "Hi"
    assert "no probabilities" in end(events).message
    assert "logprobs is not supported" in end(events).message
    first, second = server.bodies(CHAT)
    assert "logprobs" in first and "logprobs" not in second


def test_a_refusal_of_the_rest_is_told(engine: ServedEngine, server: ModelServer) -> None:
    kind(server, "vllm")
    server.answers[CHAT] = [Answer({"object": "error", "message": "too long"}, 400)]
    load(engine, server)
    with pytest.raises(EngineError, match="answered 400: too long"):
        run(engine, QUESTION, OPTIONS)


def test_all_certain_is_no_models_word(engine: ServedEngine, server: ModelServer) -> None:
    kind(server, "vllm")
    says(server, *sse(*(delta(w, entry(w, 0.0)) for w in "abcd"), delta("", finish="length")))
    load(engine, server)
    assert "speculative" in end(run(engine, QUESTION, OPTIONS)).message


def test_continue_branch_and_temperature_go_on_from_the_text(
    engine: ServedEngine, server: ModelServer
) -> None:
    kind(server, "vllm")
    says(
        server, *sse(delta("Red", entry("Red", -0.5, ("Red", -0.5), ("Blue", -1.5)), finish="stop"))
    )
    load(engine, server)
    kept = Turn("assistant", "First: ", (UNTOLD + 5,))
    going_on = replace(QUESTION, turns=(*QUESTION.turns, kept), continue_reply=True)
    run(engine, going_on, OPTIONS)
    body = server.bodies(CHAT)[-1]
    assert body["messages"][-1] == {"role": "assistant", "content": "First: "}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    # Another token, known by its text alone: with the number that it was told with.
    forced = replace(OPTIONS, forced_ids=(UNTOLD + 7,), forced_bytes=(b"Blue",), max_tokens=1)
    (blue,) = records(run(engine, going_on, forced))
    assert (blue.text, blue.index, blue.rank, blue.logprob) == ("Blue", 1, 2, -1.5)
    # The temperature turned: asked again from what there is, with it.
    server.answers[CHAT] = []
    says(
        server,
        *sse(delta("Red", entry("Red", -0.5)), delta(" and", entry(" and", -0.1))),
        silent=True,
    )
    says(server, *sse(delta(" or", entry(" or", -0.2), finish="stop")))
    cold = SamplingParams(temperature=0)

    def turn(event: Any, controls: Any) -> None:
        if isinstance(event, TokenStep) and event.record.text == "Red":
            controls.sampling = cold

    events = run(engine, QUESTION, OPTIONS, turn)
    assert text(events) == "Red or"
    assert [one.temperature for one in records(events)[:2]] == [0.7, 0.0]
    body = server.bodies(CHAT)[-1]
    assert body["messages"][-1]["content"] == "Red"
    assert body["temperature"] == 0
    assert server.gone.wait(5)  # the first answer was ended


def test_a_stop_ends_the_connection_while_nothing_comes(
    engine: ServedEngine, server: ModelServer
) -> None:
    kind(server, "vllm")
    says(server, *sse(delta("Red", entry("Red", -0.5))), silent=True)
    load(engine, server)

    def stop(event: Any, controls: Any) -> None:
        if isinstance(event, TokenStep):
            controls.cancel()

    events = run(engine, QUESTION, OPTIONS, stop)
    assert (text(events), end(events).reason) == ("Red", FinishReason.CANCELLED)
    assert server.gone.wait(5)


@pytest.mark.parametrize("finished", [False, True])
def test_a_dropped_stream_keeps_what_came(
    engine: ServedEngine, server: ModelServer, finished: bool
) -> None:
    kind(server, "vllm")
    says(server, *HELLO[:2], cut=not finished)
    load(engine, server)
    events = run(engine, QUESTION, OPTIONS)
    assert text(events) == "Hello"
    assert end(events).reason is FinishReason.ERROR
    assert "what came before is kept" in end(events).message
    assert len(server.bodies(CHAT)) == 1  # no second try behind the first token


def test_a_silent_server_is_given_up(
    engine: ServedEngine, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "NEXT_SECONDS", 0.05)
    kind(server, "vllm")
    says(server, *HELLO[:2], silent=True)
    load(engine, server)
    events = run(engine, QUESTION, OPTIONS)
    assert text(events) == "Hello"
    assert "sent nothing for 0.05 seconds" in end(events).message


def test_before_the_first_token_it_is_tried_again(
    engine: ServedEngine, server: ModelServer
) -> None:
    kind(server, "vllm")
    server.answers[CHAT] = [Answer({"error": {"message": "busy"}}, 503)]
    says(server, *HELLO[:1], cut=True)
    says(server, *HELLO)
    load(engine, server)
    events = run(engine, QUESTION, OPTIONS)
    assert text(events) == "Hello you"
    tries = [event for event in events if isinstance(event, Progress)]
    assert [(one.done, one.total) for one in tries] == [(2, 3), (3, 3)]
    assert "busy" in tries[0].stage
    server.answers[CHAT] = [Answer({}, 503)]
    with pytest.raises(EngineError, match="answered 503"):
        run(engine, QUESTION, OPTIONS)
    assert len(server.bodies(CHAT)) == 6


def test_a_key_goes_nowhere_but_to_its_server(
    engine: ServedEngine,
    server: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("THE_KEY", "sekret-1234")
    kind(server, "vllm")
    other = ModelServer()
    moved = {"location": f"http://127.0.0.1:{other.server_port}{CHAT}?x=y"}
    server.answers[CHAT] = [
        Answer({"error": {"message": "bad key sekret-1234 for you"}}, 400),
        Answer({}, 307, moved),
    ]
    load(engine, server, key="THE_KEY")
    assert {one.headers["Authorization"] for one in server.asked} == {"Bearer sekret-1234"}
    with pytest.raises(EngineError, match="sends on to") as failed:
        run(engine, QUESTION, OPTIONS)
    assert other.asked == []
    server.answers[CHAT] = [Answer({"error": {"message": "bad key sekret-1234 for you"}}, 404)]
    with pytest.raises(EngineError, match="bad key … for you"):
        run(engine, QUESTION, OPTIONS)
    assert "sekret" not in str(failed.value)
    assert "sekret" not in caplog.text
    assert "colours" not in caplog.text
    other.close()


@pytest.mark.parametrize(
    "line",
    [
        b"data: {not json",
        b'data: {"choices":[{"delta":{"content":3}}]}',
        b'data: {"choices":[{"logprobs":{"content":[{"bytes":[300]}]}}]}',
        b"data: " + b"[" * 100_000,
    ],
)
def test_nonsense_is_one_clear_line(engine: ServedEngine, server: ModelServer, line: bytes) -> None:
    kind(server, "vllm")
    says(server, line)
    load(engine, server)
    with pytest.raises(EngineError, match="sent something that no vLLM sends"):
        run(engine, QUESTION, OPTIONS)


def test_a_key_that_no_header_can_hold(
    engine: ServedEngine, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("schlüssel-1234", "two\nlines-1234"):
        monkeypatch.setenv("THE_KEY", key)
        with pytest.raises(EngineError, match="what THE_KEY holds is no key") as refused:
            load(engine, server, key="THE_KEY")
        assert "1234" not in str(refused.value)


def test_half_a_surrogate_pair_is_no_fault(engine: ServedEngine, server: ModelServer) -> None:
    kind(server, "vllm")
    says(server, *HELLO)
    load(engine, server)
    assert text(run(engine, Prompt("", (Turn("user", "a\ud800b"),)), OPTIONS)) == "Hello you"
    assert server.bodies(CHAT)[0]["messages"][0]["content"] == "a?b"


def test_text_with_line_separators_is_one_line(engine: ServedEngine, server: ModelServer) -> None:
    kind(server, "vllm")
    event = delta("a\u2028b\x85c", finish="stop")
    line = b"data: " + json.dumps(event, ensure_ascii=False).encode()
    says(server, b": ping", line, b"", DONE)
    load(engine, server)
    assert text(run(engine, QUESTION, OPTIONS)) == "a\u2028b\x85c"


def test_which_model_is_meant(engine: ServedEngine, server: ModelServer) -> None:
    models = [{"id": name, "owned_by": "vllm"} for name in ("a", "b")]
    server.answers["/v1/models"] = [Answer({"data": models})]
    with pytest.raises(EngineError, match="several models; name one behind a #: a, b"):
        load(engine, server)
    with pytest.raises(EngineError, match="no model c; it has a, b"):
        load(engine, server, "c")
    assert load(engine, server, "b").name == "b"
    server.answers.clear()
    with pytest.raises(EngineError, match="name one behind a #"):
        load(engine, server)
    server.answers["/v1/models"] = [Answer(b"<html>")]
    assert load(engine, server, "any").runtime == "server"


def test_a_connection_that_was_idle_too_long_is_opened_again(
    engine: ServedEngine, server: ModelServer
) -> None:
    kind(server, "vllm")
    server.answers["/v1/models"].insert(0, Answer(cut=True))
    assert load(engine, server).runtime == "vLLM"


def test_a_server_that_still_loads_is_waited_for(engine: ServedEngine, server: ModelServer) -> None:
    kind(server, "vllm")
    server.answers["/v1/models"].insert(0, Answer({"error": {"message": "Loading model"}}, 503))
    seen: list[str] = []
    source = ModelSource("", server.url, "server")
    engine.load(source, LoadOptions(), lambda progress: seen.append(progress.stage))
    assert seen == ["asking the server", f"{seen[1].split()[0]} answered 503: Loading model; try"]


def test_nobody_there(engine: ServedEngine) -> None:
    server = ModelServer()
    server.close()
    with pytest.raises(EngineError, match=r"cannot be reached .* is it running\?"):
        load(engine, server)


# Text beside tokens


def place(chunks: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[tuple[bytes, bytes]]:
    aligner = Aligner(numbers=True)
    placed = []
    for data, tokens in chunks:
        placed += aligner.feed(data, [Weighed(token, -1.0) for token in tokens])
    placed += aligner.finish()
    return [(token.bytes, taken) for token, taken in placed]


def test_broken_characters_and_a_space_before_the_first_word() -> None:
    lossy = "\ufffd".encode()
    chunks = [(b"", [lossy]), ("é".encode(), [lossy]), (b" x", [b" x"])]
    assert place(chunks) == [(lossy, b""), (lossy, "é".encode()), (b" x", b" x")]
    assert place([(b"Hi", [b" Hi"]), (b"!", [b"!"])]) == [(b" Hi", b"Hi"), (b"!", b"!")]


@given(st.data())
def test_however_text_and_tokens_are_cut_each_has_its_own(data: st.DataObject) -> None:
    tokens = data.draw(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=8))
    whole = b"".join(tokens)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    waiting = list(tokens)
    chunks: list[tuple[bytes, list[bytes]]] = []
    for piece in pieces:  # tokens come with their text or before it
        sent = sum(len(one[0]) for one in chunks) + len(piece)
        told: list[bytes] = []
        while waiting and len(whole) - sum(map(len, waiting)) < sent:
            told.append(waiting.pop(0))
        chunks.append((piece, told))
    chunks.append((b"", waiting))
    placed = place(chunks)
    assert placed == [(token, token) for token in tokens]


def test_a_prompt_is_unknown_to_most(engine: ServedEngine, server: ModelServer) -> None:
    kind(server, "vllm")
    load(engine, server)
    for ask in (lambda: engine.tokenize("x"), lambda: engine.render(Prompt("", ()))):
        with pytest.raises(EngineError, match=r"^vLLM does not tell"):
            ask()
