from __future__ import annotations

import json
import math
import unicodedata
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from chatapp.chat.jsonlines import end_json, json_line, sampling_json, start_json, token_json
from chatapp.chat.record import Removal
from chatapp.chat.sampling import PARAMETERS, SamplingParams
from tests.store.samples import make_reply


def test_a_token_has_the_keys_of_the_interface_in_their_order() -> None:
    record = make_reply(1, candidates=3).records[0]
    value = token_json(record)
    assert list(value) == [
        "type",
        "index",
        "id",
        "token",
        "bytes",
        "text",
        "logprob",
        "tempered_prob",
        "prob",
        "rank",
        "entropy_bits",
        "p_end",
        "temperature",
        "top_logprobs",
        "other_prob",
    ]
    first = value["top_logprobs"][0]
    assert list(first) == [
        "id",
        "token",
        "bytes",
        "logprob",
        "tempered_prob",
        "prob",
        "removed_by",
    ]
    assert bytes(value["bytes"]) == record.bytes
    assert json.loads(json_line(value)) == value


def test_a_removal_names_stage_setting_threshold_and_value() -> None:
    record = make_reply(1, candidates=2).records[0]
    cut = replace(record.candidates[1], removed_by=Removal("min_p", 0.05, 0.02, 0.01), prob=0.0)
    value = token_json(replace(record, candidates=(record.candidates[0], cut)))
    assert value["top_logprobs"][1]["removed_by"] == {
        "stage": "min_p",
        "setting": 0.05,
        "threshold": 0.02,
        "value": 0.01,
    }


def test_what_is_not_finite_is_null() -> None:
    record = make_reply(1, candidates=2).records[0]
    cut = replace(
        record.candidates[1],
        logprob=-math.inf,
        removed_by=Removal("bias", -math.inf, -math.inf, -math.inf),
    )
    value = token_json(replace(record, logprob=math.nan, candidates=(cut,)))
    assert value["logprob"] is None
    assert value["top_logprobs"][0]["logprob"] is None
    assert value["top_logprobs"][0]["removed_by"]["threshold"] is None
    line = json_line(value)
    assert "Infinity" not in line
    assert "NaN" not in line
    biased = SamplingParams(logit_bias=((7, -math.inf), (8, 1.5)))
    assert sampling_json(biased)["logit_bias"] == [[7, None], [8, 1.5]]


def test_start_and_end_tell_the_whole_reply() -> None:
    reply = make_reply(4)
    begun = replace(reply, runtime="llama.cpp", prompt_ids=(1, 2, 3), cached_tokens=1)
    start = start_json(begun, SamplingParams())
    assert list(start) == [
        "type",
        "model",
        "runtime",
        "prompt_tokens",
        "cached_tokens",
        "sampling",
        "seed",
        "prompt_ids",
    ]
    assert (start["runtime"], start["prompt_tokens"], start["cached_tokens"]) == ("llama.cpp", 3, 1)
    assert "runtime" not in start_json(replace(begun, runtime=""), SamplingParams())
    assert set(PARAMETERS) <= set(start["sampling"])
    end = end_json(reply)
    assert end["text"] == "".join(record.text for record in reply.records)
    assert (end["finish_reason"], end["prompt_tokens"], end["completion_tokens"]) == (
        "length",
        100,
        4,
    )
    assert end_json(replace(reply, finish_reason=None))["finish_reason"] is None


def test_a_line_is_utf8_even_where_the_text_is_not() -> None:
    assert json_line({"text": "é😀"}) == '{"text":"é😀"}'
    assert json_line({"text": "\ud800"}).encode() == b'{"text":"\\ud800"}'
    assert "\n" not in json_line({"text": "a\nb\u2028"})


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_a_line_can_be_looked_at_in_a_terminal_and_says_the_same(text: str) -> None:
    line = json_line({text: text})
    assert json.loads(line) == {text: text}
    line.encode()
    for character in line:
        code = ord(character)
        assert 0x20 <= code < 0x7F or code > 0x9F
        assert unicodedata.bidirectional(character) not in {
            *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        }
