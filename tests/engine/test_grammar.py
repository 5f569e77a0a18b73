"""Replies held to a schema or a grammar: by the standard library's own readers, and by hand."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.chat.generation import GenerateOptions, GenerationEnd, PromptRead, TokenStep
from chatapp.chat.inspection import PLAIN, ReplyStep, WrittenReply
from chatapp.chat.prompt import Prompt, Turn
from chatapp.chat.record import FinishReason, SamplingSpan
from chatapp.chat.sampling import ParameterError, SamplingParams
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.engine import LocalEngine
from chatapp.engine.runtimes.folder_tokenizer import FolderTokenizer
from chatapp.engine.runtimes.gguf_tokenizer import read_vocabulary
from chatapp.engine.runtimes.tokenizer import ModelTokenizer
from chatapp.engine.sampler.chain import run_chain
from chatapp.engine.sampler.vocabulary import Vocabulary
from chatapp.session.grammars import GrammarError, read_grammar
from tests.conftest import Call, one_line
from tests.engine import tiny_tokenizers
from tests.engine.sampler_cases import array, context, state

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
NONE = np.array([], np.int64)
WORDS = ("ja", "jawohl", "née 🙂", "nein/\n")
GRAMMARS = [
    "lark:start: " + " | ".join(map(json.dumps, WORDS)),
    "regex:" + "|".join(WORDS),
    "json:" + json.dumps({"enum": list(WORDS[:3])}),  # JSON writes the last one in many ways
]
BYTES = Vocabulary(
    lambda id_: bytes([id_]) if id_ < 256 else b"", 257, [256], lambda text: [*text.encode()]
)
"""Every byte is a token, and 256 ends a reply."""


@pytest.fixture(scope="module")
def engine(model_source: ModelSource, tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    engine = LocalEngine(tmp_path_factory.mktemp("prepared"))
    engine.load(model_source, LoadOptions(), lambda _: None)
    return engine


def write(engine: LocalEngine, grammar: str, **given: Any) -> tuple[str, list[Any], GenerationEnd]:
    sampling = SamplingParams(grammar=grammar, **given)
    options = GenerateOptions(sampling=sampling, seed=7, max_tokens=80)
    prompt = Prompt("", (Turn("user", "Tell me of a person."),))
    events = list(engine.generate(prompt, options, Controls(sampling)))
    records = [event.record for event in events if isinstance(event, TokenStep)]
    assert isinstance(events[-1], GenerationEnd)
    return "".join(record.text for record in records), records, events[-1]


@pytest.mark.model
@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
def test_a_reply_is_what_the_schema_says(engine: LocalEngine, temperature: float) -> None:
    text, records, end = write(engine, f"json:{json.dumps(SCHEMA)}", temperature=temperature)
    assert end.reason is FinishReason.STOP
    value = json.loads(text)
    assert set(value) == {"name", "age"}
    assert isinstance(value["name"], str) and len(value["name"]) <= 12
    assert isinstance(value["age"], int) and 0 <= value["age"] <= 120
    first = records[0]
    cut = [one for one in first.candidates if one.removed_by is not None]
    assert {one.removed_by.stage for one in cut if one.removed_by} >= {"grammar"}
    assert all(one.prob == 0 and one.logprob > -math.inf for one in cut)  # the model's own stays


@pytest.mark.model
@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        (r"regex:(red|green|blue)\.", r"(red|green|blue)\."),
        ('lark:start: "yes" | "no" ", " /[a-z]{3}/', r"yes|no, [a-z]{3}"),
    ],
)
def test_a_reply_is_what_the_grammar_says(engine: LocalEngine, grammar: str, pattern: str) -> None:
    text, _, end = write(engine, grammar, temperature=1.5)
    assert end.reason is FinishReason.STOP
    assert re.fullmatch(pattern, text)


@pytest.mark.model
def test_the_trace_names_the_grammar(engine: LocalEngine) -> None:
    grammar = r"regex:(red|green|blue)\."
    sampling = SamplingParams(grammar=grammar, temperature=1.0)
    prompt = Prompt("", (Turn("user", "A colour?"),))
    stages = [
        event.trace
        for event in engine.generate(
            prompt,
            GenerateOptions(sampling=sampling, seed=1, max_tokens=1, trace=True),
            Controls(sampling),
        )
        if isinstance(event, TokenStep)
    ]
    assert stages[0] is not None
    assert "grammar" in [stage.stage for stage in stages[0].stages]


def test_the_mask_is_the_one_made_by_hand() -> None:
    logits = array(np.linspace(-3, 3, 257).tolist())
    params = replace(PLAIN, grammar="regex:a[0-9]+")

    def final(*reply: int) -> dict[int, float]:
        given = context([5, 6, *reply], prompt_length=2, end_ids=[256], vocabulary=BYTES)
        outcome = run_chain(logits, params, given, state())
        ranked = outcome.final.ranked().ids
        assert ranked is not None
        ids = [int(one) for one in ranked]
        return dict(zip(ids, outcome.final.probs(np.array(ids)).tolist(), strict=True))

    def wanted(ids: list[int]) -> dict[int, float]:
        weights = np.exp(logits[ids].astype(np.float64))
        return dict(zip(ids, (weights / weights.sum()).tolist(), strict=True))

    digits = [*b"0123456789"]
    assert final() == pytest.approx(wanted([*b"a"]))
    assert final(*b"a") == pytest.approx(wanted(digits))
    assert final(*b"a7") == pytest.approx(wanted([*digits, 256]))
    assert final(*b"a") == pytest.approx(wanted(digits))  # back again, as what-if goes
    with pytest.raises(EngineError, match="does not fit what it is held to; branch"):
        final(*b"b")  # a token that the user took


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        ('json:{"type": 7}', "the json of the reply cannot be used"),
        ("json:{", "the json of the reply cannot be used"),
        ("regex:(", "the regex of the reply cannot be used"),
        ("lark:start: foo", "the lark of the reply cannot be used"),
    ],
)
def test_a_grammar_that_is_none_is_refused_in_words(grammar: str, words: str) -> None:
    with pytest.raises(EngineError, match=words) as refused:
        BYTES.allowed(grammar, NONE, 0, np.array([256]))
    assert "\n" not in str(refused.value)


def gguf(request: pytest.FixtureRequest) -> ModelTokenizer:
    return read_vocabulary(Path(request.getfixturevalue("model_source").path))


def folder(request: pytest.FixtureRequest) -> ModelTokenizer:
    return FolderTokenizer.from_folder(request.getfixturevalue("model_folder"))


def sentencepiece(request: pytest.FixtureRequest) -> ModelTokenizer:
    return FolderTokenizer(tiny_tokenizers.sentencepiece())


def vocabulary_of(tokenizer: ModelTokenizer) -> Vocabulary:
    controls = sorted(tokenizer.control_ids)
    size, encode = tokenizer.vocab_size, tokenizer.encode_inside
    return Vocabulary(tokenizer.token_bytes, size, controls, encode)


@pytest.mark.model
@pytest.mark.parametrize("make", [gguf, folder, sentencepiece])
def test_the_tokens_let_through_are_those_that_fit(
    make: Callable[[pytest.FixtureRequest], ModelTokenizer], request: pytest.FixtureRequest
) -> None:
    """Brute force over the vocabulary, for every token on the way to each word, 2 being the end."""
    tokenizer = make(request)
    vocabulary, table = vocabulary_of(tokenizer), tokenizer.byte_table
    prompt = tokenizer.encode_text("Say it.")
    for grammar in GRAMMARS:
        quoted = [json.dumps(word, ensure_ascii=False) for word in WORDS[:3]]
        datas = [text.encode() for text in (quoted if grammar[0] == "j" else WORDS)]
        inside = {d[a:b] for d in datas for a in range(len(d)) for b in range(a + 1, len(d) + 1)}
        within = [
            id_
            for id_, token in enumerate(table)
            if token in inside and id_ not in tokenizer.control_ids
        ]
        for data in datas:
            reply: list[int] = []
            written = b""
            while True:
                ids = np.array([*prompt, *reply], dtype=np.int64)
                mask = vocabulary.allowed(grammar, ids, len(prompt), np.array([2, 10**6]))
                wanted = [
                    id_
                    for id_ in within
                    if any(one.startswith(written + table[id_]) for one in datas)
                ]
                told = set(np.flatnonzero(mask).tolist())
                assert told == {*wanted, *([2] if written in datas else [])}, (grammar, written)
                rest = data[len(written) :]
                if not rest:
                    break
                fitting = (int(i) for i in np.flatnonzero(mask) if i != 2)
                reply.append(next(i for i in fitting if rest.startswith(table[i])))
                written += table[reply[-1]]


def test_threads_ask_about_several_replies_at_once() -> None:
    texts = [b"a1234567890", b"a99", b"a00000000000000"]

    def look(place: int) -> bool:
        data = texts[place % len(texts)]
        ids = np.array([*data[: place % len(data)]], dtype=np.int64)
        mask = BYTES.allowed("regex:a[0-9]+", ids, 0, np.array([256]))
        return mask[:256].sum() == (10 if ids.size else 1) and mask[256] == (ids.size > 1)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(look, range(400)))


def test_thinking_that_the_prompt_begins_is_free() -> None:
    prompt = [*b"Say it. <think>\n"]

    def allowed(reply: bytes) -> list[int]:
        ids = np.array([*prompt, *reply], dtype=np.int64)
        mask = BYTES.allowed("regex:ja", ids, len(prompt), np.array([256]))
        return np.flatnonzero(mask).tolist()

    for thought in (b"", b"Hello, hm", b"Hello</thi"):
        assert allowed(thought) == [*range(256)]
    assert allowed(b"Hello</think>") == [*b"j"]
    assert allowed(b"Hello</think>ja") == [256]


@pytest.mark.model
def test_what_is_cut_before_its_end_is_said(engine: LocalEngine) -> None:
    sampling = SamplingParams(grammar=GRAMMARS[0])
    start = tuple(engine.runtime.tokenizer.encode_inside("née "))[:2]
    options = GenerateOptions(sampling=sampling, forced_ids=start, max_tokens=2)
    prompt = Prompt("", (Turn("user", "Say it."),))
    end = list(engine.generate(prompt, options, Controls(sampling)))[-1]
    assert isinstance(end, GenerationEnd)
    assert end.reason is FinishReason.LENGTH
    assert end.message == "the reply is cut before what it is held to lets it end"


@pytest.mark.model
def test_what_is_looked_at_later_is_held_in_the_same_way(engine: LocalEngine) -> None:
    sampling = SamplingParams(grammar=GRAMMARS[0], temperature=2.0, top_k=0, top_p=1, min_p=0)
    options = GenerateOptions(sampling=sampling, seed=3)
    prompt = Prompt("", (Turn("user", "Say it."),))
    events = list(engine.generate(prompt, options, Controls(sampling)))
    records = [event.record for event in events if isinstance(event, TokenStep)]
    reply = WrittenReply(
        prompt_ids=next(one.prompt_ids for one in events if isinstance(one, PromptRead)),
        ids=tuple(record.id for record in records),
        draws=tuple(record.draw for record in records),
        probs=tuple(record.prob for record in records),
        spans=(SamplingSpan(0, sampling),),
        seed=3,
    )
    traced = engine.inspection.trace(ReplyStep(reply=reply, index=1), reply.ids[1:2])
    assert (traced.note, traced.trace.stages[1].stage) == ("", "grammar")
    told = engine.inspection.what_if(reply, sampling)
    wanted = pytest.approx([record.prob for record in records], abs=1e-3)
    assert [one.prob for one in told.tokens] == wanted


def test_ask_is_held_and_refuses_a_bad_schema_before_it_loads(
    call: Call, tiny_gguf: str, tmp_path: Path
) -> None:
    file = tmp_path / "answer.regex"
    file.write_text("[ab]c?\n")
    asked = ("ask", "-m", tiny_gguf, "hi", "-t", "2", "--schema", str(file))
    for seed in range(3):
        done = call(*asked, "--seed", str(seed))
        assert done.returncode == 0, done.stderr
        assert re.fullmatch("[ab]c?\n", done.stdout)
    done = call("ask", "hi", "--schema", str(file), "--decoder", "beam")
    assert "leave out --replay, --decoder" in one_line(done, 2)
    bad = tmp_path / "bad.json"
    bad.write_text('{"type": "objekt"}')
    done = call("ask", "-m", "none-such", "hi", "--schema", str(bad))
    assert "bad.json cannot be used: Invalid type: objekt" in one_line(done, 2)


def test_a_model_without_an_end_is_refused() -> None:
    with pytest.raises(EngineError, match="no end token"):
        Vocabulary(lambda _: b"x", 3).allowed("regex:x", NONE, 0, NONE)


def test_files_are_read_by_their_suffix(tmp_path: Path) -> None:
    def file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    assert read_grammar(file("a.json", json.dumps(SCHEMA, indent=2))) == "json:" + json.dumps(
        SCHEMA, separators=(",", ":")
    )
    assert read_grammar(file("a.lark", 'start: "x"\n')) == 'lark:start: "x"'
    for name, text, words in (
        ("b.json", "{", "no JSON schema"),
        ("b.json", "[]", "has to be an object"),
        ("b.json", "[" * 100_000, "no JSON schema"),
        ("b.json", '{"type": "objekt"}', "cannot be used: Invalid type: objekt"),
        ("b.json", '{"not": {"type": "null"}}', "cannot be used: Unimplemented keys"),
        ("b.lark", "start: foo", "cannot be used: at 1.8.: unknown name"),
        ("b.regex", "(", "cannot be used: .*unclosed group"),
        ("b.txt", "x", "held to .json, .lark, .regex"),
        ("b.regex", "", "empty"),
        ("b.lark", "x" * ((1 << 20) + 1), "larger than 1 MiB"),
    ):
        with pytest.raises(GrammarError, match=words):
            read_grammar(file(name, text))
    with pytest.raises(GrammarError, match="there is no file"):
        read_grammar(tmp_path / "none.json")
    with pytest.raises(ParameterError, match="begins with one of json, regex, lark"):
        SamplingParams(grammar="yaml:x")
