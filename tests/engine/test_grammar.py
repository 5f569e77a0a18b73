"""Replies held to a schema or a grammar: by the standard library's own readers, and by hand."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatapp.chat.errors import EngineError
from chatapp.chat.facts import LoadOptions, ModelSource
from chatapp.chat.generation import GenerateOptions, GenerationEnd, TokenStep
from chatapp.chat.prompt import Prompt, Turn
from chatapp.chat.record import FinishReason
from chatapp.chat.sampling import ParameterError, SamplingParams
from chatapp.chat.scoring import PLAIN
from chatapp.engine.decoding.controls import Controls
from chatapp.engine.engine import LocalEngine
from chatapp.engine.sampler.chain import run_chain
from chatapp.engine.sampler.vocabulary import Vocabulary
from chatapp.session.grammars import GrammarError, read_grammar
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
BYTES = Vocabulary(
    lambda id_: bytes([id_]) if id_ < 256 else b"", 257, [256], [256], lambda text: [*text.encode()]
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
    assert len(final(*b"b")) == 257  # the user took another token: nothing holds it any more


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
        BYTES.allowed(grammar, np.array([], np.int64))
    assert "\n" not in str(refused.value)


def test_a_model_without_an_end_is_refused() -> None:
    with pytest.raises(EngineError, match="no end token"):
        Vocabulary(lambda _: b"x", 3).allowed("regex:x", np.array([], np.int64))


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
